"""EdgeFace: a small network of convolutions and attention across channels, often with linear layers of low rank.

Names and shapes are those of the published checkpoints. Sources: EdgeNeXt (Maaz et al., ECCVW 2022) for the network, EdgeFace
(George et al., T-BIOM 2024) for the low rank and the training.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from identiface_core.weights.layout import Shapes

EPS = 1e-6
HIDDEN = 32
"""Sines and cosines of each coordinate in a code of positions."""


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map (B, C, H, W), at each place alone."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LowRank(nn.Module):
    """Two linear layers in place of one, through `rank` values (EdgeFace's LoRaLin)."""

    def __init__(self, inner: int, outer: int, rank: int, bias: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inner, rank, bias=False)
        self.linear2 = nn.Linear(rank, outer, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.linear2(self.linear1(x))
        return h


def linear(inner: int, outer: int, ratio: float | None) -> nn.Module:
    """A linear layer with bias; of rank `ratio` times the smaller side, at least 2, unless ratio is None."""
    if ratio is None:
        return nn.Linear(inner, outer)
    return LowRank(inner, outer, max(2, int(min(inner, outer) * ratio)), True)


class Mlp(nn.Module):
    """Linear, GELU, linear; `expand` times as wide in between."""

    def __init__(self, width: int, expand: int, ratio: float | None) -> None:
        super().__init__()
        self.fc1 = linear(width, expand * width, ratio)
        self.fc2 = linear(expand * width, width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return h


class Local(nn.Module):
    """Depthwise convolution, normalisation, MLP per place; scaled and added."""

    def __init__(self, width: int, kernel: int, expand: int, ratio: float | None) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, expand, ratio)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.gamma * self.mlp(self.norm(self.conv_dw(x).permute(0, 2, 3, 1)))
        return x + h.permute(0, 3, 1, 2)


class Positions(nn.Module):
    """A code of each place: sines and cosines of its coordinates, projected to the map's channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(2 * HIDDEN, width, 1)

    def forward(self, like: Tensor) -> Tensor:
        """(1, C, H, W) for a map (B, C, H, W)."""
        height, width = like.shape[-2:]
        steps = torch.arange(HIDDEN, device=like.device, dtype=torch.float32)
        period = 10000 ** (2 * torch.div(steps, 2, rounding_mode="floor") / HIDDEN)

        def waves(count: int) -> Tensor:
            place = torch.arange(1, count + 1, device=like.device, dtype=torch.float32)
            angle = (place / (count + EPS) * 2 * math.pi)[:, None] / period
            return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), -1).flatten(1)

        rows = waves(height)[:, None].expand(-1, width, -1)
        columns = waves(width)[None].expand(height, -1, -1)
        code: Tensor = self.token_projection(torch.cat((rows, columns), -1).permute(2, 0, 1)[None].to(like))
        return code


class ChannelAttention(nn.Module):
    """Attention of channels to channels, over all places (cross-covariance attention, XCiT)."""

    def __init__(self, width: int, heads: int, ratio: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = linear(width, 3 * width, ratio)
        self.proj = linear(width, width, ratio)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        batch, places, width = x.shape
        qkv = self.qkv(x).reshape(batch, places, 3, self.heads, -1).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        mixed = weights.softmax(-1) @ v
        out: Tensor = self.proj(mixed.permute(0, 3, 1, 2).reshape(batch, places, width))
        return out


class Mixed(nn.Module):
    """Convolutions on slices of the channels, each fed by the one before; attention across channels; MLP per place."""

    def __init__(
        self, width: int, slices: int, heads: int, positions: bool, expand: int, ratio: float | None
    ) -> None:
        super().__init__()
        self.slice = math.ceil(width / slices)
        count = max(1, slices - 1)
        self.convs = nn.ModuleList(
            nn.Conv2d(self.slice, self.slice, 3, padding=1, groups=self.slice) for _ in range(count)
        )
        self.pos_embd = Positions(width) if positions else None
        self.norm_xca = nn.LayerNorm(width, eps=EPS)
        self.gamma_xca = nn.Parameter(torch.ones(width))
        self.xca = ChannelAttention(width, heads, ratio)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, expand, ratio)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        first, *others = x.chunk(len(self.convs) + 1, 1)
        made, last = [], first
        for index, conv in enumerate(self.convs):
            last = conv(last if index == 0 else last + others[index - 1])
            made.append(last)
        h = torch.cat((*made, others[-1]), 1)
        if self.pos_embd is not None:
            h = h + self.pos_embd(h)
        h = h.flatten(2).transpose(1, 2)
        h = h + self.gamma_xca * self.xca(self.norm_xca(h))
        h = self.gamma * self.mlp(self.norm(h))
        return x + h.transpose(1, 2).reshape(x.shape)


class Stage(nn.Module):
    """Blocks of one width, after a convolution that halves the sides unless it is the first stage."""

    def __init__(self, before: int | None, width: int, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = (
            nn.Identity()
            if before is None
            else nn.Sequential(ChannelNorm(before), nn.Conv2d(before, width, 2, 2))
        )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.blocks(self.downsample(x))
        return h


class Head(nn.Module):
    """The mean over all places, normalised, projected."""

    def __init__(self, width: int, dimension: int, ratio: float | None) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.fc = linear(width, dimension, ratio)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.fc(self.norm(x.mean((2, 3), keepdim=True)).flatten(1))
        return h


class EdgeFace(nn.Module):
    """Crops (B, 3, S, S) in [-1, 1] to embeddings (B, dimension), not normalised.

    For each of the four stages: `widths` channels, `local` and `mixed` blocks, `kernels` of the local ones, `slices`, `heads`
    and `positions` of the mixed ones. ratio: rank of the linear layers against their smaller side (the paper's gamma), or
    None for full ones. expand: of the MLPs.
    """

    kind = "edgeface"

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 100, 192),
        local: Sequence[int] = (3, 2, 8, 2),
        mixed: Sequence[int] = (0, 1, 1, 1),
        kernels: Sequence[int] = (3, 5, 7, 9),
        slices: Sequence[int] = (2, 2, 3, 4),
        heads: Sequence[int] = (4, 4, 4, 4),
        positions: Sequence[bool] = (False, True, False, False),
        ratio: float | None = 0.6,
        expand: int = 4,
        dimension: int = 512,
    ) -> None:
        super().__init__()
        given = {"widths": widths, "local": local, "mixed": mixed, "kernels": kernels, "slices": slices}
        given |= {"heads": heads, "positions": positions}
        self.config: dict[str, Any] = {name: list(values) for name, values in given.items()}
        self.config |= {"ratio": ratio, "expand": expand, "dimension": dimension}
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0]))
        stages: list[nn.Module] = []
        for i, width in enumerate(widths):
            blocks: list[nn.Module] = [Local(width, kernels[i], expand, ratio) for _ in range(local[i])]
            blocks += [
                Mixed(width, slices[i], heads[i], positions[i], expand, ratio) for _ in range(mixed[i])
            ]
            stages.append(Stage(widths[i - 1] if i else None, width, blocks))
        self.stages = nn.ModuleList(stages)
        self.head = Head(widths[-1], dimension, ratio)

    def forward(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self.head(self.spatial(crops))
        return vectors

    def spatial(self, crops: Tensor) -> Tensor:
        """(B, C, S/32, S/32): the last map."""
        x: Tensor = self.stem(crops)
        for stage in self.stages:
            x = stage(x)
        return x


def config_of(shapes: Shapes) -> dict[str, Any]:
    """Constructor arguments of the `EdgeFace` whose tensors these are; KeyError or ValueError if none is."""
    config: dict[str, Any] = {
        name: [] for name in ("widths", "local", "mixed", "kernels", "slices", "heads", "positions")
    }
    for i in range(1 + max(int(m[1]) for name in shapes if (m := re.match(r"stages\.(\d+)\.", name)))):
        blocks = f"stages.{i}.blocks."
        count = 1 + max(int(n[len(blocks) :].split(".")[0]) for n in shapes if n.startswith(blocks))
        kinds = [f"{blocks}{k}.norm_xca.weight" in shapes for k in range(count)]
        last = f"{blocks}{count - 1}."
        config["widths"].append(shapes[f"{blocks}0.gamma"][0])
        config["local"].append(kinds.count(False))
        config["mixed"].append(kinds.count(True))
        config["kernels"].append(shapes[f"{blocks}0.conv_dw.weight"][-1] if not kinds[0] else 3)
        convs = sum(bool(re.fullmatch(re.escape(last) + r"convs\.\d+\.weight", name)) for name in shapes)
        config["slices"].append(convs + 1 if convs else 2)
        config["heads"].append(shapes[f"{last}xca.temperature"][0] if kinds[-1] else 1)
        config["positions"].append(f"{last}pos_embd.token_projection.weight" in shapes)
    width = config["widths"][0]
    rank = shapes.get("head.fc.linear1.weight")
    # The middle of the ratios that round to this rank: the published ones have two digits.
    config["ratio"] = None if rank is None else round((rank[0] + 0.5) / min(rank[1], _last(shapes)), 2)
    hidden = (
        shapes.get("stages.0.blocks.0.mlp.fc1.linear2.weight") or shapes["stages.0.blocks.0.mlp.fc1.weight"]
    )
    config["expand"] = hidden[0] // width
    config["dimension"] = _last(shapes)
    return config


def _last(shapes: Shapes) -> int:
    return (shapes.get("head.fc.linear2.weight") or shapes["head.fc.weight"])[0]
