"""The benchmark of guidance: what it counts, what it compares, what it writes, and whom it asks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from identiface_core.cli import bench as cli
from identiface_core.cli import main
from identiface_core.diffusion.guidance.latent import OPTIONS
from identiface_core.embedded import EmbeddedModel, load_embedded
from identiface_core.errors import InputError
from identiface_core.evaluation.guidance.bench import REPORTED, SEEDS, Plan, _joined
from identiface_core.evaluation.guidance.cost import peak_bytes, ratio, seconds
from identiface_core.evaluation.guidance.methods import DEFAULT, ESTIMATE, FULL, METHODS, UNGUIDED, base_of
from identiface_core.evaluation.guidance.page import page
from identiface_core.evaluation.guidance.people import VALIDATION, people
from identiface_core.evaluation.guidance.quality import Face, Truths, correlation, draw, figures, look_at
from identiface_core.evaluation.guidance.shapes import SHAPES, Call, Shape, shape_cost
from identiface_core.evaluation.guidance.tune import candidates
from identiface_core.evaluation.probes import GALLERY_PEOPLE
from identiface_core.training.data import SPLITS


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    return load_embedded()


def test_the_default_raises_what_the_judge_says(model: EmbeddedModel) -> None:
    """Four people, matcher B, another picture of each; full guidance and the figures are the benchmark's."""
    asked = people(model, 0, 4)
    rise = []
    for person in asked:
        plain, guided = (
            look_at(model, person, METHODS[name], draw(model, person, METHODS[name], [person.number], 20))
            for name in (UNGUIDED, DEFAULT)
        )
        assert guided.target > plain.target + 0.05
        rise.append(guided.judge - plain.judge)
    assert sum(rise) / len(rise) > 0.05


def test_no_guide_and_scale_zero_are_one(model: EmbeddedModel) -> None:
    (person,) = people(model, 0, 1)
    plain, zero = (
        draw(model, person, one, [3, 4], 3) for one in (METHODS[UNGUIDED], METHODS[DEFAULT].at(scale=0.0))
    )
    assert torch.equal(plain.latents, zero.latents) and torch.equal(plain.images, zero.images)


@pytest.mark.parametrize("name", [DEFAULT, "decoded", FULL, "freedom", "mpgd", "mpgd_projected"])
def test_a_part_round_moves_nothing_outside_its_mask(model: EmbeddedModel, name: str) -> None:
    (person,) = people(model, 0, 1)
    known = model.generator.sample([""], person.evidence, [1], steps=1)
    mask = torch.zeros(1, 1, 128, 128)
    mask[..., 64:, :] = 1
    drawings = [
        model.generator.sample([""], person.evidence, [2], steps=2, known=known, mask=mask, guide=guide)
        for guide in (None, METHODS[name].guide(model, person.estimate))
    ]
    plain, guided = (one.latents for one in drawings)
    assert torch.equal(guided[:, :, :8], known.latents[:, :, :8])
    assert not torch.equal(guided[:, :, 8:], plain[:, :, 8:])


def test_scales_are_chosen_on_other_people() -> None:
    assert SPLITS["validation"] == VALIDATION != GALLERY_PEOPLE
    assert all(one.name.startswith(DEFAULT) for one in candidates(METHODS[DEFAULT]))
    assert len({json.dumps(vars(one.options)) for one in candidates(METHODS[DEFAULT])}) == 6


def test_peak_bytes_counts_what_lives_at_once() -> None:
    def one_after_the_other() -> None:
        for _ in range(5):
            torch.zeros(1000)

    def together() -> list[torch.Tensor]:
        return [torch.zeros(1000) for _ in range(5)]

    assert peak_bytes(together) == 20_000
    assert peak_bytes(one_after_the_other) <= 8_000
    net, x = nn.Sequential(*(nn.Linear(100, 100) for _ in range(8))), torch.randn(50, 100)
    with torch.no_grad():
        light = peak_bytes(lambda: net(x))
    assert peak_bytes(lambda: net(x.clone().requires_grad_())) > 3 * light, "what a gradient needs is kept"


def test_ratios_are_of_the_same_round() -> None:
    assert ratio([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == 2.0
    calls: list[str] = []
    found = seconds({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2)
    assert calls == ["a", "b"] * 3 and [len(found[name]) for name in "ab"] == [2, 2]


def face(person: int, method: str, judge: float) -> Face:
    g = torch.Generator().manual_seed(person)
    features = tuple((torch.randn(3, generator=g) + judge).tolist())
    return Face(person, method, 2 * judge, judge, judge, judge, features, features)


@pytest.fixture
def found() -> dict[str, dict[str, object]]:
    """Figures of a made-up run: the default gains 0.2 with everybody, full 0.25, the rest nothing."""
    gains = {DEFAULT: 0.2, FULL: 0.25}
    methods = list(METHODS.values())
    faces = {m.name: [face(k, m.name, 0.1 * k + gains.get(m.name, 0.0)) for k in range(4)] for m in methods}
    truths = Truths(torch.randn(4, 3), torch.randn(4, 3))
    costs = {
        m.name: {"seconds": 1.0, "wall_ratio": 2.0 if m.name == FULL else 1.2, "memory_ratio": 1.1}
        for m in methods
    }
    made = _joined(methods, figures(faces, truths), costs)
    made[UNGUIDED]["about"] = {"people": 4, "steps": 20, "threads": 1}
    made["pixart-xl/default"] = {
        "label": "PixArt", "steps": 4, "wall_ratio": 1.04, "memory_ratio": 1.2, "seconds_unguided": 1.9, "device": "cpu",
        "threads": 2, "rounds": 3,
    }  # fmt: skip
    made["pixart-xl/full"] = {**made["pixart-xl/default"], "wall_ratio": 3.0}
    return made


def test_figures_compare_the_same_people(found: dict[str, dict[str, float]]) -> None:
    assert found[DEFAULT]["judge_gain"] == pytest.approx(0.2)
    assert found[DEFAULT]["judge_gain_share"] == pytest.approx(0.8)
    assert found[DEFAULT]["judge_rises"] == 1 and found["mpgd"]["judge_rises"] == 0
    assert found[FULL]["judge_gain_per_second"] == pytest.approx(0.25 / (1 / SEEDS))
    assert found[UNGUIDED]["fid_latent_ratio"] == 1 and found[DEFAULT]["fid_judge_ratio"] != 1
    assert set(found[DEFAULT]) <= set(REPORTED)
    assert base_of(ESTIMATE + DEFAULT) == ESTIMATE + UNGUIDED
    json.dumps(found)


def test_the_page_tells_what_was_kept_and_what_was_missed(found: dict[str, dict[str, object]]) -> None:
    text = page(found, SEEDS)
    assert "| at least 90 % of full's judge gain | 80 % | **no** |" in text
    assert "| wall time of the default at most 1.25 x unguided | 1.20 | yes |" in text
    assert "| pixart-xl/default: at most 1.10 x unguided | 1.040 | yes |" in text
    assert "| PixArt | `full` | 3.000 |" in text and "pixart-xl/full: at most" not in text
    assert "+0.200 ± 0.000" in text and "`estimate:default`" in text


def test_a_page_of_shapes_alone_is_one(found: dict[str, dict[str, object]]) -> None:
    text = page({name: row for name, row in found.items() if "/" in name}, SEEDS)
    assert text.startswith("# Guidance at the shapes") and "| PixArt | `full` | 3.000 | 3 |" in text


def test_slow_methods_are_held_against_the_same_people() -> None:
    """The default is asked about the first two of four, who gain less by full."""
    gains = {0: 0.1, 1: 0.2, 2: 0.5, 3: 0.9}
    faces = {
        UNGUIDED: [face(k, UNGUIDED, 0.0) for k in gains],
        FULL: [face(k, FULL, gains[k]) for k in gains],
    }
    faces[DEFAULT] = [face(k, DEFAULT, gains[k] / 2) for k in (0, 1)]
    row = figures(faces, Truths(torch.randn(4, 3), torch.randn(4, 3)))[DEFAULT]
    assert row["judge_gain_share"] == pytest.approx(0.5)
    rises = torch.tensor([0.1, 0.3, 0.2]), torch.tensor([0.2, 0.4, 0.3])
    assert correlation(*rises) == pytest.approx(1) and correlation(rises[0], torch.ones(3)) is None


def test_what_was_measured_before_can_be_kept(
    tmp_path: Path, found: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, page_file = tmp_path / "found.json", tmp_path / "page.md"
    kept.write_text(json.dumps(found))
    new = {"sd15/default": {**found["pixart-xl/default"], "label": "SD"}}
    monkeypatch.setattr(cli, "run", lambda plan, progress: new)
    assert (
        main(
            ["bench", "guidance", "--shapes", "sd15", "--json", str(kept), "--page", str(page_file), "--keep"]
        )
        == 0
    )
    assert json.loads(kept.read_text()) == {**found, **new}
    assert "| SD | `default` |" in page_file.read_text() and "| PixArt | `full` |" in page_file.read_text()
    assert main(["bench", "guidance", "--shapes", "sd15", "--keep"]) == 2


def test_costs_at_a_shape_are_ratios_to_no_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes back through the network holds more than what does not."""

    def make() -> tuple[torch.nn.Module, Call]:
        net = torch.nn.Conv2d(4, 4, 1)
        return net, lambda x, t, text: net(x)

    monkeypatch.setitem(SHAPES, "little", Shape("Little", make, 8, 3, cells=8))
    found = shape_cost("little", rounds=1)
    assert list(found) == ["default", "mpgd", "full", "freedom"]
    assert all(row["wall_ratio"] > 0 and row["memory_ratio"] > 1 for row in found.values())
    assert found["default"]["memory_ratio"] < found["full"]["memory_ratio"]
    assert found["full"]["judge_gain"] is None and found["full"]["label"] == "Little"


def test_the_page_is_that_of_the_figures() -> None:
    folder = Path(__file__).parents[2] / "docs" / "benchmarks"
    figures_of_the_run = json.loads((folder / "guidance.json").read_text(encoding="utf-8"))
    assert (folder / "guidance.md").read_text(encoding="utf-8") == page(figures_of_the_run, SEEDS)


def test_fewer_steps_have_as_many_looks() -> None:
    default = METHODS[DEFAULT]
    assert default.over(20) == default
    assert [default.over(steps).options.every_n for steps in (4, 10, 40)] == [1, 2, 8]
    assert OPTIONS.over(10) == replace(OPTIONS, every_n=2)


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, match in (
        ({"people": 1}, "from 2 to 500"),
        ({"steps": 0}, "from 1 to 200"),
        ({"processes": 0}, "from 1 to 64"),
        ({"shapes": ("flux",)}, "unknown shape 'flux'; known are: embedded, pixart-xl, sd15, sdxl"),
        ({"methods": ("magic",)}, "unknown method 'magic'"),
    ):
        with pytest.raises(InputError, match=match):
            Plan(**wrong)  # type: ignore[arg-type]
    assert main(["bench", "guidance", "--shapes", "flux"]) == 2
    assert "unknown shape 'flux'" in capsys.readouterr().err
