"""The released size on a CPU: as large on disk as the real thing, random inside. Run with `-m large`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from identiface_core.weights.foreign import in_memory
from identiface_core.weights.released import CONTROL, control_config, control_of, released_of
from identiface_core.weights.stream import save_stream
from tests.core import official

pytestmark = [pytest.mark.large, pytest.mark.timeout(4 * 3600)]

STEP = """
import sys, time
import torch
from tests.core.memory import grown, peak
from identiface_core.diffusion.control import Control, ControlBranch
from identiface_core.diffusion.transformer import forward_controlled
from identiface_core.weights.pixart import load_pixart
from identiface_core.weights.stream import load_stream

before = peak()
begun = time.process_time()
with torch.no_grad(), grown() as more:
    branch = load_stream(sys.argv[1], ControlBranch)
    base = load_pixart(sys.argv[2])
    loaded, took = more(), time.process_time() - begun
    sketch, lq, x = torch.randn(3, 1, 4, 32, 32, generator=torch.Generator().manual_seed(0)).half()
    arguments = x, torch.tensor([500.0]).half(), torch.randn(1, 40, 4096).half()
    added = {"resolution": torch.full((1, 2), 1024.0).half(), "aspect_ratio": torch.ones(1, 1).half()}
    begun = time.process_time()
    with_control = forward_controlled(base, *arguments, Control(branch, branch.freq_fusion(sketch, lq)), added=added)
    step = time.process_time() - begun
    assert with_control.shape == (1, 8, 32, 32) and with_control.isfinite().all()
    assert {p.dtype for p in (*base.parameters(), *branch.parameters())} == {torch.float16}
print(before, loaded, more(), peak(), took, step)
"""


def random_state(*roles: str) -> dict[str, Tensor]:
    """The released tensors of some roles, float16: slices of one block of noise, which is quick to make."""
    noise = torch.randn(9 << 20, generator=torch.Generator().manual_seed(1)).mul(0.02).half()
    found = {}
    for index, one in enumerate(official.KEYS):
        count = torch.Size(one["shape"]).numel()
        if one["role"] in roles:
            found[one["key"]] = noise[(offset := index * 997) : offset + count].reshape(one["shape"]).clone()
    return found


def test_base_and_control_of_the_released_size_take_hardly_more_memory_than_their_files(
    tmp_path: Path,
) -> None:
    pytest.importorskip("resource")
    base, control = tmp_path / "base.safetensors", tmp_path / "control.safetensors"
    save_file(official.below(random_state("base"), "base_model."), base)
    tensors = control_of(in_memory(random_state("control", "fusion")))
    shape = released_of({one["key"]: tuple(one["shape"]) for one in official.KEYS})
    assert shape is not None and (shape.copies, shape.width) == (13, 1152)
    types = dict.fromkeys(tensors, torch.float16)
    save_stream(control, tensors, types, CONTROL, control_config(shape, 16))
    del tensors
    size = base.stat().st_size + control.stat().st_size
    assert size > 1.8e9
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", STEP, str(control), str(base)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    for path in (base, control):
        path.unlink()
    assert done.returncode == 0, done.stderr
    before, loaded, grown, peak, took, step = (float(number) for number in done.stdout.split())
    print(
        f"\nfiles {size / 1e6:,.0f} MB; grown by {loaded / 1e6:,.0f} MB when loaded ({took:.1f} s of the processor), by "
        f"{grown / 1e6:,.0f} MB with one step at 256 px ({step:.1f} s); peak {peak / 1e6:,.0f} MB = {peak / size:.2f} x "
        f"files, {before / 1e6:,.0f} MB of it before"
    )
    assert loaded < 1.3 * size and grown < 1.3 * size
