"""The residual networks that most public matchers are: AdaFace's IR-18 to IR-101, and InsightFace's IResNet.

Names and shapes are those of AdaFace's published checkpoints; InsightFace's (ArcFace, SFace of Boutros et al.) are renamed.
Sources: AdaFace (Kim et al., CVPR 2022), ArcFace (Deng et al., CVPR 2019), whose improved residual unit both use.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from identiface_core.matchers.quality import typical_norm
from identiface_core.weights.layout import Shapes

DEPTHS: Mapping[tuple[int, ...], str] = {
    (2, 2, 2, 2): "18",
    (3, 4, 6, 3): "34",
    (3, 4, 14, 3): "50",
    (3, 13, 30, 3): "101",
}
"""What networks are called by the number of units in each stage; ArcFace calls the last one 100."""


class Unit(nn.Module):
    """Improved residual unit: BN, convolution, BN, PReLU, convolution (strided), BN; the shortcut beside it."""

    def __init__(self, inner: int, outer: int, stride: int, pooled: bool) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if pooled
            else nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.PReLU(outer),
            nn.Conv2d(outer, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
        )

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return h


class ResidualFaceNet(nn.Module):
    """Crops (B, 3, S, S) in [-1, 1] to embeddings (B, dimension), not normalised.

    stem: channels before the first stage. stages: (channels, units) of each; each halves the sides. side: of the crops.
    pooled: a first unit that keeps its channels has a strided copy as its shortcut (AdaFace), not a convolution (InsightFace).
    affine: the last normalisation has weights (InsightFace).
    """

    kind = "residual-face-net"

    def __init__(
        self,
        *,
        stem: int = 64,
        stages: Sequence[Sequence[int]] = ((64, 3), (128, 4), (256, 14), (512, 3)),
        dimension: int = 512,
        side: int = 112,
        pooled: bool = True,
        affine: bool = False,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "stem": stem,
            "stages": [list(stage) for stage in stages],
            "dimension": dimension,
            "side": side,
            "pooled": pooled,
            "affine": affine,
        }
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.PReLU(stem)
        )
        units, before = [], stem
        for channels, count in stages:
            units.append(Unit(before, channels, 2, pooled and before == channels))
            units += [Unit(channels, channels, 1, True) for _ in range(count - 1)]
            before = channels
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(before * (side >> len(stages)) ** 2, dimension),
            nn.BatchNorm1d(dimension, affine=affine),
        )

    def forward(self, crops: Tensor) -> Tensor:
        vectors: Tensor = self.output_layer(self.body(self.input_layer(crops)))
        return vectors

    def spatial(self, crops: Tensor) -> Tensor:
        """(B, C, S/16, S/16): the last map, normalised per channel."""
        maps: Tensor = self.output_layer[0](self.body(self.input_layer(crops)))
        return maps

    @property
    def typical(self) -> float:
        """Length of an average training face's embedding."""
        last = self.output_layer[4]
        assert isinstance(last, nn.BatchNorm1d)
        return typical_norm(last)


def config_of(shapes: Shapes) -> dict[str, Any]:
    """Constructor arguments of the `ResidualFaceNet` whose tensors these are; KeyError or ValueError if none is.

    >>> config_of({n: tuple(t.shape) for n, t in ResidualFaceNet().state_dict().items()})["stages"]
    [[64, 3], [128, 4], [256, 14], [512, 3]]
    """
    stem = shapes["input_layer.0.weight"][0]
    stages: list[list[int]] = []
    before = stem
    for index in range(_count(shapes)):
        channels = shapes[f"body.{index}.res_layer.1.weight"][0]
        if index == 0 or channels != before or f"body.{index}.shortcut_layer.0.weight" in shapes:
            stages.append([channels, 0])
        stages[-1][1] += 1
        before = channels
    dimension, area = shapes["output_layer.3.weight"]
    cells = math.isqrt(area // before)
    if cells * cells * before != area:
        raise ValueError(f"the last layer reads {area} values, no square map of {before} channels")
    return {
        "stem": stem,
        "stages": stages,
        "dimension": dimension,
        "side": cells << len(stages),
        "pooled": "body.0.shortcut_layer.0.weight" not in shapes,
        "affine": "output_layer.4.weight" in shapes,
    }


def depth_of(config: Mapping[str, Any]) -> str:
    """ "18", "50", "101"..., or the units of each stage for another network."""
    units = tuple(count for _, count in config["stages"])
    return DEPTHS.get(units, "-".join(map(str, units)))


_RENAMED = (
    (r"^conv1\.", "input_layer.0."),
    (r"^bn1\.", "input_layer.1."),
    (r"^prelu\.", "input_layer.2."),
    (r"^bn2\.", "output_layer.0."),
    (r"^fc\.", "output_layer.3."),
    (r"^features\.", "output_layer.4."),
    (r"\.downsample\.", ".shortcut_layer."),
    (r"\.bn1\.", ".res_layer.0."),
    (r"\.conv1\.", ".res_layer.1."),
    (r"\.bn2\.", ".res_layer.2."),
    (r"\.prelu\.", ".res_layer.3."),
    (r"\.conv2\.", ".res_layer.4."),
    (r"\.bn3\.", ".res_layer.5."),
)


def insightface_names(shapes: Shapes) -> dict[str, str]:
    """InsightFace's names of an IResNet -> ours. A name that is none of theirs stays as it is.

    >>> insightface_names({"layer1.0.bn1.weight": (64,), "layer2.0.prelu.weight": (128,)})["layer2.0.prelu.weight"]
    'body.1.res_layer.3.weight'
    """
    places = sorted(
        {(int(m[1]), int(m[2])) for name in shapes if (m := re.match(r"layer(\d+)\.(\d+)\.", name))}
    )
    index = {place: number for number, place in enumerate(places)}
    renamed = {}
    for name in shapes:
        new = re.sub(r"^layer(\d+)\.(\d+)\.", lambda m: f"body.{index[int(m[1]), int(m[2])]}.", name)
        for old, ours in _RENAMED:
            changed = re.sub(old, ours, new)
            if changed != new:
                new = changed
                break
        renamed[name] = new
    return renamed


def _count(shapes: Shapes) -> int:
    return 1 + max(int(m[1]) for name in shapes if (m := re.match(r"body\.(\d+)\.", name)))
