"""The table of positions is the released model's, and the host's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from identiface_core.diffusion.positions import host_unit, position_table

REFERENCE = Path(__file__).parent / "data" / "reference"


def test_the_released_table() -> None:
    wanted = load_file(REFERENCE / "identiface-tiny-16x16.safetensors")["out.pos_embed"]
    torch.testing.assert_close(position_table(48, 8, 8, base=8, scale=2), wanted, atol=1e-6, rtol=0)


def test_columns_come_first_and_each_axis_has_its_own_unit() -> None:
    table = position_table(16, 2, 4, base=8, scale=1).reshape(2, 4, 16)
    assert torch.equal(table[0, :, 8:], table[0, :1, 8:].expand(4, -1)), "the second half tells rows only"
    assert torch.equal(table[:, 1, :8], table[:1, 1, :8].expand(2, -1)), "the first half tells columns only"
    assert table[0, 1, 0] == pytest.approx(float(torch.tensor(2.0).sin()), abs=1e-6)
    assert table[1, 0, 8] == pytest.approx(float(torch.tensor(4.0).sin()), abs=1e-6)


@pytest.mark.parametrize(
    ("cells", "unit"), [((64, 64), (32, 1)), ((128, 128), (64, 2)), ((96, 160), (64, 2)), ((32, 32), (0, 0))]
)
def test_the_host_derives_the_unit_from_the_size(cells: tuple[int, int], unit: tuple[int, int]) -> None:
    assert host_unit(*cells) == unit
