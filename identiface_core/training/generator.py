"""Stages "base" and "generator": the transformer from words alone, then transformer and control branch
together.

Samples of many kinds are mixed in every batch: any clue may be missing, and two fifths are part rounds, in
which a part of a face is to be made anew from its words, with the face around it known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..diffusion.control import Control, ControlBranch
from ..diffusion.fusion import OFFICIAL_STEEPNESS, cutoff_for_side
from ..diffusion.masking import blend
from ..diffusion.schedule import SIGMA_MAX, SIGMA_MIN, denoised_from_v, scale_input, sigma_to_t, velocity
from ..diffusion.transformer import forward_controlled, make_transformer
from ..evidence.lexicon import SLOTS, UNSAID
from ..synthesis.phrases import describe, part_text
from .latents import LQ_SIDES, ROUND_PARTS, Latents, template_cells
from .loop import Stage, bfloat16

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    from ..evidence.words import TextEncoder
    from .identity import IdentityTerm, WordsTerm

PART_SHARES = {
    "eyes": 4,
    "brows": 4,
    "nose": 4,
    "mouth": 4,
    "hair": 3,
    "glasses": 3,
    "beard": 2,
    "skin": 1,
    "ears": 1,
}
"""How often each part is drawn in part rounds, relative to the others: small shapes need most practice."""
SIGMA_CENTRE, SIGMA_SPREAD = 1.0, 1.2
"""Noise levels are log-normal; 16 x 16 latents need lower ones than the 64 x 64 ones the schedule was made
for."""
PART_SIGMA_CENTRE = 2.0
"""Part rounds are trained at higher noise, where the words decide and not what is left of the answer."""
ERASED = 0.8
"""Share of the part rounds in which the clues inside the mask are hidden: else nobody needs to read the words."""
NO_ESTIMATE = 0.25
"""Share of the whole faces that are drawn without an estimate of the evidence encoder."""


@dataclass(frozen=True)
class Batch:
    """Everything that a training step of B samples depends on; latents are (B, 4, 16, 16)."""

    target: Tensor
    sketch: Tensor
    lq: Tensor
    present: Tensor
    """(B, 2) float: has a sketch, has an LQ photo."""
    words: Tensor
    """(B, SLOTS, WIDTH)."""
    estimate: Tensor
    """(B, D): what the evidence encoder makes of the same kinds of evidence; zero for none, and in part rounds."""
    people: Tensor
    """(B,) whose faces these are."""
    mirrored: Tensor
    """(B,) 1 where the face is the mirrored one."""
    part: Tensor
    """(B,) place in `ROUND_PARTS` of the part that a part round draws."""
    spoken: Tensor
    """(B,) float: there are words."""
    known: Tensor
    """What stands outside the mask."""
    mask: Tensor
    """(B, 1, 16, 16), 1 = to be made; all ones unless `rounds`."""
    rounds: Tensor
    """(B,) float: is a part round."""
    erase: Tensor
    """(B,) float: the clues inside the mask are hidden."""
    noise: Tensor
    sigma: Tensor
    """(B, 1, 1, 1)."""

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class People:
    """Whom a batch is drawn from."""

    latents: Latents
    attributes: Sequence[Sequence[int]]
    estimates: Tensor | None = None
    estimate_noise: Tensor | None = None


class GeneratorStage(Stage):
    """Transformer and control branch together, by velocity error.

    latents, attributes: of the people to train on; attributes (N, SLOTS) value indices. estimates: (N, 7, K, D)
    of the evidence encoder (`training.evidence.estimates`); None: a branch that reads none. estimate_noise: (7,),
    how much is added to the estimates of the people trained on, whom the encoder knows too well
    (`training.evidence.overconfidence`). transformer: one to go on from (stage "base"), or None for a fresh one.
    unseen, unseen_*: people to validate on. identity, said: the identity loss and the words' loss, or None.
    fused: False adds the two pictures' latents up instead of fusing their frequencies.
    """

    name = "generator"
    with_control = True
    round_share = 0.4
    validated = 128

    def __init__(
        self,
        latents: Latents,
        attributes: Tensor,
        text_encoder: TextEncoder,
        transformer: PixArtTransformer2DModel | None = None,
        *,
        unseen: Latents | None = None,
        unseen_attributes: Tensor | None = None,
        estimates: Tensor | None = None,
        unseen_estimates: Tensor | None = None,
        estimate_noise: Tensor | None = None,
        identity: IdentityTerm | None = None,
        said: WordsTerm | None = None,
        fused: bool = True,
        steps: int = 16000,
        batch: int = 64,
        copies: int = 3,
        seed: int = 0,
        autocast: bool = True,
    ) -> None:
        self.text_encoder, self.identity, self.said = text_encoder.eval(), identity, said
        self.seen = People(latents, attributes.tolist(), estimates, estimate_noise)
        self.unseen = self.seen
        if unseen is not None and unseen_attributes is not None:
            self.unseen = People(unseen, unseen_attributes.tolist(), unseen_estimates)
        self.steps, self.batch, self.seed, self.autocast = steps, batch, seed, autocast
        self.lr, self.weight_decay, self.ema, self.validate_every = 1.2e-3, 1e-2, 0.999, 500
        self.templates = template_cells().float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.transformer = transformer or make_transformer()
            self.modules = nn.ModuleDict({"transformer": self.transformer})
            if self.with_control:
                cutoff = cutoff_for_side(min(LQ_SIDES), 128)
                self.control = ControlBranch.copy_of(
                    self.transformer,
                    copies=copies,
                    cutoff=cutoff,
                    steepness=OFFICIAL_STEEPNESS,
                    estimate=0 if estimates is None else estimates.shape[-1],
                    fused=fused,
                )
                self.modules["control"] = self.control
        self.dimension = 1 if estimates is None else estimates.shape[-1]
        self.modules.requires_grad_(True)
        use_batched_attention(self.modules)

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = self.draw(self.seen, self.batch, generator).to(self._device())
        errors, made = self.errors(batch)
        whole, rounds = 1 - batch.rounds, batch.rounds
        total = errors.mean()
        values = {"whole": (errors * whole).sum() / whole.sum().clamp_min(1)}
        if self.with_control:
            values["rounds"] = (errors * rounds).sum() / rounds.sum().clamp_min(1)
        if self.identity is not None:
            term = self.identity(step, batch, made)
            if term is not None:
                total, values["identity"] = total + term, term
        if self.said is not None:
            term = self.said(batch, made, ROUND_PARTS)
            if term is not None:
                total, values["said"] = total + term, term
        return {"loss": total, **values}

    def errors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Velocity error of every sample inside its mask, (B,), and the predicted clean latents (B, 4, 16, 16)."""
        control = self._control(batch) if self.with_control else None
        noisy = blend(batch.target, batch.known, batch.mask) + batch.sigma * batch.noise
        timestep = sigma_to_t(batch.sigma.flatten()).float().to(batch.sigma.device)
        made = forward_controlled(
            self.transformer, scale_input(noisy, batch.sigma), timestep, batch.words, control
        ).float()
        wanted = velocity(batch.target, batch.noise, batch.sigma)
        errors = ((made - wanted).square() * batch.mask).sum((1, 2, 3)) / (
            batch.mask.sum((1, 2, 3)) * made.shape[1]
        )
        return errors, denoised_from_v(noisy, made, batch.sigma)

    def _control(self, batch: Batch) -> Control:
        latent = self.control.freq_fusion.fuse_present(
            batch.sketch, batch.lq, batch.present[:, 0], batch.present[:, 1]
        )
        rounds = batch.rounds.view(-1, 1, 1, 1)
        latent = latent * (1 - batch.mask * rounds * batch.erase.view(-1, 1, 1, 1))
        surroundings = torch.cat([batch.known * (1 - batch.mask), batch.mask], dim=1) * rounds
        estimate = None if self.control.estimate is None else batch.estimate
        asked = batch.estimate.abs().amax(1).sign()
        strength = torch.stack((batch.present.amax(1), batch.rounds, asked)).amax(0).view(-1, 1, 1)
        return Control(self.control, latent, surroundings, batch.present, estimate, strength)

    def draw(self, of: People, size: int, generator: torch.Generator) -> Batch:
        """A random batch of `size` people."""
        latents = of.latents
        g = generator
        people = torch.randint(len(latents), (size,), generator=g)
        side = torch.randint(2, (size,), generator=g)
        target = latents.portraits[people, side].float()
        sketch = latents.sketches[
            people, side, torch.randint(latents.sketches.shape[2], (size,), generator=g)
        ].float()
        lq = latents.lq[people, side, torch.randint(latents.lq.shape[2], (size,), generator=g)].float()
        present = (torch.rand(size, 2, generator=g) >= 0.35).float()
        present *= (torch.rand(size, 1, generator=g) >= 0.12).float()  # words alone must mean something
        rounds = (torch.rand(size, generator=g) < (self.round_share if self.with_control else 0.0)).float()
        parts = torch.multinomial(
            torch.tensor([float(PART_SHARES[p]) for p in ROUND_PARTS]), size, replacement=True, generator=g
        )
        mask = self._masks(latents.cells[people, side, parts].float(), parts, g)
        is_round = rounds.view(-1, 1, 1, 1)
        mask = mask * is_round + (1 - is_round)
        disturbed = (torch.rand(size, 1, 1, 1, generator=g) < 0.5).float()
        known = torch.lerp(target, self._disturbed(target, g), disturbed)
        texts = [
            witness_words(of.attributes[int(person)], ROUND_PARTS[int(part)] if is_part else None, g)
            for person, part, is_part in zip(people, parts, rounds, strict=True)
        ]
        spoken = torch.tensor([float(text != "") for text in texts])
        centre = torch.where(rounds > 0, PART_SIGMA_CENTRE, SIGMA_CENTRE).log()
        sigma = (centre + SIGMA_SPREAD * torch.randn(size, generator=g)).exp().clamp(SIGMA_MIN, SIGMA_MAX)
        return Batch(
            target=target,
            sketch=sketch,
            lq=lq,
            present=present,
            words=encode_sorted(self.text_encoder, texts),
            estimate=self._estimates(of, people, present, spoken, g) * (1 - rounds[:, None]),
            people=people,
            mirrored=side,
            part=parts,
            spoken=spoken,
            known=known,
            mask=mask,
            rounds=rounds,
            erase=(torch.rand(size, generator=g) < ERASED).float(),
            noise=torch.randn(target.shape, generator=g),
            sigma=sigma.view(-1, 1, 1, 1),
        )

    def _estimates(
        self, of: People, people: Tensor, present: Tensor, spoken: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(B, D) estimates from the kinds of evidence that each sample has, of other draws of it; zero for a share."""
        if of.estimates is None:
            return torch.zeros(len(people), self.dimension)
        kinds = (present[:, 1] + 2 * present[:, 0] + 4 * spoken).long()
        which = torch.randint(of.estimates.shape[2], (len(people),), generator=generator)
        asked = (torch.rand(len(people), generator=generator) >= NO_ESTIMATE) & (kinds > 0)
        found = of.estimates[people, (kinds - 1).clamp_min(0), which].float()
        if of.estimate_noise is not None:
            stray = F.normalize(torch.randn(found.shape, generator=generator))
            found = found + of.estimate_noise[(kinds - 1).clamp_min(0), None] * stray
        return F.normalize(found) * asked[:, None]

    def _masks(self, seen: Tensor, parts: Tensor, generator: torch.Generator) -> Tensor:
        """Masks (B, 1, 16, 16): where the part is seen or, in a third of samples and where it is not seen,
        its template; some grown."""
        fixed = torch.rand(len(parts), generator=generator) < 0.35
        fixed |= seen.flatten(1).sum(1) == 0
        mask = torch.where(fixed[:, None, None], self.templates[parts], seen)[:, None]
        grow = torch.rand(len(parts), 1, 1, 1, generator=generator) < 0.25
        return torch.where(grow, F.max_pool2d(mask, 3, stride=1, padding=1), mask)

    def _disturbed(self, target: Tensor, generator: torch.Generator) -> Tensor:
        """Faces as a generator makes them, roughly: another person's part in them, smoothed, with noise.
        Surroundings to learn from."""
        amounts = torch.rand(3, len(target), 1, 1, 1, generator=generator)
        others = target.roll(1, 0)
        region = self.templates[torch.randint(len(self.templates), (len(target),), generator=generator)][
            :, None
        ]
        known = torch.lerp(target, others, region * (amounts[0] > 0.4))
        known = torch.lerp(
            known, F.avg_pool2d(known, 3, stride=1, padding=1, count_include_pad=False), 0.6 * amounts[1]
        )
        return known + 0.3 * amounts[2] * torch.randn(target.shape, generator=generator)

    def validate(self) -> dict[str, float]:
        """Velocity errors on unseen people: by the clues there are, and of part rounds with and without
        words."""
        with bfloat16(self._device(), enabled=self.autocast):
            n = self.validated
            batch = self.draw(self.unseen, n, torch.Generator().manual_seed(1))
            silent = self.text_encoder.context([""]).expand_as(batch.words)
            ones, part = (
                torch.ones_like(batch.mask),
                self.templates[ROUND_PARTS.index("eyes")].expand_as(batch.mask),
            )
            none = torch.zeros_like(batch.estimate)
            whole = replace(batch, rounds=torch.zeros(n), mask=ones, estimate=none)
            cases = {"words": (0.0, 0.0, batch.words), "nothing": (0.0, 0.0, silent)}
            if self.with_control:
                cases |= {
                    "all": (1.0, 1.0, batch.words),
                    "sketch+lq": (1.0, 1.0, silent),
                    "sketch": (1.0, 0.0, silent),
                    "lq": (0.0, 1.0, silent),
                }
            figures = {}
            for name, (sketch, lq, words) in cases.items():
                figures[f"loss_{name}"] = self._mean_error(
                    replace(whole, present=torch.tensor([[sketch, lq]]).expand(n, 2), words=words)
                )
            if self.unseen.estimates is not None:
                asked = F.normalize(self.unseen.estimates[batch.people, 6, 0].float())
                figures["loss_all+estimate"] = self._mean_error(
                    replace(whole, present=torch.ones(n, 2), estimate=asked)
                )
            if self.with_control:
                eyes = replace(
                    batch,
                    rounds=torch.ones(n),
                    mask=part,
                    known=batch.target,
                    erase=torch.ones(n),
                    present=torch.ones(n, 2),
                    sigma=batch.sigma.clamp_min(1.0),
                    words=self._eye_words(batch),
                    estimate=none,
                )
                figures["loss_eyes_words"] = self._mean_error(eyes)
                figures["loss_eyes_silent"] = self._mean_error(replace(eyes, words=silent))
        return figures

    def _eye_words(self, batch: Batch) -> Tensor:
        g = torch.Generator().manual_seed(1)
        texts = [part_text(self.unseen.attributes[int(person)], "eyes", g) for person in batch.people]
        return encode_sorted(self.text_encoder, texts)

    @torch.no_grad()
    def _mean_error(self, batch: Batch) -> float:
        device = self._device()
        pieces = range(0, len(batch.target), self.batch)
        errors = [
            self.errors(Batch(**{k: v[i : i + self.batch] for k, v in vars(batch).items()}).to(device))[0]
            for i in pieces
        ]
        return float(torch.cat(errors).mean())

    def _device(self) -> torch.device:
        return self.transformer.proj_out.weight.device


class BaseStage(GeneratorStage):
    """The transformer alone, from words alone."""

    name = "base"
    with_control = False


def witness_words(values: Sequence[int], part: str | None, generator: torch.Generator) -> str:
    """What is said about one person: everything (part None), or opening and words of one part, as a round's
    prompt; "" in 10 %.

    The rate of omission is drawn per text, and is zero in 15 %: a complete description must be nothing
    unusual. The words of a round's part are never wrong and rarely left out: they are what the round is
    about.
    """
    silent, complete, omit, wrong, whole = torch.rand(5, generator=generator).tolist()
    if silent < 0.1:
        return ""
    said = describe(
        values, generator, omit=0.0 if complete < 0.15 else 0.8 * omit, wrong=0.15 * wrong
    ).description
    if part is None:
        return said.full_prompt() if whole < 0.85 else said.prompt("overview")
    kept = torch.rand(SLOTS, generator=generator) >= 0.1
    about = [value if keep else UNSAID for value, keep in zip(values, kept.tolist(), strict=True)]
    return f"{said.prompt('overview')} {part_text(about, part, generator)}".strip()


@torch.no_grad()
def encode_sorted(encoder: TextEncoder, texts: Sequence[str], chunk: int = 16) -> Tensor:
    """What `TextEncoder.context` gives, (B, SLOTS, WIDTH) float32, quicker: texts of like length share a chunk, so that little
    padding is read."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    pieces = [
        encoder(encoder.tokenise([texts[i] for i in order[k : k + chunk]]))
        for k in range(0, len(order), chunk)
    ]
    slots = torch.cat(pieces).float() + encoder.codes
    return slots[torch.argsort(torch.tensor(order))]


def use_batched_attention(module: nn.Module) -> None:
    """Attention as plain batched products: the fused one's backward is four times slower in bfloat16 on
    CPUs."""
    from diffusers.models.attention_processor import Attention, AttnProcessor

    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.set_processor(AttnProcessor())
