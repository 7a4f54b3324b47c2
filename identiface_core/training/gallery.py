"""What is made with the finished networks: the tables for generated queries, and the shipped gallery.

The gallery holds a thousand synthetic people, one picture each, enrolled like anybody's folder of pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from identiface_core.embedded import GALLERY, load_embedded
from identiface_core.evaluation.probes import GALLERY_PEOPLE, GALLERY_PICTURE, pictures
from identiface_core.evidence.values import Evidence
from identiface_core.faces.choice import portrait_of
from identiface_core.gallery import Gallery, enrol
from identiface_core.rounds.case_input import Settings
from identiface_core.rounds.consensus import consensus, fuse
from identiface_core.synthesis.phrases import describe
from identiface_core.synthesis.witness import LEVELS, low_quality
from identiface_core.weights.files import load_tensors, save_tensors

from .data import World, floats
from .matchers import embed_views

if TYPE_CHECKING:
    from collections.abc import Callable

    from identiface_core.embedded import EmbeddedModel

    from .embedded import Workshop

PEOPLE = 1000
PROBES = 300
"""People whose faces are generated for the tables."""


def finish(shop: Workshop) -> None:
    """Measure the tables for generated and fused queries, build the gallery, and ship both. Networks must be exported."""
    from .embedded import calibrate, export

    calibrate(shop)
    export(shop.folder)
    model = load_embedded()
    calibrate(shop, generated_impostors(model, shop.world("calibration")))
    gallery = build_gallery(model, shop.folder / "gallery-pictures.safetensors")
    gallery.save(shop.folder / GALLERY)
    export(shop.folder)
    shop.say(f"gallery of {len(gallery)} people")


@torch.no_grad()
def generated_impostors(model: EmbeddedModel, world: World) -> dict[str, Tensor]:
    """Cosines of strangers, by name of the table: "generated" for the consensus of faces generated from all evidence of a
    middle witness, "both" for its fusion with the evidence query. `world` must be people nothing was trained on.
    """
    count, level, settings = min(PROBES, world.people), LEVELS["middle"], Settings()
    made, fused = [], []
    for person in range(count):
        said = describe(
            world.attributes[person].tolist(), torch.Generator().manual_seed(person), level.omit, level.wrong
        ).description
        photo = floats(world.views[person, 1][None])
        evidence = Evidence(low_quality(photo)[0], floats(world.sketches[person, 0][None]), said)
        query = model.evidence_encoder.query(evidence, model.text_encoder)
        sample = model.generator.sample(
            [said.full_prompt()],
            evidence,
            list(range(settings.seeds)),
            steps=settings.steps,
            guidance_scale=settings.guidance(words=True, photo=True, part=False),
            estimate=query if settings.estimate else None,
        )
        made.append(consensus(model.matcher_a.embed(sample.images)))
        fused.append(fuse(query, made[-1], settings.evidence_weight))
    gallery = embed_views(model.matcher_a.net, world, 0)
    strangers = ~torch.eye(count, world.people, dtype=torch.bool)
    return {
        name: (torch.stack(rows) @ gallery.T)[strangers]
        for name, rows in (("generated", made), ("both", fused))
    }


def gallery_pictures(cache: Path, people: int = PEOPLE) -> Tensor:
    """(people, 3, 128, 128) uint8: the pictures, drawn once and kept in the file `cache`."""
    if cache.exists():
        tensors, _ = load_tensors(cache, "gallery-pictures")
        if len(tensors["pictures"]) == people:
            return tensors["pictures"]
    drawn = [
        (pictures(GALLERY_PEOPLE, first, min(100, people - first), GALLERY_PICTURE) * 255 + 0.5).to(
            torch.uint8
        )
        for first in range(0, people, 100)
    ]
    config: dict[str, Any] = {"people": people}
    save_tensors(cache, {"pictures": torch.cat(drawn)}, "gallery-pictures", config)
    return torch.cat(drawn)


def build_gallery(
    model: EmbeddedModel,
    cache: Path,
    on_progress: Callable[[int, int, str], None] | None = None,
    people: int = PEOPLE,
) -> Gallery:
    """Enrol the people of the shipped gallery with both matchers, through the finder, as a folder of pictures would be."""
    drawn = gallery_pictures(cache, people)
    names = [f"S{number + 1:04d}" for number in range(len(drawn))]

    def portraits() -> Iterator[tuple[str, Tensor]]:
        for name, picture in zip(names, drawn, strict=True):
            yield name, portrait_of(picture.float() / 255, model.finder, 0, name=name)

    matchers = (model.matcher_a, model.matcher_b)
    return enrol(
        portraits(), matchers, on_progress, origins=dict.fromkeys(names, "generated"), total=len(names)
    )
