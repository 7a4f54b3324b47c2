"""Stages "segmenter" and "finder": where the parts of a face are, and where faces are in a picture."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..evidence.sketch import gaussian_blur
from ..faces.alignment import FACE_BOX, PORTRAIT_SIDE, apply_matrix, warp
from ..faces.base import box_of, overlap
from ..faces.finder import STRIDE, THRESHOLD, UNIT_SIDE, FaceFinder, decode
from ..faces.segmenter import PartSegmenter
from ..parts import MASK_CHANNELS
from .data import World, floats
from .loop import Stage

BACKGROUND = MASK_CHANNELS.index("background")
CLASS_WEIGHTS = {"eyes": 2.0, "brows": 2.0, "mouth": 2.0, "ears": 1.5, "glasses": 2.5}
"""Extra weight of small parts in the segmenter's loss."""
CANVAS = 96
"""Side of the pictures the finder is trained on; larger faces are the pyramid's business."""
LAYERS = (0.85, 0.4, 0.25)
"""Probability of each layer of a training picture to carry a face."""
FACE_SIDES = (12.0, 95.0)
KNOWN_SIDES = (15.0, 75.0)
"""Faces outside are neither wanted nor forbidden."""
BOX_SIDE = math.sqrt((FACE_BOX[2] - FACE_BOX[0]) * (FACE_BOX[3] - FACE_BOX[1]))


def segmenter_stage(world: World, unseen: World | None = None, **options: int) -> SegmenterStage:
    """The segmenter's training; `options` are `steps`, `batch`, `seed`."""
    return SegmenterStage(world, unseen, **options)


def finder_stage(world: World, unseen: World | None = None, **options: int) -> FinderStage:
    """The finder's training; `options` are `steps`, `batch`, `seed`."""
    return FinderStage(world, unseen, **options)


class SegmenterStage(Stage):
    """Half canonical portraits, half other views, moved, recoloured and blurred as generated faces are.

    world: drawn people, may still be growing. unseen: people to validate on (default: those of `world`).
    """

    name = "segmenter"

    def __init__(
        self, world: World, unseen: World | None = None, *, steps: int = 700, batch: int = 16, seed: int = 0
    ) -> None:
        self.world, self.unseen = world, unseen or world
        self.steps, self.batch, self.seed = steps, batch, seed
        self.lr, self.ema, self.autocast, self.validate_every = 3e-3, 0.99, True, 350
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = PartSegmenter().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"segmenter": self.net})
        self.weights = torch.tensor([CLASS_WEIGHTS.get(name, 1.0) for name in MASK_CHANNELS])

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.autocast("cpu", enabled=False):  # pictures are made in full precision
            images, labels, _ = draw_faces(self.world, self.batch, generator)
            images, labels = _move(images, labels, generator)
            images = recolour(soften(images, generator), generator)
        device = self._device()
        images = images.to(device, memory_format=torch.channels_last)
        logits = F.interpolate(self.net.logits(images).float(), scale_factor=2.0, mode="bilinear")
        return {"loss": F.cross_entropy(logits, labels.to(device), self.weights.to(device))}

    def _device(self) -> torch.device:
        return self.net.head.weight.device

    def validate(self) -> dict[str, float]:
        """Intersection over union of each part on unseen faces, without and with the augmentation."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        images, labels, _ = draw_faces(self.unseen, 64, generator)
        rough = recolour(soften(images, generator), generator)
        figures = {f"iou_{name}": v for name, v in self._iou(images, labels).items()}
        rough_iou = self._iou(rough, labels)
        return figures | {"iou": sum(figures.values()) / len(figures), "iou_rough": _mean(rough_iou.values())}

    def _iou(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        parts = [self.net(b.to(self._device())).argmax(1).cpu() for b in images.split(16)]
        found = torch.cat(parts)
        result = {}
        for index, name in enumerate(MASK_CHANNELS):
            both, either = (found == index) & (labels == index), (found == index) | (labels == index)
            result[name] = float(both.sum() / either.sum().clamp_min(1))
        return result


class FinderStage(Stage):
    """None to three drawn faces on made-up backgrounds, 96 px, under hard colour, blur, noise and block
    damage.

    world: drawn people, may still be growing. unseen: people to validate on (default: those of `world`).
    """

    name = "finder"

    def __init__(
        self, world: World, unseen: World | None = None, *, steps: int = 1200, batch: int = 24, seed: int = 0
    ) -> None:
        self.world, self.unseen = world, unseen or world
        self.steps, self.batch, self.seed = steps, batch, seed
        self.lr, self.ema, self.autocast, self.validate_every = 2e-3, 0.99, True, 400
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = FaceFinder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"finder": self.net})

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.autocast("cpu", enabled=False):  # pictures are made in full precision
            images, points, there = draw_scenes(self.world, self.batch, generator)
        device = self.net.head.weight.device
        maps = self.net(images.to(device, memory_format=torch.channels_last)).float()
        heat, values, known = (t.to(device) for t in finder_targets(points, there, maps.shape[-1]))
        return finder_loss(maps, heat, values, known)

    def validate(self) -> dict[str, float]:
        """On unseen people: share of faces found (overlap above 0.5), false ones per picture and point error in
        face sides, at the threshold in use and (`low_`) at half of it.
        """
        images, points, there = draw_scenes(self.unseen, 96, torch.Generator().manual_seed(self.seed + 1))
        maps = torch.cat([self.net(b.to(self.net.head.weight.device)) for b in images.split(24)])
        low = {f"low_{name}": v for name, v in self._figures(maps, points, there, THRESHOLD / 2).items()}
        return self._figures(maps, points, there, THRESHOLD) | low

    def _figures(self, maps: Tensor, points: Tensor, there: Tensor, threshold: float) -> dict[str, float]:
        hits, wanted, false, errors = 0, 0, 0, []
        for image_maps, image_points, image_there in zip(maps, points, there, strict=True):
            found = decode(image_maps, threshold)
            for truth in image_points[image_there == WANTED]:
                box = box_of(truth)
                near = [f for f in found if overlap(f.box, box) > 0.5]
                wanted, hits = wanted + 1, hits + bool(near)
                errors += [float((near[0].points - truth).norm(dim=1).mean()) / _side(truth)] if near else []
            boxes = [box_of(truth) for truth in image_points[image_there > ABSENT]]
            false += sum(all(overlap(f.box, box) <= 0.3 for box in boxes) for f in found)
        return {"found": hits / max(wanted, 1), "false": false / len(maps), "point_error": _mean(errors)}


ABSENT, IGNORED, WANTED = 0, 1, 2


def draw_faces(world: World, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Half canonical portraits, half views, mirrored at random: images (B, 3, 128, 128), labels (B, 128, 128)
    int64, points (B, 5, 2).
    """
    people = torch.randint(world.people, (count,), generator=generator).tolist()
    view = torch.randint(world.info.views, (count,), generator=generator).tolist()
    front, side, turned = people[: count // 2], people[count // 2 :], view[count // 2 :]
    images = floats(np.concatenate([world.canonical[front], world.views[side, turned]]))
    labels = torch.from_numpy(
        np.concatenate([world.canonical_labels[front], world.view_labels[side, turned]])
    ).long()
    points = torch.from_numpy(
        np.concatenate([world.canonical_points[front], world.view_points[side, turned]])
    )
    mirror = torch.rand(count, generator=generator) < 0.5
    mirrored = (points * torch.tensor([-1.0, 1.0]) + torch.tensor([PORTRAIT_SIDE, 0.0]))[:, [1, 0, 2, 4, 3]]
    images = torch.where(mirror[:, None, None, None], images.flip(-1), images)
    labels = torch.where(mirror[:, None, None], labels.flip(-1), labels)
    return images, labels, torch.where(mirror[:, None, None], mirrored, points)


def draw_scenes(world: World, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Finder training pictures: images (B, 3, 96, 96), points (B, layers, 5, 2), state (B, layers): `ABSENT`,
    `IGNORED` (too small, too large, cut or covered) or `WANTED`.
    """
    scene = backgrounds(world, count, generator)
    points, state = torch.zeros(count, len(LAYERS), 5, 2), torch.zeros(count, len(LAYERS), dtype=torch.long)
    for layer, probability in enumerate(LAYERS):
        put = (torch.rand(count, generator=generator) < probability).nonzero()[:, 0]
        images, labels, marks = draw_faces(world, len(put), generator)
        put = put[torch.randperm(len(put), generator=generator)]  # canonical faces come first in a draw
        matrix, side = _placement(marks, generator)
        alpha = (labels != BACKGROUND).float()[:, None]
        alpha[torch.rand(len(put), generator=generator) < 0.4] = 1.0
        tint = torch.exp(0.3 * (torch.rand(len(put), 3, 1, 1, generator=generator) - 0.5))
        sheet = torch.cat([images * tint * alpha, alpha], 1)
        small = side < 0.6 * BOX_SIDE  # antialias by hand: the warp samples bilinearly
        if small.any():
            sheet[small] = _through(sheet[small], (PORTRAIT_SIDE // 2, PORTRAIT_SIDE // 2), "bilinear")
        pasted = warp(sheet, matrix, CANVAS, padding="zeros")
        cover = pasted[:, 3:]
        scene[put] = pasted[:, :3] + scene[put] * (1 - cover)
        points[put, layer] = apply_matrix(matrix, marks)
        inside = ((points[put, layer] > 2) & (points[put, layer] < CANVAS - 2)).all(-1).all(-1)
        wanted = inside & (side >= KNOWN_SIDES[0]) & (side <= KNOWN_SIDES[1])
        state[put, layer] = torch.where(wanted, WANTED, IGNORED)
        for earlier in range(layer):  # what this layer covers cannot be asked for
            hidden = (_covered(points[put, earlier], cover) > 0.3) & (state[put, earlier] == WANTED)
            state[put[hidden], earlier] = IGNORED
    scene = damage(recolour(soften(scene, generator, probability=0.3), generator), generator)
    return scene, points, state


def backgrounds(world: World, count: int, generator: torch.Generator) -> Tensor:
    """Made-up backgrounds without a face, (B, 3, 96, 96): noise of all coarsenesses, blocks, stripes,
    shuffled portraits.
    """

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    scene = rand(count, 3, 1, 1).expand(-1, -1, 2, 2)
    for cells in (2, 4, 8, 16, 32, CANVAS):
        mode = "nearest" if rand(1) < 0.25 else "bilinear"
        layer = rand(count, 3, cells, cells) - 0.5
        layer = torch.where(rand(count, 1, 1, 1) < 0.5, layer.mean(1, keepdim=True) * 1.5, layer)
        scene = F.interpolate(scene, (cells, cells), mode=mode) + layer * rand(count, 1, 1, 1).square() * 1.2
    for _ in range(3):  # flat blocks and discs with hard edges
        centre, half = rand(count, 2, 1, 1) * CANVAS, (rand(count, 2, 1, 1) * 0.3 + 0.02) * CANVAS
        axis = torch.arange(CANVAS) + 0.5
        dx, dy = (axis - centre[:, :1]) / half[:, :1], (axis[:, None] - centre[:, 1:]) / half[:, 1:]
        round_ = rand(count, 1, 1, 1) < 0.5
        inside = torch.where(round_, dx.square() + dy.square() < 1, (dx.abs() < 1) & (dy.abs() < 1))
        inside = inside & (rand(count, 1, 1, 1) < 0.5)
        scene = torch.where(inside, rand(count, 3, 1, 1) + 0.3 * (rand(count, 3, 1, 1) - 0.5) * dy, scene)
    phase = axis * rand(count, 1, 1, 1) + axis[:, None] * (rand(count, 1, 1, 1) - 0.5)
    stripes = torch.sin(phase * rand(count, 1, 1, 1) * 1.5) * (rand(count, 1, 1, 1) < 0.25)
    scene = scene + stripes * rand(count, 3, 1, 1) * 0.4
    kind = rand(count)
    shuffled, faceless = (kind < 0.25).nonzero()[:, 0], (kind > 0.87).nonzero()[:, 0]
    scene[shuffled] = _fit(_shuffled(draw_faces(world, len(shuffled), generator)[0], generator))
    images, labels, _ = draw_faces(world, len(faceless), generator)
    blurred = _through(images, (8, 8), "bilinear")
    scene[faceless] = _fit(torch.where(labels[:, None] == BACKGROUND, images, blurred))
    return scene.clamp(0, 1)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random tone curve, gains, saturation (to grey), contrast, offset and noise: (B, 3, H, W) in [0, 1]."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    count, size = len(images), images.shape
    images = images + 0.6 * rand(count, 1, 1, 1) * images * (1 - images)
    gains = torch.exp(0.2 * rand(count, 3) + 0.25 * rand(count, 1))
    saturation = torch.where(rand(count, 1, 1) > 0.6, 0.0, 1 + 0.6 * rand(count, 1, 1))
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    contrast = torch.exp(0.5 * rand(count, 1, 1) - 0.2)
    colours = contrast * (saturation * torch.eye(3) + (1 - saturation) * grey) * gains[:, None]
    offset = (1 - contrast) * images.mean((1, 2, 3))[:, None, None] + 0.12 * rand(count, 1, 1)
    images = torch.baddbmm(offset, colours, images.flatten(2)).view(size)
    grain = torch.randn(count, 1, *size[2:], generator=generator) * 0.05 * rand(count, 1, 1, 1).clamp_min(0)
    return (images + grain * (1 + 0.5 * rand(count, 3, 1, 1))).clamp(0, 1)


def soften(images: Tensor, generator: torch.Generator, probability: float = 0.6) -> Tensor:
    """Blur some of the batch as autoencoders, small sensors and bad lenses do; (B, 3, H, W)."""
    kinds = torch.rand(len(images), generator=generator)
    coarse, blurred = kinds < probability / 2, kinds > 1 - probability / 2
    factor = 1.3 + 2.2 * float(torch.rand(1, generator=generator))
    sigma = 0.5 + 2.0 * float(torch.rand(1, generator=generator))
    height, width = images.shape[-2:]
    images = images.clone()
    if coarse.any():
        small = (round(height / factor), round(width / factor))
        images[coarse] = _through(images[coarse], small, "bicubic").clamp(0, 1)
    if blurred.any():
        images[blurred] = gaussian_blur(images[blurred], sigma)
    return images


def damage(images: Tensor, generator: torch.Generator, probability: float = 0.35) -> Tensor:
    """Quantise the cosine transform of 8 x 8 blocks in some of the batch, as JPEG does; (B, 3, 8 h, 8 w)."""
    chosen = torch.rand(len(images), generator=generator) < probability
    count, channels, height, width = images[chosen].shape
    n = torch.arange(8.0)
    basis = torch.cos(math.pi / 8 * n[:, None] * (n + 0.5)) * torch.where(
        n[:, None] == 0, math.sqrt(1 / 8), 0.5
    )
    blocks = images[chosen].view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    step = (torch.rand(count, 1, 1, 1, 1, 1, generator=generator) * 0.05 + 0.01) * (1 + n[:, None] + n)
    terms = (basis @ blocks @ basis.T / step).round() * step
    images = images.clone()
    images[chosen] = (
        (basis.T @ terms @ basis).transpose(3, 4).reshape(count, channels, height, width).clamp(0, 1)
    )
    return images


def finder_targets(points: Tensor, state: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """Targets on a `cells` x `cells` grid from `draw_scenes`: heatmap (B, h, w) in [0, 1], values (B, 11, h,
    w) and known (B, h, w): 1 where the heatmap counts, 0 around faces that are ignored.
    """
    count = len(points)
    axis = (torch.arange(cells) + 0.5) * STRIDE
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    heat, known = torch.zeros(count, cells, cells), torch.ones(count, cells, cells)
    values = torch.zeros(count, 11, cells, cells)
    for b in range(count):
        for marks, kind in zip(points[b], state[b].tolist(), strict=True):
            if kind == ABSENT:
                continue
            x0, y0, x1, y1 = box_of(marks)
            side = math.sqrt((x1 - x0) * (y1 - y0))
            away = (grid - torch.tensor([(x0 + x1) / 2, (y0 + y1) / 2])).norm(dim=-1)
            if kind == IGNORED:
                known[b][away < 0.8 * side + STRIDE] = 0
                continue
            peak = torch.exp(-0.5 * (away / max(0.6 * STRIDE, 0.11 * side)) ** 2)
            peak[away == away.min()] = 1.0
            nearer = peak > heat[b]
            offsets = (marks - grid[:, :, None]).flatten(2).permute(2, 0, 1) / side
            logs = torch.full((1, cells, cells), math.log(side / UNIT_SIDE))
            values[b] = torch.where(nearer, torch.cat([logs, offsets]), values[b])
            heat[b] = torch.maximum(heat[b], peak)
    return heat, values, known.maximum((heat > 0.3).float())


def finder_loss(maps: Tensor, heat: Tensor, values: Tensor, known: Tensor) -> dict[str, Tensor]:
    """Focal loss of the heatmap (CornerNet's penalty-reduced form) and absolute errors of size and points at
    the peaks.
    """
    logit = maps[:, 0]
    chance = logit.sigmoid()
    positive = heat >= 1.0
    found = -F.logsigmoid(logit) * (1 - chance).square() * positive
    false = -F.logsigmoid(-logit) * chance.square() * (1 - heat).pow(4) * ~positive * known
    faces = positive.sum().clamp_min(1)
    near = (heat > 0.5).float() * heat
    error = (maps[:, 1:] - values).abs() * near[:, None] / near.sum().clamp_min(1)
    heat_loss = (found.sum() + false.sum()) / faces
    size_loss, point_loss = error[:, 0].sum(), error[:, 1:].sum() / 10
    loss = heat_loss + size_loss + 8 * point_loss
    return {"loss": loss, "heat_loss": heat_loss, "size_loss": size_loss, "point_loss": point_loss}


def _placement(marks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Similarities (B, 2, 3) from portrait to canvas, and the face sides (B,) they give."""
    rand = torch.rand(4, len(marks), generator=generator)
    side = FACE_SIDES[0] * (FACE_SIDES[1] / FACE_SIDES[0]) ** rand[0]
    own = torch.tensor([_side(m) for m in marks])
    scale, angle = side / own, (rand[1] * 2 - 1) * 0.35 * rand[1]
    room = (CANVAS - 0.8 * side).clamp_min(0.2 * CANVAS)
    target = (CANVAS - room)[:, None] / 2 + rand[2:].T * room[:, None]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    shift = target - (turn @ marks.mean(1)[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], -1), side


def _side(marks: Tensor) -> float:
    x0, y0, x1, y1 = box_of(marks)
    return math.sqrt((x1 - x0) * (y1 - y0))


def _covered(points: Tensor, cover: Tensor) -> Tensor:
    """Share of the five points (B, 5, 2) that a layer's cover (B, 1, H, W) hides, (B,)."""
    grid = (points / CANVAS * 2 - 1)[:, None]
    return F.grid_sample(cover, grid, align_corners=False)[:, 0, 0].mean(1)


def _shuffled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Portraits cut into 16 squares that change places: every feature is there, no face is."""
    order = torch.randperm(16, generator=generator)
    tiles = images.view(-1, 3, 4, 32, 4, 32).permute(0, 1, 2, 4, 3, 5).reshape(-1, 3, 16, 32, 32)[:, :, order]
    return tiles.view(-1, 3, 4, 4, 32, 32).permute(0, 1, 2, 4, 3, 5).reshape(-1, 3, 128, 128)


def _fit(images: Tensor) -> Tensor:
    return F.interpolate(images, (CANVAS, CANVAS), mode="bilinear", antialias=True)


def _through(images: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Shrink to `size`, antialiased, and enlarge again."""
    return F.interpolate(
        F.interpolate(images, size, mode="bilinear", antialias=True), images.shape[-2:], mode=mode
    )


def _move(images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn, scale and shift a little: images (B, 3, 128, 128), labels (B, 128, 128)."""
    rand = torch.rand(4, len(images), generator=generator) * 2 - 1
    scale, angle = torch.exp(0.12 * rand[0]), 0.12 * rand[1]
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    middle = torch.full((2, 1), PORTRAIT_SIDE / 2)
    shift = middle - turn @ middle + 5 * rand[2:].T[..., None]
    matrix = torch.cat([turn, shift], -1)
    moved = warp(labels[:, None].float(), matrix, PORTRAIT_SIDE, mode="nearest")[:, 0].long()
    return warp(images, matrix, PORTRAIT_SIDE), moved


def _mean(values: object) -> float:
    numbers = [float(v) for v in values]  # type: ignore[attr-defined]
    return sum(numbers) / len(numbers) if numbers else float("nan")
