"""Training a control for Stable Diffusion 1.5: the branch learns, the user's checkpoint stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..diffusion.schedule import STEPS, scale_input, t_to_sigma
from ..diffusion.stable import LatentControl, StableControl, forward_controlled_unet
from ..diffusion.stable_base import StableBase, clean_of, load_base, wanted_of
from ..errors import InputError
from ..weights.files import check_writable, save_module
from .loop import Outcome, Stage, run_stage
from .losses import IdentityLoss
from .stable_photos import EncodedPhotos, encode_photos, find_photos

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

CONTROL_FILE = "control.safetensors"
KINDS_OF_EVIDENCE = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
"""Sketch alone, LQ photo alone, both: equally often, so that each is missing in a third. A sample with neither would teach the
branch nothing: it is not asked then."""
SILENT = 0.3
"""Share of the samples without words."""
HELD_OUT, MOST_HELD_OUT = 20, 32
"""One photo in so many is kept for validation, at most so many."""

IdentityTerm = Callable[[int, Tensor, Tensor, Tensor], Tensor | None]
"""(step, timesteps (B,), predicted clean latents, true latents, both (B, 4, h, w)) -> a scalar to add to the loss, or None."""


@dataclass(frozen=True)
class StableBatch:
    """Everything that a training step of B samples depends on; latents are (B, 4, h, w)."""

    target: Tensor
    sketch: Tensor
    lq: Tensor
    present: Tensor
    """(B, 2) float: has a sketch, has an LQ photo."""
    context: Tensor
    """(B, L, W): the words."""
    noise: Tensor
    timestep: Tensor
    """(B,) whole numbers in [0, 1000)."""

    def to(self, device: torch.device) -> StableBatch:
        """The batch on another device."""
        return StableBatch(**{name: value.to(device) for name, value in vars(self).items()})


class DecodedIdentity:
    """The identity loss (`losses`, IdentiFace's training section) on decoded faces, the true one seen with the same eye.

    decode: latents to images (B, 3, H, W) in about [0, 1] (`StableBase.decode`). embed: images to embeddings (B, D),
    differentiable: alignment, if it needs any, is its own. most: samples that are looked at per step; each costs a decoding.
    """

    def __init__(
        self,
        decode: Callable[[Tensor], Tensor],
        embed: Callable[[Tensor], Tensor],
        rule: IdentityLoss | None = None,
        *,
        most: int = 2,
    ) -> None:
        self.decode, self.embed, self.rule, self.most = decode, embed, rule or IdentityLoss(), most

    def __call__(self, step: int, timesteps: Tensor, made: Tensor, target: Tensor) -> Tensor | None:
        rows = torch.nonzero(self.rule.open(step, timesteps))[: self.most, 0]
        if not len(rows):
            return None
        with torch.no_grad():
            wanted = self.embed(self._picture(target[rows]))
        return self.rule.term(step, timesteps[rows], self.embed(self._picture(made[rows])), wanted)

    def _picture(self, latents: Tensor) -> Tensor:
        """Decoded, without what lies beyond black and white: no picture holds it, and a matcher refuses it."""
        return self.decode(latents).clamp(0, 1)


class StableControlStage(Stage):
    """A control branch on a frozen U-Net, by the error of its prediction at noise levels drawn evenly.

    photos: to train on. unseen: to validate on; None: the same. control: one to go on from; None: a fresh copy of the U-Net's
    encoder. identity: an identity loss to add, such as `DecodedIdentity`. checkpointing: compute activations twice, to save
    memory. The U-Net is moved to `device`, and computes in `precision`.
    """

    name = "stable-control"

    def __init__(
        self,
        unet: UNet2DConditionModel,
        photos: EncodedPhotos,
        *,
        unseen: EncodedPhotos | None = None,
        control: StableControl | None = None,
        prediction: str = "epsilon",
        steps: int = 20000,
        batch: int = 4,
        lr: float = 1e-5,
        seed: int = 0,
        identity: IdentityTerm | None = None,
        checkpointing: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self.photos, self.unseen = photos, unseen if unseen is not None and len(unseen) else photos
        self.prediction, self.identity = prediction, identity
        self.steps, self.batch, self.lr, self.seed = steps, batch, lr, seed
        self.ema, self.warmup, self.validate_every = 0.999, min(500, steps // 10), 500
        self.device = torch.device(device)
        self.autocast = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.control = control if control is not None else StableControl.from_unet(unet)
        self.control.requires_grad_(True)
        self.modules = nn.ModuleDict({"control": self.control})
        self.unet = unet.requires_grad_(False).eval()
        self.unet.to(self.device, torch.bfloat16 if self.autocast else torch.float32)
        if checkpointing:
            self.control.gradient_checkpointing()
            self.unet.enable_gradient_checkpointing()

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = self.draw(self.photos, self.batch, generator).to(self.device)
        errors, made = self.errors(batch)
        values = {"loss": errors.mean()}
        if self.identity is not None:
            term = self.identity(step, batch.timestep.float(), made, batch.target)
            if term is not None:
                values |= {"loss": values["loss"] + term, "identity": term}
        return values

    def errors(self, batch: StableBatch, *, steered: bool = True) -> tuple[Tensor, Tensor]:
        """Squared error of each sample's prediction, (B,), and the clean latents that it means."""
        fused = self.control.freq_fusion.fuse_present(
            batch.sketch, batch.lq, batch.present[:, 0], batch.present[:, 1]
        )
        control = LatentControl(self.control, fused, batch.present) if steered else None
        sigma = t_to_sigma(batch.timestep).float().to(self.device).view(-1, 1, 1, 1)
        noisy = batch.target + sigma * batch.noise
        made = forward_controlled_unet(
            self.unet, scale_input(noisy, sigma), batch.timestep, batch.context, control
        ).float()
        errors = (
            (made - wanted_of(self.prediction, batch.target, batch.noise, sigma)).square().mean((1, 2, 3))
        )
        return errors, clean_of(self.prediction, noisy, made, sigma)

    def draw(self, photos: EncodedPhotos, size: int, generator: torch.Generator) -> StableBatch:
        """A random batch."""
        g = generator
        rows: list[tuple[Tensor, ...]] = []
        for index in torch.randint(len(photos), (size,), generator=g).tolist():
            found, texts = photos.photo(index), len(photos.words[index])
            view = int(torch.randint(2, (), generator=g))
            sketch, lq = torch.randint(found["sketch"].shape[1], (2,), generator=g).tolist()
            silent, whole = torch.rand(2, generator=g).tolist()
            which = int(torch.randint(texts, (), generator=g)) if whole < 0.5 else 0
            said = photos.silence if silent < SILENT else photos.context(index, which)
            rows.append((found["photo"][view], found["sketch"][view, sketch], found["lq"][view, lq], said))
        target, sketches, lqs, context = (torch.stack(kind) for kind in zip(*rows, strict=True))
        kinds = torch.randint(len(KINDS_OF_EVIDENCE), (size,), generator=g)
        return StableBatch(
            target=target,
            sketch=sketches,
            lq=lqs,
            present=torch.tensor(KINDS_OF_EVIDENCE)[kinds],
            context=context,
            noise=torch.randn(target.shape, generator=g),
            timestep=torch.randint(STEPS, (size,), generator=g),
        )

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Errors on the same unseen photos and noise: without control, and by the clues there are."""
        size = min(len(self.unseen), MOST_HELD_OUT)
        batch = self.draw(self.unseen, size, torch.Generator().manual_seed(1))
        cases = dict(zip(("sketch", "lq", "both"), KINDS_OF_EVIDENCE, strict=True))
        figures = {"loss_none": self._mean(batch, steered=False)}
        for name, flags in cases.items():
            given = replace(batch, present=torch.tensor([flags]).expand(size, 2))
            figures[f"loss_{name}"] = self._mean(given, steered=True)
        return figures

    def _mean(self, batch: StableBatch, *, steered: bool) -> float:
        errors = []
        for start in range(0, len(batch.target), self.batch):
            rows = {name: value[start : start + self.batch] for name, value in vars(batch).items()}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
                errors.append(self.errors(StableBatch(**rows).to(self.device), steered=steered)[0])
        return float(torch.cat(errors).mean())


def train_control(
    base: Path,
    photos: Path,
    out: Path,
    *,
    tokenizer: Path | None = None,
    steps: int = 20000,
    batch: int = 4,
    side: int = 512,
    lr: float = 1e-5,
    minutes: float | None = None,
    checkpointing: bool = False,
    device: str = "cpu",
    identity: Callable[[StableBase], IdentityTerm] | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """Encode the photos, train a control on the Stable Diffusion 1.5 at `base`, and write `out/control.safetensors`.

    A run that was stopped goes on from its checkpoint in `out`. identity: makes an identity loss of the base, whose
    autoencoder then stays on the device. Raises the errors of `load_base`, `find_photos` and `run_stage`, and OutputError before
    the work begins if `out` cannot be written to.
    """
    if steps < 1 or batch < 1 or not 0 < lr < 1:
        raise InputError(
            f"training needs at least one step, one sample a step and a learning rate in (0, 1), got {steps}, {batch} and {lr:g}"
        )
    check_writable(out / CONTROL_FILE)
    found = find_photos(photos)
    loaded = load_base(base, tokenizer=tokenizer)
    loaded.vae.to(device)
    loaded.text.to(device)
    encoded = encode_photos(found, loaded, out / "encoded", side=side, progress=_every_tenth(say))
    term = identity(loaded) if identity is not None else None
    if term is None:
        loaded.vae.to("cpu")
    loaded.text.to("cpu")
    held = min(len(encoded) // HELD_OUT, MOST_HELD_OUT)
    stage = StableControlStage(
        loaded.unet,
        encoded.part(slice(held, None)),
        unseen=encoded.part(slice(held)),
        prediction=loaded.prediction,
        steps=steps,
        batch=batch,
        lr=lr,
        identity=term,
        checkpointing=checkpointing,
        device=device,
    )

    def progress(step: int, done: float, values: dict[str, float]) -> None:
        say(f"control {done:4.0%} step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    outcome = run_stage(
        stage,
        out,
        device=device,
        minutes=minutes,
        log_every=min(50, steps),
        checkpoint_every_s=900,
        progress=progress,
    )
    save_module(out / CONTROL_FILE, stage.control, extra=_notes(base, len(encoded), side, outcome))
    say(f"{out / CONTROL_FILE}: written; for ComfyUI put it into models/controlnet")
    return out / CONTROL_FILE


def _notes(base: Path, photos: int, side: int, outcome: Outcome) -> dict[str, object]:
    return {
        "origin": "trained",
        "base": base.name,
        "photos": photos,
        "side": side,
        "step": outcome.step,
        "minutes": round(outcome.minutes, 2),
        "validation": outcome.validation,
    }


def _every_tenth(say: Callable[[str], None]) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            say(f"encoding {done}/{total} photos")

    return progress
