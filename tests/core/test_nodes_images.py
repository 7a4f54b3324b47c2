"""Pictures on their way from the host's sockets into the core."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from identiface_core.errors import InputError

PATH = Path(__file__).resolve().parents[2] / "nodes" / "images.py"


@pytest.fixture(scope="module")
def images() -> Any:
    spec = importlib.util.spec_from_file_location("images", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_channels_become_three(images: Any) -> None:
    grey = torch.rand(2, 5, 7, 1)
    assert torch.equal(images.to_core(grey), grey.movedim(-1, 1).expand(2, 3, 5, 7))
    clear = torch.cat([torch.zeros(1, 5, 7, 3), torch.full((1, 5, 7, 1), 0.25)], -1)
    assert torch.equal(images.to_core(clear), torch.full((1, 3, 5, 7), 0.75))
    colours = torch.rand(1, 5, 7, 3).half()
    assert torch.equal(images.to_core(colours), colours.float().movedim(-1, 1))


@pytest.mark.parametrize("shape", [(0, 5, 7, 3), (1, 0, 7, 3), (1, 5, 7, 2), (5, 7, 3)])
def test_what_is_no_picture_is_refused(images: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"this is \("):
        images.to_core(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(images: Any, value: float) -> None:
    pictures = torch.rand(2, 5, 7, 3)
    pictures[1, 2, 3, 0] = value
    with pytest.raises(InputError, match="picture 1 has values that are not finite"):
        images.to_core(pictures)
