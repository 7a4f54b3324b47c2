"""The methods that are compared, each as a guide towards a person's estimate, with the options that the library ships."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from identiface_core.diffusion.guidance import denoised, freedom, full, latent, mpgd, search
from identiface_core.diffusion.guidance.base import Guide, Options
from identiface_core.diffusion.guidance.eyes import DecodedEye, LatentEye
from identiface_core.diffusion.guidance.targets import Towards
from identiface_core.diffusion.guidance.travel import TravelGuide
from identiface_core.errors import InputError

if TYPE_CHECKING:
    from identiface_core.embedded import EmbeddedModel

UNGUIDED, DEFAULT, FULL = "unguided", "default", "full"
ESTIMATE = "estimate:"
"""Before a method's name: the generator reads the estimate as a condition too, as a case lets it."""


@dataclass(frozen=True)
class Method:
    """One way of guiding. make: model, target vector (D,) and options -> guide, or None for no guidance."""

    name: str
    options: Options
    make: Callable[[EmbeddedModel, Tensor, Options], Guide | None]
    label: str
    estimate: bool = False
    """Whether the generator reads the estimate beside it."""
    share: float = 1.0
    """Share of the people that it is tried on: a slow method on fewer."""

    def guide(self, model: EmbeddedModel, target: Tensor) -> Guide | None:
        """The guide towards an embedding of matcher A."""
        return self.make(model, target, self.options)

    def over(self, steps: int) -> Method:
        """The same for another number of steps, see `Options.over`."""
        return replace(self, options=self.options.over(steps))

    def at(self, **changes: float | int | str | bool) -> Method:
        """The same with other options."""
        return replace(self, options=replace(self.options, **changes))  # type: ignore[arg-type]


def eye_a(model: EmbeddedModel) -> DecodedEye:
    """The autoencoder's decoder, then matcher A."""
    return DecodedEye(model.generator.autoencoder.decode, model.matcher_a.embed, model.reader.logits)


def eye_latent(model: EmbeddedModel) -> LatentEye:
    """The network that reads latents; InputError where the model has none."""
    if model.critic is None:
        raise InputError("guidance: this model has no network that reads its latents: choose another method")
    return LatentEye(model.critic)


def _unguided(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return None


def _noise(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return TravelGuide(eye_latent(model), Towards(target), options)


def _default(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    eye = eye_latent(model)
    return latent.latent_guide(eye.critic, Towards(target), options)


def _plain(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return Guide(eye_latent(model), Towards(target), options)


def _decoded(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return denoised.denoised_guide(eye_a(model), Towards(target), options)


def _full(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return full.FullGuide(eye_a(model), Towards(target), options)


def _full_travel(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return freedom.FreedomGuide(eye_a(model), Towards(target), options)


def _freedom(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return freedom.freedom_guide(eye_a(model), Towards(target), options)


def _mpgd(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return mpgd.mpgd_guide(eye_a(model), Towards(target), options)


def _mpgd_projected(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    autoencoder = model.generator.autoencoder

    def project(latents: Tensor) -> Tensor:
        return autoencoder.encode(autoencoder.decode(latents))

    return mpgd.mpgd_guide(eye_a(model), Towards(target), options, project=project)


def _search(model: EmbeddedModel, target: Tensor, options: Options) -> Guide | None:
    return search.search_guide(eye_a(model), Towards(target), options)


NONE = Options(scale=0)
NOWHERE = Options(start=0.0, end=0.0)
"""A window without a step."""
STOP = 0.7
STOPPED = replace(latent.OPTIONS, stop_at=STOP)
THROUGH = Options(scale=0.04, end=0.9)
PLAIN = Options(scale=0.1, every_n=4, schedule="sigma")
_ALL = (
    Method(UNGUIDED, NONE, _unguided, "no guidance, dpmpp_2m"),
    Method("unguided_noise", NOWHERE, _noise, "no guidance, but the default's steps with fresh noise"),
    Method(
        DEFAULT,
        latent.OPTIONS,
        _default,
        "a matcher that reads latents, steps with fresh noise (`latent.py`)",
    ),
    Method("default_stop", STOPPED, _default, f"the default with stop_at {STOP}: A is to end there"),
    Method(
        "latent_2m",
        PLAIN,
        _plain,
        "the same matcher under dpmpp_2m, as a stock sampler without noise takes it",
    ),
    Method(
        "decoded", denoised.OPTIONS, _decoded, "decoder and matcher A, steps with fresh noise (`denoised.py`)"
    ),
    Method(
        FULL, full.OPTIONS, _full, "ID3: decoder and matcher A, through the denoiser, dpmpp_2m (`full.py`)"
    ),
    Method(
        "full_travel",
        THROUGH,
        _full_travel,
        "the same gradient, with the default's steps with fresh noise; not ID3's sampler",
    ),
    Method("freedom", freedom.OPTIONS, _freedom, "FreeDoM, with time travel (`freedom.py`)"),
    Method("mpgd", mpgd.OPTIONS, _mpgd, "MPGD (`mpgd.py`)"),
    Method("mpgd_projected", mpgd.OPTIONS, _mpgd_projected, "MPGD, projected by the autoencoder"),
    Method(
        "search",
        search.OPTIONS,
        _search,
        "no gradients: 8 pairs of candidates a look (`search.py`)",
        share=0.2,
    ),
    Method(ESTIMATE + UNGUIDED, NONE, _unguided, "no guidance, dpmpp_2m", estimate=True),
    Method(ESTIMATE + DEFAULT, latent.OPTIONS, _default, "a matcher that reads latents", estimate=True),
)
METHODS: dict[str, Method] = {method.name: method for method in _ALL}
"""By name, in the order of reports."""


def base_of(name: str) -> str:
    """The method without guidance that another is compared with."""
    return ESTIMATE + UNGUIDED if name.startswith(ESTIMATE) else UNGUIDED
