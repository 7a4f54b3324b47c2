"""Lines out of photos: the annotators that need no weights as they are, the others with random ones from our own files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from identiface_core.cli.released import KINDS, import_released
from identiface_core.errors import InputError, WeightsError
from identiface_core.evidence import extractors
from identiface_core.evidence.annotators import (
    ANNOTATORS,
    FOLDER,
    find_annotator,
    import_annotator,
    network_of,
)
from identiface_core.evidence.extractors import EXTRACTORS, extract_lines, lines_to_sketch
from identiface_core.evidence.values import Evidence
from identiface_core.synthesis.identity import canonical_nuisance, sample_identities
from identiface_core.synthesis.portrait import render
from identiface_core.weights.files import save_tensors

PACKAGE = extractors.PACKAGE


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A drawn face, (3, 96, 128): not square."""
    return render(sample_identities(1, 79), canonical_nuisance(1)).image[0, :, 16:112]


def network(name: str) -> Any:
    """The class that the package has for an annotator, with random weights from a fixed seed."""
    torch.manual_seed(0)
    made = {
        "hed": lambda: extractors._submodule("hed").ControlNetHED_Apache2(),
        "pidinet": lambda: extractors._submodule("pidi").pidinet(),
        "lineart": lambda: extractors._submodule("lineart").Generator(3, 1, 3),
    }
    return made[ANNOTATORS[name].network]()


# --- without weights


@pytest.mark.parametrize("how", ["canny", "lineart_standard"])
def test_lines_are_dark_on_paper_at_the_size_of_the_photo(photo: Tensor, how: str) -> None:
    lines = extract_lines(photo, how, resolution=256)
    assert lines.shape == (1, 96, 128) and lines.min() >= 0 and lines.max() <= 1
    assert lines.median() > 0.9, "paper"
    assert 0.005 < float((lines < 0.6).float().mean()) < 0.4, "lines"


@pytest.mark.parametrize("how", ["canny", "lineart_standard"])
def test_lines_lie_where_the_photo_has_them(how: str) -> None:
    """A dark bar on light: ink along it, none away from it."""
    photo = torch.full((1, 128, 192), 0.9)
    photo[:, :, 90:100] = 0.1
    ink = 1 - extract_lines(photo, how, resolution=256)[0]
    assert ink[:, 84:106].mean() > 20 * ink[:, :60].mean().clamp_min(1e-3)


def test_nothing_of_the_package_stays_behind(photo: Tensor) -> None:
    before = {name for name in sys.modules if name.startswith(PACKAGE)}
    extract_lines(photo, "canny", resolution=64)
    assert {name for name in sys.modules if name.startswith(PACKAGE)} == before


def test_an_absent_package_is_told_with_what_to_install(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = extractors.importlib.util.find_spec
    monkeypatch.setattr(
        extractors.importlib.util, "find_spec", lambda name: None if name == PACKAGE else found(name)
    )
    with pytest.raises(InputError, match="needs the package controlnet_aux.*pip install --no-deps"):
        extract_lines(photo, "canny")


def test_a_broken_import_is_told_and_cleaned_up(photo: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="cannot be imported here .*cv2"):
        extract_lines(photo, "canny")
    assert not any(name.startswith(PACKAGE) for name in sys.modules)


def test_a_torchvision_that_does_not_load_is_gone_round(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    assert extract_lines(photo, "canny", resolution=64).shape == (1, 96, 128)


def test_unknown_extractors_are_refused(photo: Tensor) -> None:
    with pytest.raises(InputError, match=r"one of canny, lineart_standard, hed, .*; this is 'anime'"):
        extract_lines(photo, "anime")


# --- with weights


@pytest.mark.parametrize("name", ["lineart", "lineart-coarse", "hed", "pidinet"])
def test_weights_go_from_the_original_to_lines(tmp_path: Path, photo: Tensor, name: str) -> None:
    """Original pickle, imported by the command line, found by content, filled in: the lines are the network's own."""
    net = network(name)
    prefix = "module." if name == "pidinet" else ""
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state} if prefix else state, tmp_path / "original.pth")
    out = tmp_path / FOLDER / "any name.safetensors"
    out.parent.mkdir()
    assert import_released(name, tmp_path / "original.pth", out=out) == 0
    lines = extract_lines(photo, name, folders=[tmp_path], resolution=64)
    assert lines.shape == (1, 96, 128) and lines.min() >= 0 and lines.max() <= 1

    grey = {"hed": "hed", "pidinet": "pidi"}.get(name, "lineart")
    module = extractors._submodule(grey)
    detector = {
        "hed": lambda: module.HEDdetector(net.eval()),
        "pidi": lambda: module.PidiNetDetector(net.eval()),
        "lineart": lambda: module.LineartDetector(net.eval(), net),
    }[grey]()
    pixels = (photo * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    white = detector(pixels, detect_resolution=64, image_resolution=64, output_type="np")
    wanted = 1 - torch.from_numpy(white[..., 0]).float() / 255
    assert abs(float(lines.mean() - wanted.mean())) < 0.02


def test_missing_weights_say_which_where_and_how(tmp_path: Path, photo: Tensor) -> None:
    with pytest.raises(WeightsError) as caught:
        extract_lines(photo, "hed", folders=[tmp_path])
    said = str(caught.value)
    assert "ControlNetHED.pth" in said and str(tmp_path / FOLDER) in said
    assert "`identiface weights get hed`" in said and "`identiface weights import hed " in said


def small(name: str) -> dict[str, Tensor]:
    """As much of a state as tells a network apart."""
    from identiface_core.evidence.annotators import _SIGNS

    return {key: torch.zeros(shape) for key, shape in _SIGNS[ANNOTATORS[name].network].items()}


def test_files_are_found_by_what_is_in_them(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in ("hed", "lineart"):
        torch.save(small(name), tmp_path / "f.pth")
        import_annotator(name, tmp_path / "f.pth", folder / f"not_{name}.safetensors")
    save_tensors(folder / "a.safetensors", {"x": torch.zeros(1)}, "gallery", {})
    (folder / "b.safetensors").write_bytes(b"nonsense")
    assert find_annotator("lineart", [tmp_path]).name == "not_lineart.safetensors"
    with pytest.raises(WeightsError, match="lineart-coarse"):
        find_annotator("lineart-coarse", [tmp_path])


def test_only_the_right_original_is_imported(tmp_path: Path) -> None:
    torch.save(small("hed"), tmp_path / "f.pth")
    with pytest.raises(WeightsError, match="'pidinet' is a file for pidinet .*; this is a file for hed"):
        import_annotator("pidinet", tmp_path / "f.pth", tmp_path / "out")
    torch.save({"a": torch.zeros(2)}, tmp_path / "f.pth")
    with pytest.raises(WeightsError, match="no annotator that is known"):
        import_annotator("hed", tmp_path / "f.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="--base and --heads are for identiface-official"):
        import_released("hed", tmp_path / "f.pth", out=tmp_path / "out", heads=3)


def test_a_converted_file_that_lacks_tensors_is_refused(tmp_path: Path, photo: Tensor) -> None:
    (tmp_path / FOLDER).mkdir()
    torch.save(small("lineart"), tmp_path / "f.pth")
    import_annotator("lineart", tmp_path / "f.pth", tmp_path / FOLDER / "f.safetensors")
    with pytest.raises(WeightsError, match="not those of 'lineart'.*Convert it again"):
        extract_lines(photo, "lineart", folders=[tmp_path], resolution=64)


def test_names_agree_everywhere() -> None:
    from identiface_core.catalogue.manifest import read_manifest

    annotators = {entry.name: entry.file for entry in read_manifest() if entry.role == "annotator"}
    assert annotators == {name: one.original for name, one in ANNOTATORS.items()}
    assert set(KINDS[1:]) == set(ANNOTATORS) < set(EXTRACTORS)
    assert network_of({}) is None


# --- as a sketch


def test_lines_become_a_sketch(photo: Tensor) -> None:
    lines = extract_lines(photo, "lineart_standard", resolution=256)
    sketch = lines_to_sketch(lines)
    assert Evidence(sketch=sketch).kinds == ("sketch",)
    assert sketch[:, :12].min() == 1, "paper above and below what is not square"
    assert 0.02 < float((1 - sketch).mean()) < 0.35
    faint = lines_to_sketch(1 - 0.1 * (1 - lines))
    assert faint.min() < 0.6, "faint lines are brought up"
    assert lines_to_sketch(torch.ones(1, 40, 60), 64).min() == 1, "blank paper stays blank"
