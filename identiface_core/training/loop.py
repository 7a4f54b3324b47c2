"""One training loop for every stage: resumable after a kill at any moment, with a loss curve.

A stage owns its networks, its batches and its loss; the loop owns the optimiser, the schedule, the moving
average, the checkpoint and the log. Every draw of step `i` comes from a generator seeded by (seed, i), so
that a resumed run is the run: the same weights to the last bit, as long as the schedule goes by steps and not
by the clock.
"""

from __future__ import annotations

import csv
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from identiface_core.errors import IdentiFaceError, WeightsError

Progress = Callable[[int, float, dict[str, float]], None]
"""Called after each logged step with (step, fraction of the schedule done in [0, 1], values by name)."""

CHECKPOINT = "checkpoint.safetensors"
CURVE = "loss.csv"


class Stage(ABC):
    """What the loop needs to know about one training. Subclass it, set `modules` and `steps`, write
    `loss`.
    """

    name: str = "stage"
    modules: nn.ModuleDict
    """The networks that are trained and checkpointed. Frozen helpers stay outside."""
    steps: int = 1000
    """Length of the schedule in optimiser steps; the run ends there or when its minutes are over."""
    seed: int = 0
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-2
    """Decoupled weight decay, on tensors of two and more dimensions only."""
    warmup: int = 100
    """Steps of linear learning-rate warm-up before the cosine."""
    ema: float | None = None
    """Decay of the moving average of the weights per step, or None. Validation and export use the average."""
    clip: float | None = 1.0
    """Largest gradient norm, or None."""
    autocast: bool = False
    """bfloat16 around `loss`, where the device has it (worth it for convolutions, not for small transformers on a CPU)."""
    validate_every: int = 500
    progress: float = 0.0
    """Fraction of the schedule that is done, in [0, 1]; set by the loop before every step."""
    lr_floor: ClassVar[float] = 0.01
    """The cosine ends at this share of `lr`."""

    @abstractmethod
    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the batch of this step with the CPU `generator`; return scalars, of which "loss" is
        minimised.
        """

    def validate(self) -> dict[str, float]:
        """Figures on unseen data; runs in eval mode without gradients, on the averaged weights if there are
        any.
        """
        return {}


@dataclass(frozen=True)
class Outcome:
    """How a run ended: optimiser steps done, minutes spent over all its parts, last validation figures."""

    step: int
    minutes: float
    validation: dict[str, float]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one step; depends on (seed, step) alone."""
    state = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) >> 1)


def run_stage(
    stage: Stage,
    run_dir: Path,
    *,
    device: str | torch.device = "cpu",
    minutes: float | None = None,
    log_every: int = 50,
    checkpoint_every_s: float = 60.0,
    progress: Progress | None = None,
) -> Outcome:
    """Train `stage` to the end of its schedule, going on from the checkpoint in `run_dir` if there is one.

    Without `minutes` the schedule runs over `stage.steps`. With `minutes` it runs over whatever is used up
    first, the steps or the minutes of the whole run (all its parts together). Afterwards `stage.modules` is
    in eval mode and holds the weights to ship (the averaged ones if `stage.ema`). Writes
    `checkpoint.safetensors` (atomically), `loss.csv` and `loss.png`. Raises `WeightsError` if the checkpoint
    belongs to another stage or network, `IdentiFaceError` if the loss is no longer a number.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    device = torch.device(device)
    modules = stage.modules.to(device).train()
    optimiser = _optimiser(stage)
    average = (
        {k: v.detach().clone() for k, v in modules.state_dict().items()} if stage.ema is not None else None
    )
    step, before = _resume(run_dir / CHECKPOINT, stage, optimiser, average)
    curve = _Curve(run_dir, step)
    started = saved = time.monotonic()
    figures: dict[str, float] = {}

    def elapsed() -> float:
        return before + (time.monotonic() - started) / 60

    def fraction() -> float:
        clock = elapsed() / minutes if minutes else 0.0
        return min(max(step / stage.steps, clock), 1.0)

    def checkpoint() -> None:
        _save(run_dir / CHECKPOINT, stage, optimiser, average, step, elapsed())

    validated = step
    recent: list[dict[str, Tensor]] = []
    while (done := fraction()) < 1.0:
        stage.progress = done
        rate = _learning_rate(stage, step, done)
        for group in optimiser.param_groups:
            group["lr"] = rate
        generator = step_generator(stage.seed, step)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(generator.initial_seed())  # dropout and its like inside networks draw from here
            with bfloat16(device, enabled=stage.autocast):
                values = stage.loss(step, generator)
        optimiser.zero_grad(set_to_none=True)
        values["loss"].backward()
        if stage.clip is not None:
            nn.utils.clip_grad_norm_(modules.parameters(), stage.clip)
        optimiser.step()
        step += 1
        if average is not None and stage.ema is not None:
            _update_average(average, modules, min(stage.ema, (1 + step) / (10 + step)))
        recent.append({k: v.detach() for k, v in values.items()})
        if step % log_every == 0:
            means = _means(recent)
            recent.clear()
            if not math.isfinite(means["loss"]):
                raise IdentiFaceError(
                    f"stage '{stage.name}': the loss is {means['loss']} at step {step}; "
                    f"lower the learning rate ({stage.lr:g}) and start from an empty folder"
                )
            curve.add(step, elapsed(), {f"train/{k}": v for k, v in means.items()})
            if progress is not None:
                progress(step, fraction(), means)
        if step % stage.validate_every == 0:
            figures = _validate(stage, average)
            validated = step
            curve.add(step, elapsed(), {f"validation/{k}": v for k, v in figures.items()})
            curve.draw(stage.name)
            if progress is not None:
                progress(step, fraction(), figures)
        if time.monotonic() - saved >= checkpoint_every_s:
            checkpoint()
            saved = time.monotonic()
    if step != validated or not figures:
        figures = _validate(stage, average)
    if step != validated:
        curve.add(step, elapsed(), {f"validation/{k}": v for k, v in figures.items()})
        if progress is not None:
            progress(step, 1.0, figures)
    checkpoint()
    curve.draw(stage.name)
    if average is not None:
        modules.load_state_dict(average)
    modules.eval()
    return Outcome(step, elapsed(), figures)


def bfloat16(device: torch.device, *, enabled: bool = True) -> torch.autocast:
    """bfloat16 autocast where the device multiplies it in hardware; a CPU without takes a hundred times as long instead."""
    if device.type == "cpu" and enabled:
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        enabled = any(value is True for name, value in known.items() if "bf16" in name)
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def load_trained(modules: nn.ModuleDict, run_dir: Path) -> int:
    """Load the weights to ship (averaged if there are any) from a run's checkpoint; returns its step.

    Raises `WeightsError` if there is no checkpoint or it does not fit.
    """
    path = run_dir / CHECKPOINT
    tensors, header = _read(path)
    prefix = "ema/" if any(k.startswith("ema/") for k in tensors) else "model/"
    _load_modules(path, modules, _below(tensors, prefix))
    modules.eval()
    return int(header["step"])


def _learning_rate(stage: Stage, step: int, done: float) -> float:
    warm = min((step + 1) / stage.warmup, 1.0) if stage.warmup else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return stage.lr * warm * (stage.lr_floor + (1 - stage.lr_floor) * cosine)


def _optimiser(stage: Stage) -> torch.optim.AdamW:
    weights = [p for p in stage.modules.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in weights if p.ndim >= 2], "weight_decay": stage.weight_decay},
        {"params": [p for p in weights if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=stage.lr, betas=stage.betas, fused=True)


@torch.no_grad()
def _update_average(average: dict[str, Tensor], modules: nn.ModuleDict, decay: float) -> None:
    state = modules.state_dict()
    floats = [k for k, v in average.items() if v.is_floating_point()]
    torch._foreach_lerp_([average[k] for k in floats], [state[k] for k in floats], 1 - decay)
    for key, value in average.items():
        if not value.is_floating_point():
            value.copy_(state[key])


@torch.no_grad()
def _validate(stage: Stage, average: dict[str, Tensor] | None) -> dict[str, float]:
    raw = None
    if average is not None:
        raw = {k: v.detach().clone() for k, v in stage.modules.state_dict().items()}
        stage.modules.load_state_dict(average)
    stage.modules.eval()
    figures = stage.validate()
    if raw is not None:
        stage.modules.load_state_dict(raw)
    stage.modules.train()
    return figures


def _means(values: list[dict[str, Tensor]]) -> dict[str, float]:
    return {k: float(torch.stack([v[k].float() for v in values if k in v]).mean()) for k in values[-1]}


def _save(
    path: Path,
    stage: Stage,
    optimiser: torch.optim.AdamW,
    average: dict[str, Tensor] | None,
    step: int,
    minutes: float,
) -> None:
    tensors = {f"model/{k}": v for k, v in stage.modules.state_dict().items()}
    tensors |= {f"ema/{k}": v for k, v in (average or {}).items()}
    for name, parameter in stage.modules.named_parameters():
        tensors |= {f"adam/{name}/{k}": v for k, v in optimiser.state.get(parameter, {}).items()}
    header = {"stage": stage.name, "step": str(step), "minutes": repr(minutes), "seed": str(stage.seed)}
    beside = path.with_name(path.name + ".tmp")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, beside, metadata=header)
    os.replace(beside, path)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the checkpoint {path}: {error}; remove it to start anew") from error


def _resume(
    path: Path, stage: Stage, optimiser: torch.optim.AdamW, average: dict[str, Tensor] | None
) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    tensors, header = _read(path)
    if (header.get("stage"), header.get("seed")) != (stage.name, str(stage.seed)):
        raise WeightsError(
            f"{path} is a checkpoint of stage '{header.get('stage')}' with seed {header.get('seed')}, wanted "
            f"'{stage.name}' with seed {stage.seed}: choose another folder or remove it"
        )
    _load_modules(path, stage.modules, _below(tensors, "model/"))
    if average is not None:
        for key, value in (_below(tensors, "ema/") or stage.modules.state_dict()).items():
            average[key].copy_(value)
    for name, parameter in stage.modules.named_parameters():
        state = _below(tensors, f"adam/{name}/")
        if state:
            optimiser.state[parameter] = {k: _laid_out_as(v, parameter) for k, v in state.items()}
    return int(header["step"]), float(header["minutes"])


def _laid_out_as(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` on the parameter's device and in its memory layout: the fused optimiser walks raw memory."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _load_modules(path: Path, modules: nn.ModuleDict, state: dict[str, Tensor]) -> None:
    try:
        modules.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"{path} was written by a network of another shape: choose another folder or remove it ({error})"
        ) from error


class _Curve:
    """The log of a run: rows (step, minutes, series, value) in loss.csv, drawn as loss.png."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / CURVE
        rows = [r for r in self._rows() if int(r[0]) <= step]  # what a killed run logged after its checkpoint
        beside = self.path.with_name(self.path.name + ".tmp")
        with beside.open("w", newline="") as file:
            csv.writer(file).writerows([("step", "minutes", "series", "value"), *rows])
        os.replace(beside, self.path)

    def _rows(self) -> list[tuple[str, ...]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return [tuple(r) for r in csv.reader(file) if len(r) == 4 and r[0].isdigit()]

    def add(self, step: int, minutes: float, values: dict[str, float]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows((step, f"{minutes:.3f}", k, f"{v:.6g}") for k, v in values.items())

    def draw(self, title: str) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError:  # the curve is in loss.csv all the same
            return
        series: dict[str, tuple[list[int], list[float]]] = {}
        for step, _, name, value in self._rows():
            xs, ys = series.setdefault(name, ([], []))
            xs.append(int(step))
            ys.append(float(value))
        figure: Any = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        _plot(left, [item for item in series.items() if "loss" in item[0]])
        _plot(right, [item for item in series.items() if "loss" not in item[0]])
        figure.suptitle(title)
        figure.savefig(self.path.with_suffix(".png"), dpi=100)


def _plot(axes: Any, series: Iterable[tuple[str, tuple[list[int], list[float]]]]) -> None:
    for name, (xs, ys) in series:
        axes.plot(xs, ys, label=name, marker="o" if name.startswith("validation") else None, markersize=3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
