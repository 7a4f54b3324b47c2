"""Every matcher and evidence stage trains a few steps on a small made-up world, and the same steps again
after a stop.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from identiface_core.embedded import FILES
from identiface_core.errors import InputError, WeightsError
from identiface_core.evidence.encoder import EvidenceEncoder
from identiface_core.evidence.lexicon import ATTRIBUTES
from identiface_core.evidence.words import TextEncoder
from identiface_core.matchers.network import FaceNet
from identiface_core.training import augment
from identiface_core.training.calibration import CLUE_SETS, fit_calibrations
from identiface_core.training.data import WorldInfo
from identiface_core.training.embedded import export, train_embedded, write_networks
from identiface_core.training.evidence import (
    LQ_SHARES,
    EvidenceStage,
    augment_sketch,
    kept_estimates,
    overconfidence,
    simulate_lq,
)
from identiface_core.training.loop import Outcome, run_stage
from identiface_core.training.matchers import MatcherStage, PeopleBank, embed_views
from identiface_core.weights.files import load_module, read_header, sha256_of

PEOPLE = 12


@pytest.fixture(scope="module")
def world() -> Any:
    """People who are coloured noise: enough to run every line of a stage."""
    draw = np.random.default_rng(0)
    info = WorldInfo("validation", PEOPLE, views=2, sketches=1)
    arrays: dict[str, Any] = {}
    for name, (shape, kind) in info.arrays().items():
        arrays[name] = (
            draw.integers(0, 255, shape).astype(kind) if kind == "uint8" else draw.random(shape).astype(kind)
        )
    arrays["attributes"][:] = [[draw.integers(len(a.values)) for a in ATTRIBUTES] for _ in range(PEOPLE)]
    for name in ("view_points", "canonical_points"):
        arrays[name][:] = [[49, 61], [79, 61], [64, 76], [54, 90], [74, 90]]
    return SimpleNamespace(
        info=info, people=PEOPLE, people_total=PEOPLE, refresh=lambda: PEOPLE, folder=Path(), **arrays
    )


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TextEncoder(vocabulary=["a", "man", "woman", "nose", "."], depth=1).eval()


@pytest.fixture(scope="module")
def matcher() -> FaceNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FaceNet(dimension=16, widths=(4, 8, 8, 8), blocks=(1, 1, 1, 1)).eval()


@pytest.mark.parametrize("which", ["a", "b"])
def test_matcher_stage_trains_and_resumes(world: Any, which: str, tmp_path: Path) -> None:
    def stage() -> MatcherStage:
        one = MatcherStage(world, which, world, world, steps=2)
        one.batch, one.group = 4, 2
        return one

    whole, stopped = stage(), stage()
    outcome = run_stage(whole, tmp_path / "whole", log_every=1)
    assert {"rank1", "rank10", "rank1_alike"} <= set(outcome.validation)
    stopped.validate_every, validate = 1, stopped.validate

    def killed() -> dict[str, float]:
        raise KeyboardInterrupt

    stopped.validate = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run_stage(stopped, tmp_path / "parts", log_every=1, checkpoint_every_s=0)
    stopped.validate = validate  # type: ignore[method-assign]
    resumed = stage()
    run_stage(resumed, tmp_path / "parts", log_every=1)
    for key, value in whole.modules.state_dict().items():
        assert torch.equal(value, resumed.modules.state_dict()[key]), key


def test_evidence_stage_trains(
    world: Any, matcher: FaceNet, text_encoder: TextEncoder, tmp_path: Path
) -> None:
    stage = EvidenceStage(world, matcher, text_encoder, world, steps=2)
    stage.batch = 8
    before = {k: v.clone() for k, v in stage.modules.state_dict().items()}
    outcome = run_stage(stage, tmp_path, log_every=1)
    assert {"lq+sketch+words/rank1", "words/rank10"} <= set(outcome.validation)
    frozen = [
        k
        for k, v in stage.modules.state_dict().items()
        if v.is_floating_point() and torch.equal(v, before[k])
    ]
    assert not frozen, "every part of the encoder is trained"


def test_estimates_of_every_set_of_evidence(
    world: Any, matcher: FaceNet, text_encoder: TextEncoder, tmp_path: Path
) -> None:
    encoder = EvidenceEncoder(
        dimension=16, sketch_widths=(4, 8, 8), lq_widths=(4, 8, 8), trunk=12, words=16
    ).eval()
    found = kept_estimates(encoder, world, text_encoder, tmp_path / "asked.safetensors")
    assert found.shape == (PEOPLE, 7, 2, 16)
    torch.testing.assert_close(found.float().norm(dim=-1), torch.ones(PEOPLE, 7, 2), atol=2e-3, rtol=0)
    assert (found[:, 0] != found[:, 1]).any() and (found[:, :, 0] != found[:, :, 1]).any()
    assert torch.equal(kept_estimates(encoder, world, text_encoder, tmp_path / "asked.safetensors"), found)


def test_people_are_remembered_half_way() -> None:
    bank = PeopleBank(3, 2)
    bank.remember(torch.tensor([1]), torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(bank.vectors, torch.tensor([[0.0, 0], [1, 0], [0, 0]]))
    bank.remember(torch.tensor([1]), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(bank.vectors[1], torch.tensor([0.5, 0.5]).sqrt())


def test_evidence_target_leaves_out_the_view_of_the_clue(
    world: Any, matcher: FaceNet, text_encoder: TextEncoder
) -> None:
    """With the seen view's template replaced by nonsense the loss of a step does not change."""
    stage = EvidenceStage(world, matcher, text_encoder, steps=2)
    stage.batch = 8
    stage.modules.eval()
    people, view, _ = stage._draw(torch.Generator().manual_seed(3))
    base = stage.loss(0, torch.Generator().manual_seed(3))["mates"]
    stage._templates[people, view] = 100.0
    assert torch.equal(stage.loss(0, torch.Generator().manual_seed(3))["mates"], base)


def test_calibrations_of_every_kind_are_fitted(
    world: Any, matcher: FaceNet, text_encoder: TextEncoder
) -> None:
    encoder = EvidenceEncoder(
        dimension=16, sketch_widths=(4, 8, 8), lq_widths=(4, 8, 8), trunk=12, words=16
    ).eval()
    tables = fit_calibrations(world, matcher, matcher, encoder, text_encoder, {"generated": torch.rand(200)})
    wanted = {
        "portrait",
        "portrait-b",
        "evidence",
        "generated",
        *("evidence/" + "+".join(k) for k in CLUE_SETS),
    }
    assert set(tables) == wanted
    assert tables["evidence"].impostors == len(CLUE_SETS) * PEOPLE * (PEOPLE - 1)


def test_embedding_a_view_is_repeatable(world: Any, matcher: FaceNet) -> None:
    assert torch.equal(embed_views(matcher, world, 0), embed_views(matcher, world, 0))
    assert not torch.equal(embed_views(matcher, world, 0), embed_views(matcher, world, 1))


def test_augmentation_keeps_shape_and_range_and_obeys_its_generator() -> None:
    def g() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    x, points = torch.rand(20, 3, 64, 64, generator=g()), 40 + 40 * torch.rand(20, 5, 2, generator=g())
    changes = {
        "colour": lambda: augment.colour(x, g()),
        "hue": lambda: augment.hue(x, g()),
        "blur": lambda: augment.blur(x, g()),
        "coarse": lambda: augment.coarse(x, g()),
        "noise": lambda: augment.noise(x, g()),
        "erase": lambda: augment.erase(x, g()),
        "compress": lambda: augment.compress(x, g()),
        "bend": lambda: augment.bend(x, g()),
        "sketch": lambda: augment_sketch(x[:, :1], g()),
        "lq": lambda: simulate_lq(x, points, g()),
    }
    for name, change in changes.items():
        out = change()
        assert torch.equal(out, change()), name
        assert 0 <= float(out.min()) <= float(out.max()) <= 1, name
        assert out.shape[0] == 20, name
    assert simulate_lq(x, points, g()).shape == (20, 3, 32, 32)
    assert sum(share for _, share in LQ_SHARES) == pytest.approx(1.0)


def test_alignment_without_error_puts_the_points_where_they_belong() -> None:
    from identiface_core.faces.alignment import apply_matrix, canonical_points

    points = canonical_points(128)[None] * 0.8 + torch.tensor([5.0, 9.0])
    exact = {"aligned": 1.0, "landmark": 0.0, "shift": 0.0, "rotate": 0.0, "scale": 0.0}
    matrix = augment.alignment_jitter(points, 64, torch.Generator().manual_seed(0), **exact)
    # The map takes 64 px pictures, in which the points lie at half their place.
    torch.testing.assert_close(
        apply_matrix(matrix, points / 2), canonical_points(64)[None], atol=1e-3, rtol=0
    )


def test_compression_of_a_flat_picture_changes_nothing_much() -> None:
    flat = torch.full((2, 3, 16, 16), 0.5)
    assert float((augment.compress(flat, torch.Generator().manual_seed(0)) - flat).abs().max()) < 0.02


def test_finished_networks_are_exported_as_they_ship(tmp_path: Path, matcher: FaceNet) -> None:
    run, into = tmp_path / "work" / "runs" / "matcher-a", tmp_path / "shipped"
    write_networks(torch.nn.ModuleDict({"net": matcher}), run, Outcome(7, 0.5, {"rank1": 0.9}))
    assert read_header(run / "net.safetensors").extra["step"] == 7
    into.mkdir()
    hashes = export(tmp_path / "work", into)
    shipped = into / FILES["matcher A"]
    assert hashes[shipped.name] == sha256_of(shipped)
    again = load_module(shipped, FaceNet)
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert float((again(x) * matcher(x)).sum(1).min().detach()) > 0.999


def test_unknown_and_untimely_stages_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose one of world, text"):
        train_embedded("portraits", tmp_path)
    with pytest.raises(WeightsError, match="--stage matcher-a"):
        train_embedded("evidence", tmp_path)
    with pytest.raises(InputError, match="draw one first"):
        train_embedded("matcher-a", tmp_path)


def test_estimates_of_people_trained_on_are_made_as_poor_as_those_of_others() -> None:
    g = torch.Generator().manual_seed(0)

    def people(count: int, error: float) -> tuple[torch.Tensor, torch.Tensor]:
        faces = torch.nn.functional.normalize(torch.randn(count, 128, generator=g), dim=-1)
        stray = torch.nn.functional.normalize(torch.randn(count, 7, 2, 128, generator=g), dim=-1)
        return torch.nn.functional.normalize(faces[:, None, None] + error * stray, dim=-1), faces

    (seen, seen_faces), (unseen, unseen_faces) = people(400, 0.4), people(400, 1.0)
    noise = overconfidence(seen, seen_faces, unseen, unseen_faces)
    assert noise.shape == (7,)
    stray = torch.nn.functional.normalize(torch.randn(seen.shape, generator=g), dim=-1)
    softened = torch.nn.functional.normalize(seen + noise[:, None, None] * stray, dim=-1)
    near, far = (
        (a * b[:, None, None]).sum(-1).mean() for a, b in ((softened, seen_faces), (unseen, unseen_faces))
    )
    assert abs(float(near - far)) < 0.02
    assert (overconfidence(unseen, unseen_faces, seen, seen_faces) == 0).all()
