"""The embedded model's training: its stages by name, one at a time or all in order, and the export of what
ships.

Everything of a training lies in one folder: `worlds/<split>` (drawn people), `runs/<stage>` (checkpoint,
curve, and the finished networks as safetensors), `calibrations.safetensors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from identiface_core.embedded import CALIBRATIONS, FILES, FOLDER, GALLERY, TRANSFORMER, write_hashes
from identiface_core.errors import InputError, WeightsError
from identiface_core.evaluation.trainings import PREFIX, VARIANTS
from identiface_core.training.data import World, draw_world
from identiface_core.training.loop import CHECKPOINT, Outcome, Stage, load_trained, run_stage
from identiface_core.weights.files import load_module, save_module, write_atomic

PEOPLE = 8000
"""People of the training world unless another number is asked for."""

VIEWS = 3
"""Pictures of each person of the training world beside the canonical one."""
SKETCHES = 2
"""Sketches of each person of the training world, by two witnesses."""
OTHER_PEOPLE: dict[str, int] = {"validation": 300, "look-alikes": 100, "calibration": 1200}
"""People of the worlds that are only measured on: two views and one sketch each."""

if TYPE_CHECKING:
    from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

    from identiface_core.training.generator import GeneratorStage
    from identiface_core.training.latents import Latents

NetworkT = TypeVar("NetworkT", bound=nn.Module)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Workshop:
    """A training folder and how it is used."""

    folder: Path
    device: str = "cpu"
    people: int = PEOPLE
    say: Say = field(default=lambda line: print(line, file=sys.stderr, flush=True))

    def world(self, split: str = "train") -> World:
        """A world of this folder; the small ones are drawn when first asked for, the training world by stage
        "world".
        """
        folder = self.folder / "worlds" / split
        if split in OTHER_PEOPLE:
            return draw_world(
                folder, OTHER_PEOPLE[split], split, views=2, sketches=1, progress=self._drawn(split)
            )
        return World(folder)

    def run(self, stage: str) -> Path:
        """Folder of one stage's run."""
        return self.folder / "runs" / stage

    def network(self, stage: str, key: str, cls: type[NetworkT]) -> NetworkT:
        """A network that an earlier stage finished; `WeightsError` says which stage is missing."""
        path = self.run(stage) / f"{key}.safetensors"
        if not path.exists():
            raise WeightsError(
                f"{path} is missing: first run `identiface train embedded --stage {stage}` "
                f"with --folder {self.folder}"
            )
        return load_module(path, cls)

    def draw(self) -> None:
        """Draw the training world (and finish one that was stopped), then the worlds that are measured on."""
        for split in OTHER_PEOPLE:
            self.world(split)
        draw_world(
            self.folder / "worlds" / "train",
            self.people,
            "train",
            views=VIEWS,
            sketches=SKETCHES,
            progress=self._drawn("train"),
        )

    def _drawn(self, split: str) -> Callable[[int, int], None]:
        return lambda done, people: self.say(f"world {split}: {done} of {people} people drawn")


def _text(shop: Workshop) -> Stage:
    from identiface_core.training.text import TextStage

    return TextStage()


def _autoencoder(shop: Workshop) -> Stage:
    from identiface_core.training.autoencoder import AutoencoderStage

    return AutoencoderStage(shop.world(), shop.world("validation"))


def _matcher(which: str) -> Callable[[Workshop], Stage]:
    def build(shop: Workshop) -> Stage:
        from identiface_core.training.matchers import MatcherStage

        return MatcherStage(shop.world(), which, shop.world("validation"), shop.world("look-alikes"))

    return build


def _evidence(shop: Workshop) -> Stage:
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.matchers.network import FaceNet
    from identiface_core.training.evidence import EvidenceStage

    matcher = shop.network("matcher-a", "net", FaceNet)
    words = shop.network("text", "text", TextEncoder)
    return EvidenceStage(shop.world(), matcher, words, shop.world("validation"), device=shop.device)


def _segmenter(shop: Workshop) -> Stage:
    from identiface_core.training.faces import segmenter_stage

    return segmenter_stage(shop.world(), shop.world("validation"))


def _reader(shop: Workshop) -> Stage:
    from identiface_core.training.reader import ReaderStage

    return ReaderStage(shop.world(), shop.world("validation"))


def _finder(shop: Workshop) -> Stage:
    from identiface_core.training.faces import finder_stage

    return finder_stage(shop.world(), shop.world("validation"))


def _critic(shop: Workshop) -> Stage:
    from identiface_core.matchers.network import FaceNet
    from identiface_core.training.critic import CriticStage
    from identiface_core.training.matchers import embed_views

    matcher = shop.network("matcher-a", "net", FaceNet).to(shop.device)
    people: list[Any] = []
    for split in ("train", "validation"):
        people += [*_encoded(shop, split), embed_views(matcher, shop.world(split), None)]
    return CriticStage(*people)


def _slopes(shop: Workshop) -> Stage:
    from identiface_core.diffusion.autoencoder import Autoencoder
    from identiface_core.matchers.latent import LatentCritic
    from identiface_core.matchers.network import FaceNet
    from identiface_core.training.latents import fingerprint, fingerprint_of
    from identiface_core.training.matchers import embed_views
    from identiface_core.training.slopes import LESSONS, SlopesStage, lessons, matcher_behind

    critic = shop.network("critic", "critic", LatentCritic).to(shop.device).eval()
    matcher = shop.network("matcher-a", "net", FaceNet).to(shop.device)
    autoencoder = shop.network("autoencoder", "autoencoder", Autoencoder).to(shop.device)
    teacher = matcher_behind(autoencoder, matcher)
    networks = {"critic": critic, "autoencoder": autoencoder, "matcher": matcher}
    prints = {name: fingerprint(network) for name, network in networks.items()}
    parts: list[Any] = []
    for split, count in LESSONS.items():
        latents, attributes = _encoded(shop, split)
        made = lessons(
            latents,
            embed_views(matcher, shop.world(split), None),
            lambda x: critic(x)[1],
            teacher,
            count,
            shop.folder / "lessons" / f"{split}.safetensors",
            made_of={**prints, "world": fingerprint_of(shop.world(split))},
            progress=lambda done, total: shop.say(f"lessons: {done} of {total}"),
        )
        parts += [made, attributes]
    return SlopesStage(critic, *parts)


def _base(shop: Workshop) -> Stage:
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.training.generator import BaseStage

    words = shop.network("text", "text", TextEncoder).to(shop.device)
    (seen, attributes), (unseen, unseen_attributes) = _encoded(shop, "train"), _encoded(shop, "validation")
    return BaseStage(seen, attributes, words, unseen=unseen, unseen_attributes=unseen_attributes)


def _generator(shop: Workshop) -> Stage:
    from identiface_core.diffusion.transformer import make_transformer

    base = None
    if (shop.run("base") / CHECKPOINT).exists():
        base = make_transformer()
        load_trained(nn.ModuleDict({"transformer": base}), shop.run("base"))
    return generator_stage(shop, base)


def generator_stage(
    shop: Workshop,
    base: PixArtTransformer2DModel | None,
    *,
    identity: str = "latent",
    ramp: int = 500,
    said: bool = True,
    fused: bool = True,
    steps: int = 16000,
) -> GeneratorStage:
    """The stage of transformer and control branch, on all that the earlier stages made; see `GeneratorStage`.

    identity: form of the identity loss, see `identity.identity_term`; ramp: steps until it has its full weight. said: with
    the words' loss.
    """
    from identiface_core.diffusion.autoencoder import Autoencoder
    from identiface_core.evidence.encoder import EvidenceEncoder
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.matchers.latent import LatentCritic
    from identiface_core.matchers.network import FaceNet
    from identiface_core.training.evidence import kept_estimates, overconfidence
    from identiface_core.training.generator import GeneratorStage
    from identiface_core.training.identity import WordsTerm, identity_term
    from identiface_core.training.matchers import embed_views

    words = shop.network("text", "text", TextEncoder).to(shop.device)
    (seen, attributes), (unseen, unseen_attributes) = _encoded(shop, "train"), _encoded(shop, "validation")
    encoder = shop.network("evidence", "encoder", EvidenceEncoder).to(shop.device)
    matcher = shop.network("matcher-a", "net", FaceNet).to(shop.device)
    critic = shop.network("critic", "critic", LatentCritic).to(shop.device)
    asked, faces = {}, {}
    for split in ("train", "validation"):
        world = shop.world(split)
        kept = shop.folder / "latents" / f"asked-{split}.safetensors"
        asked[split] = kept_estimates(encoder, world, words, kept)
        faces[split] = embed_views(matcher, world, None)
    autoencoder = shop.network("autoencoder", "autoencoder", Autoencoder).to(shop.device)
    return GeneratorStage(
        seen,
        attributes,
        words,
        base,
        unseen=unseen,
        unseen_attributes=unseen_attributes,
        estimates=asked["train"],
        unseen_estimates=asked["validation"],
        estimate_noise=overconfidence(
            asked["train"], faces["train"], asked["validation"], faces["validation"]
        ),
        identity=identity_term(
            identity, shop.world(), faces["train"], critic, autoencoder, matcher, ramp=ramp
        ),
        said=WordsTerm(critic, attributes) if said else None,
        fused=fused,
        steps=steps,
    )


def _encoded(shop: Workshop, split: str) -> tuple[Latents, Tensor]:
    """Latents and attribute values of a split's people."""
    import torch

    from identiface_core.diffusion.autoencoder import Autoencoder
    from identiface_core.training.latents import encode_world

    world = shop.world(split)
    autoencoder = shop.network("autoencoder", "autoencoder", Autoencoder).to(shop.device)
    latents = encode_world(world, autoencoder, shop.folder / "latents" / f"{split}.safetensors")
    return latents, torch.from_numpy(world.attributes[: len(latents)].astype("int64"))


def _ablation(name: str) -> Callable[[Workshop], Stage]:
    def build(shop: Workshop) -> Stage:
        from identiface_core.training.ablations import ablation_stage

        return ablation_stage(shop, name)

    return build


STAGES: dict[str, Callable[[Workshop], Stage]] = {
    "text": _text,
    "autoencoder": _autoencoder,
    "matcher-a": _matcher("a"),
    "matcher-b": _matcher("b"),
    "evidence": _evidence,
    "segmenter": _segmenter,
    "finder": _finder,
    "reader": _reader,
    "critic": _critic,
    "base": _base,
    "generator": _generator,
    "slopes": _slopes,
}
"""How each stage is set up, in an order in which all of them can run."""

ABLATIONS: dict[str, Callable[[Workshop], Stage]] = {f"{PREFIX}{name}": _ablation(name) for name in VARIANTS}
"""Trainings for comparison only, see `training.ablations`; not part of "all"."""

EXPORTS: dict[str, tuple[str, str]] = {
    "text encoder": ("text", "text"),
    "autoencoder": ("autoencoder", "autoencoder"),
    "matcher A": ("matcher-a", "net"),
    "matcher B": ("matcher-b", "net"),
    "evidence encoder": ("evidence", "encoder"),
    "segmenter": ("segmenter", "segmenter"),
    "finder": ("finder", "finder"),
    "reader": ("reader", "reader"),
    "critic": ("slopes", "critic"),
    "control": ("generator", "control"),
}
"""Role of a shipped file (`embedded.FILES`) -> stage and key of the network in that stage's `modules`."""


def train_embedded(
    stage: str,
    folder: Path,
    minutes: float | None = None,
    device: str = "cpu",
    people: int = PEOPLE,
    say: Say | None = None,
) -> None:
    """Run one stage ("world", a key of `STAGES`, "calibration", "export", "finish") or "all", going on with what is
    there.

    minutes: end each trained stage after so many minutes of its whole run. Raises `InputError` for an unknown
    stage, `WeightsError` when an earlier stage is missing.
    """
    known = ("world", *STAGES, "calibration", "export", "finish")
    if stage not in (*known, *ABLATIONS, "all"):
        raise InputError(
            f"there is no stage '{stage}': choose one of {', '.join((*known, *ABLATIONS))}, or all"
        )
    shop = Workshop(folder, device, people) if say is None else Workshop(folder, device, people, say)
    for name in known if stage == "all" else (stage,):
        if name == "world":
            shop.draw()
        elif name == "calibration":
            calibrate(shop)
        elif name == "export":
            export(folder)
        elif name == "finish":
            from identiface_core.training.gallery import finish

            finish(shop)
        else:
            _train(shop, name, minutes)


def _train(shop: Workshop, name: str, minutes: float | None) -> Outcome:
    stage = {**STAGES, **ABLATIONS}[name](shop)

    def progress(step: int, done: float, values: dict[str, float]) -> None:
        shop.say(f"{name} {done:4.0%} step {step}: " + "  ".join(f"{k} {v:.4g}" for k, v in values.items()))

    outcome = run_stage(stage, shop.run(name), device=shop.device, minutes=minutes, progress=progress)
    write_networks(stage.modules, shop.run(name), outcome)
    return outcome


def write_networks(modules: nn.ModuleDict, run: Path, outcome: Outcome) -> None:
    """Store every network of a stage that has a `kind` beside its checkpoint: `<key>.safetensors` in full
    precision for the stages that build on it, `half/<key>.safetensors` as it ships; the transformer as a
    diffusers folder."""
    extra = {"step": outcome.step, "minutes": round(outcome.minutes, 2), "validation": outcome.validation}
    from identiface_core.diffusion.transformer import save_transformer

    for key, module in modules.items():
        if hasattr(module, "kind"):
            save_module(run / f"{key}.safetensors", module, half=False, extra=extra)
            save_module(run / "half" / f"{key}.safetensors", module, half=True, extra=extra)
        elif hasattr(module, "save_pretrained"):
            save_transformer(module, run / "half" / key)


def calibrate(shop: Workshop, generated: dict[str, Tensor] | None = None) -> None:
    """Fit and store the calibrations from people of the calibration world; `generated` adds impostor scores
    by name.
    """
    from identiface_core.evidence.encoder import EvidenceEncoder
    from identiface_core.evidence.words import TextEncoder
    from identiface_core.matchers.calibration import save_calibrations
    from identiface_core.matchers.network import FaceNet
    from identiface_core.training.calibration import fit_calibrations

    tables = fit_calibrations(
        shop.world("calibration"),
        shop.network("matcher-a", "net", FaceNet),
        shop.network("matcher-b", "net", FaceNet),
        shop.network("evidence", "encoder", EvidenceEncoder),
        shop.network("text", "text", TextEncoder),
        generated,
    )
    save_calibrations(shop.folder / CALIBRATIONS, tables)
    shop.say(f"calibrations: {', '.join(tables)}")


def export(folder: Path, into: Path = FOLDER) -> dict[str, str]:
    """Copy what is trained, as float16, into `into` (default: the package's `embedded` folder); returns
    sha256 by file.

    Stages that have not been run are left out: what is shipped for them stays as it is. Pins all files in
    `hashes.json`.
    """
    for role, (stage, key) in EXPORTS.items():
        path = folder / "runs" / stage / "half" / f"{key}.safetensors"
        if path.exists():
            write_atomic(into / FILES[role], path.read_bytes())
    for path in sorted((folder / "runs" / "generator" / "half" / TRANSFORMER).glob("*.*")):
        write_atomic(into / TRANSFORMER / path.name, path.read_bytes())
    for name in (CALIBRATIONS, GALLERY):
        if (folder / name).exists():
            write_atomic(into / name, (folder / name).read_bytes())
    return write_hashes(into)
