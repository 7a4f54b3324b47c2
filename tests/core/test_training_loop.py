from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from identiface_core.errors import IdentiFaceError, WeightsError
from identiface_core.training.loop import CHECKPOINT, Stage, bfloat16, load_trained, run_stage, step_generator


class Killed(Exception):
    pass


class Toy(Stage):
    name = "toy"
    steps = 30
    ema = 0.9
    warmup = 5
    validate_every = 10

    def __init__(self, kill_at: int | None = None, width: int = 8) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.modules = nn.ModuleDict(
                {
                    "net": nn.Sequential(
                        nn.Linear(4, width),
                        nn.BatchNorm1d(width),
                        nn.ReLU(),
                        nn.Dropout(0.3),
                        nn.Linear(width, 1),
                    )
                }
            )
        self.kill_at = kill_at

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == self.kill_at:
            raise Killed
        x = torch.randn(16, 4, generator=generator)
        return {"loss": ((self.modules["net"](x) - x.sum(1, keepdim=True)) ** 2).mean()}

    def validate(self) -> dict[str, float]:
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(9))
        return {"loss": float(((self.modules["net"](x) - x.sum(1, keepdim=True)) ** 2).mean().detach())}


def weights(stage: Stage) -> dict[str, Tensor]:
    return stage.modules.state_dict()


def test_killed_and_resumed_run_is_the_run(tmp_path: Path) -> None:
    whole = Toy()
    run_stage(whole, tmp_path / "whole", log_every=5)
    with pytest.raises(Killed):
        run_stage(Toy(kill_at=17), tmp_path / "parts", log_every=5, checkpoint_every_s=0)
    resumed = Toy()
    outcome = run_stage(resumed, tmp_path / "parts", log_every=5)
    assert outcome.step == 30
    for key, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[key]), key
    rows = list(csv.DictReader((tmp_path / "parts" / "loss.csv").open()))
    steps = [int(r["step"]) for r in rows if r["series"] == "train/loss"]
    assert steps == [5, 10, 15, 20, 25, 30]
    assert (tmp_path / "parts" / "loss.png").stat().st_size > 1000


def test_kill_before_the_checkpoint_repeats_the_lost_steps_only(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run_stage(Toy(kill_at=17), tmp_path, checkpoint_every_s=1e9)
    assert not (tmp_path / CHECKPOINT).exists()


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, again = Toy(), Toy(kill_at=30)
    run_stage(first, tmp_path)
    assert run_stage(again, tmp_path).step == 30
    assert all(torch.equal(v, weights(again)[k]) for k, v in weights(first).items())


def test_minutes_end_the_run_and_count_over_its_parts(tmp_path: Path) -> None:
    stage = Toy()
    stage.steps = 10**9
    outcome = run_stage(stage, tmp_path, minutes=0.01)
    assert 0 < outcome.step < 10**6
    assert outcome.minutes >= 0.01
    again = Toy()
    again.steps = 10**9
    assert run_stage(again, tmp_path, minutes=0.01).step == outcome.step


def test_training_learns_and_ships_the_average(tmp_path: Path) -> None:
    stage = Toy()
    before = stage.validate()["loss"]
    stage.steps, stage.validate_every = 200, 100
    stage.lr = 0.03
    outcome = run_stage(stage, tmp_path)
    assert outcome.validation["loss"] < 0.5 * before
    assert stage.validate()["loss"] == pytest.approx(outcome.validation["loss"])
    fresh = Toy()
    assert load_trained(fresh.modules, tmp_path) == 200
    assert all(torch.equal(v, weights(fresh)[k]) for k, v in weights(stage).items())


def test_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    run_stage(Toy(), tmp_path)
    with pytest.raises(WeightsError, match="another shape"):
        run_stage(Toy(width=9), tmp_path)
    other = Toy()
    other.name = "other"
    with pytest.raises(WeightsError, match=r"'toy'.*'other'"):
        run_stage(other, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"\x10\0\0\0\0\0\0\0{broken")
    with pytest.raises(WeightsError, match="remove it"):
        run_stage(Toy(), tmp_path)


def test_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    class Broken(Toy):
        def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
            return {"loss": super().loss(step, generator)["loss"] * float("nan")}

    with pytest.raises(IdentiFaceError, match="nan"):
        run_stage(Broken(), tmp_path, log_every=5)


def test_step_generator_depends_on_seed_and_step() -> None:
    draws = [
        torch.rand(3, generator=step_generator(s, i)).tolist() for s, i in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert draws[0] == draws[3]
    assert draws[0] != draws[1] != draws[2]


@pytest.mark.parametrize(
    ("known", "wanted"), [({"avx512_bf16": True}, True), ({"avx512_bf16": False}, False)]
)
def test_bfloat16_only_where_the_processor_has_it(monkeypatch, known, wanted):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    a = torch.randn(4, 4)
    with bfloat16(torch.device("cpu")):
        assert ((a @ a).dtype == torch.bfloat16) is wanted
    with bfloat16(torch.device("cpu"), enabled=False):
        assert (a @ a).dtype == torch.float32
