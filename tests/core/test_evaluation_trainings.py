"""Trainings for comparison are found, drawn with in a world of their own, and asked the same as the shipped model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from identiface_core.diffusion.autoencoder import Autoencoder
from identiface_core.diffusion.control import ControlBranch
from identiface_core.diffusion.generator import FaceGenerator
from identiface_core.diffusion.transformer import make_transformer
from identiface_core.errors import InputError
from identiface_core.evaluation.studio import World
from identiface_core.evaluation.suite import Search, WordsPiece, _jobs, plan_of
from identiface_core.evaluation.trainings import PROBES, SYSTEMS, trainings_in, world_of
from identiface_core.training.embedded import ABLATIONS, write_networks
from identiface_core.training.loop import Outcome
from tests.core.case_fakes import fake_gallery


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings "fused" and "summed", as their stages leave them, of tiny networks."""
    path = tmp_path_factory.mktemp("trained")
    for name in ("fused", "summed"):
        base = make_transformer(num_layers=2)
        control = ControlBranch.copy_of(base, copies=1, fused=name == "fused")
        modules = nn.ModuleDict({"transformer": base, "control": control})
        write_networks(modules, path / "runs" / f"ablation-{name}", Outcome(1, 0.0, {}))
    return path


def test_finished_trainings_are_found_in_order_by_their_weights(folder: Path) -> None:
    found = trainings_in(folder)
    assert [one.name for one in found] == ["fused", "summed"]
    assert len({one.digest for one in found}) == 2 and found[0].key == f"fused@{found[0].digest}"
    assert all(f"ablation-{one.name}" in ABLATIONS for one in found)


def test_a_folder_without_the_reference_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--stage ablation-fused --folder"):
        trainings_in(tmp_path)


@dataclass(frozen=True)
class Model:
    """As much of the embedded model as is looked at here."""

    generator: FaceGenerator
    matcher_a: str = "matcher A"


def test_each_draws_in_a_world_of_its_own(folder: Path) -> None:
    base = make_transformer(num_layers=2)
    autoencoder = Autoencoder(widths=(8, 16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1, 1))
    shipped = FaceGenerator(base, ControlBranch.copy_of(base, copies=1), autoencoder, nn.Identity())  # type: ignore[arg-type]
    world = World(Model(shipped), fake_gallery(12))  # type: ignore[arg-type]
    fused, summed = (world_of(one, world) for one in trainings_in(folder))
    drawing, adding = fused.model.generator, summed.model.generator
    assert drawing.control.config["fused"] and not adding.control.config["fused"]
    assert adding.autoencoder is autoencoder and summed.model.matcher_a == world.model.matcher_a
    assert world.model.generator is shipped
    sketch, lq = torch.randn(2, 1, 4, 16, 16)
    assert torch.equal(adding.control_of(sketch, lq).latent, sketch + lq)
    assert not torch.equal(drawing.control_of(sketch, lq).latent, sketch + lq)


def test_a_plan_asks_every_training_the_same(folder: Path) -> None:
    plan = plan_of(levels=["middle"], probes=3, trainings=folder)
    jobs = [job for job in _jobs(plan) if job.training]
    keys = [one.key for one in plan.trainings]
    searches = [job for job in jobs if isinstance(job, Search)]
    assert [job.training for job in searches] == [key for key in keys for _ in range(3)]
    assert {job.systems for job in searches} == {SYSTEMS} and {job.level for job in searches} == {"middle"}
    words = [job for job in jobs if isinstance(job, WordsPiece)]
    assert {job.training for job in words} == set(keys)
    assert sum(job.redrawn for job in words if job.training == keys[0]) == 3
    assert PROBES <= 200 and not plan_of().trainings
