"""Training the two matchers: CosFace (arXiv 1801.09414) over the people of the training world.

A and B must not be copies, for one guides and the other judges: they differ in widths, stem, initial weights,
order of people, and in what they are taught to ignore (A: mostly framing and blur; B: mostly colour and
holes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.evidence.lexicon import slot
from identiface_core.matchers.network import FaceNet
from identiface_core.training import augment
from identiface_core.training.data import World, floats
from identiface_core.training.loop import Stage

LOOKS: tuple[str, ...] = ("sex", "skin tone", "hair colour", "hair length", "glasses", "beard")
"""What makes two people alike at a glance."""


@dataclass(frozen=True)
class MatcherPlan:
    """How one matcher is trained; see `augment` for the figures. Chances are per picture."""

    seed: int
    net: dict[str, Any]
    shift: float
    rotate: float
    colour: float
    hue: float
    grey: float
    blur: float
    coarse: float
    erase: float
    compress: float


PLANS: dict[str, MatcherPlan] = {
    "a": MatcherPlan(
        seed=71, net={"widths": (24, 48, 96, 160), "blocks": (1, 2, 2, 1), "stem": "stride"},
        shift=0.025, rotate=5.0, colour=0.8, hue=0.3, grey=0.10, blur=0.2, coarse=0.25,
        erase=0.15, compress=0.15,
    ),
    "b": MatcherPlan(
        seed=72, net={"widths": (32, 56, 96, 144), "blocks": (1, 1, 2, 1), "stem": "unshuffle"},
        shift=0.020, rotate=4.0, colour=1.1, hue=0.5, grey=0.20, blur=0.25, coarse=0.15,
        erase=0.25, compress=0.10,
    ),
}  # fmt: skip


class MatcherStage(Stage):
    """CosFace with scale 24 and a margin that grows to .30 over the first quarter.

    Look-alike pressure: a person who shares sex, skin, hair, glasses and beard with the one shown gets up to
    `alike` added to the cosine, so that these cannot decide, and shape must.
    """

    scale = 24.0
    margin = 0.30
    alike = 0.10
    batch = 96

    def __init__(
        self,
        world: World,
        which: str,
        validation: World | None = None,
        alike: World | None = None,
        *,
        steps: int = 6000,
    ) -> None:
        self.plan = plan = PLANS[which]
        self.name = f"matcher-{which}"
        self.world, self.validation, self.alike_world = world, validation, alike
        self.steps, self.seed = steps, plan.seed
        self.lr, self.weight_decay, self.ema, self.autocast, self.clip = 2.5e-3, 0.02, 0.998, True, 5.0
        self.warmup, self.validate_every = 200, 500
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net = FaceNet(**plan.net)
            head = nn.Linear(net.config["dimension"], world.people_total, bias=False)
            nn.init.normal_(head.weight)
        self.net, self.head = net.to(memory_format=torch.channels_last), head  # type: ignore[call-overload]
        self.modules = nn.ModuleDict({"net": self.net, "head": head})
        columns = [slot(name) for name in LOOKS]
        self._looks = torch.from_numpy(np.array(world.attributes[:, columns]))

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of random people, one random picture each."""
        people = choose_people(self.world, step, self.batch, generator)
        with torch.autocast("cpu", enabled=False):
            pictures = self._augment(*portraits_of(self.world, people, generator), generator)
        device = self.head.weight.device
        vectors = self.net(pictures.to(device, memory_format=torch.channels_last))
        people = people.to(device)
        with torch.autocast(device.type, enabled=False):
            cosine = vectors.float() @ F.normalize(self.head.weight).T
            grown = min(self.progress / 0.25, 1.0)
            rows = torch.arange(len(people), device=device)
            raised = cosine + grown * self.alike * self._likeness(people)
            raised[rows, people] = cosine[rows, people] - grown * self.margin
            loss = F.cross_entropy(self.scale * raised, people)
            right = (raised.argmax(1) == people).float().mean()
        return {"loss": loss, "right": right}

    def _likeness(self, people: Tensor) -> Tensor:
        """(B, N) share of LOOKS that two people have in common, squared."""
        if self._looks.device != people.device:
            self._looks = self._looks.to(people.device)
        shared = (self._looks[people][:, None] == self._looks[None]).float().mean(2)
        return shared.square()

    def _augment(self, x: Tensor, points: Tensor, generator: torch.Generator) -> Tensor:
        plan, g = self.plan, generator
        matrix = augment.alignment_jitter(points, x.shape[-1], g, shift=plan.shift, rotate=plan.rotate)
        x = augment.place(x, matrix)
        x = augment.sometimes(x, 0.5, g, lambda y: y.flip(3))
        x = augment.sometimes(x, plan.hue, g, lambda y: augment.hue(y, g))
        x = augment.colour(x, g, strength=plan.colour, grey=plan.grey)
        x = augment.sometimes(x, plan.blur, g, lambda y: augment.blur(y, g))
        x = augment.sometimes(x, plan.coarse, g, lambda y: augment.coarse(y, g))
        x = augment.sometimes(x, plan.compress, g, lambda y: augment.compress(y, g))
        x = augment.sometimes(x, 0.2, g, lambda y: augment.noise(y, g, 0.04))
        return augment.sometimes(x, plan.erase, g, lambda y: augment.erase(y, g))

    def validate(self) -> dict[str, float]:
        """Rank-1 and rank-10 of unseen people: gallery one view, probe another; and of look-alikes."""
        if self.validation is None or self.validation.refresh() < 2:
            return {}
        gallery, probe, frontal = (embed_views(self.net, self.validation, view) for view in (0, 1, None))
        blurred = embed_views(self.net, self.validation, 1, blurred=True)
        figures = identification(probe, gallery)
        figures["rank1_canonical"] = identification(frontal, gallery)["rank1"]
        figures["rank1_blurred"] = identification(blurred, gallery)["rank1"]
        if self.alike_world is not None and self.alike_world.refresh() > 1:
            pair = (embed_views(self.net, self.alike_world, view) for view in (1, 0))
            figures |= {f"{k}_alike": v for k, v in identification(*pair).items() if k.startswith("rank")}
        return figures


def portraits_of(world: World, people: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random picture (a view, or now and then the canonical portrait) of each person, at 64 px, and its
    points.

    people (B,) -> pictures (B, 3, 64, 64) in [0, 1], points (B, 5, 2) in 128 px pictures.
    """
    rows = people.numpy()
    view = torch.randint(0, world.info.views + 1, (len(people),), generator=generator).numpy()
    plain = view == world.info.views
    seen = np.where(plain, 0, view)
    pictures, points = world.views_small[rows, seen], world.view_points[rows, seen]
    pictures[plain], points[plain] = world.canonical_small[rows[plain]], world.canonical_points[rows[plain]]
    return floats(pictures), torch.from_numpy(points)


@torch.no_grad()
def embed_views(net: FaceNet, world: World, view: int | None, *, blurred: bool = False) -> Tensor:
    """(people, D) embeddings of one view of everybody (None: the canonical portrait), aligned by the true
    points.
    """
    device = next(net.parameters()).device
    out = []
    for start in range(0, world.people, 100):
        rows = slice(start, min(start + 100, world.people))
        small = world.canonical_small[rows] if view is None else world.views_small[rows, view]
        points = world.canonical_points[rows] if view is None else world.view_points[rows, view]
        exact = torch.Generator().manual_seed(-1 if view is None else view)
        matrix = augment.alignment_jitter(
            torch.from_numpy(np.array(points)),
            small.shape[-1],
            exact,
            aligned=1,
            landmark=0.7,
            shift=0,
            rotate=0,
            scale=0,
        )
        portraits = augment.place(floats(small), matrix)
        if blurred:
            portraits = augment.blur(portraits, torch.Generator().manual_seed(1), widest=1.0)
        out.append(net(portraits.to(device)).cpu())
    return torch.cat(out)


def identification(probes: Tensor, gallery: Tensor) -> dict[str, float]:
    """Closed-set identification, row i of both being the same person: rank-1 and rank-10 rates, mean
    cosines.
    """
    scores = probes @ gallery.T
    mates = scores.diagonal()
    ranks = (scores > mates[:, None]).sum(1)
    n = len(scores)
    return {
        "rank1": float((ranks < 1).float().mean()),
        "rank10": float((ranks < 10).float().mean()),
        "mates": float(mates.mean()),
        "strangers": float((scores.sum() - mates.sum()) / max(n * (n - 1), 1)),
    }


def choose_people(world: World, step: int, batch: int, generator: torch.Generator) -> Tensor:
    """(B,) people, none twice; those still being drawn join as they come."""
    if world.people < world.people_total and step % 50 == 0:
        world.refresh()
    if world.people < 2:
        raise ValueError(f"{world.folder} holds no finished shard of people yet: draw the world first")
    return torch.randperm(world.people, generator=generator)[: min(batch, world.people)]
