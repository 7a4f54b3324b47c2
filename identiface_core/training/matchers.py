"""Training the two matchers: pictures of one person find each other among a batch, and the person among
everybody.

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
        shift=0.020, rotate=4.0, colour=0.5, hue=0.15, grey=0.08, blur=0.12, coarse=0.15,
        erase=0.08, compress=0.08,
    ),
    "b": MatcherPlan(
        seed=72, net={"widths": (32, 56, 96, 144), "blocks": (1, 1, 2, 1), "stem": "unshuffle"},
        shift=0.015, rotate=3.0, colour=0.7, hue=0.25, grey=0.12, blur=0.15, coarse=0.10,
        erase=0.12, compress=0.06,
    ),
}  # fmt: skip


class PeopleBank(nn.Module):
    """What everybody looked like when last seen: (people, D) unit vectors, zero for who was not seen yet."""

    def __init__(self, people: int, dimension: int) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(people, dimension))
        self.vectors: Tensor

    @torch.no_grad()
    def remember(self, people: Tensor, vectors: Tensor) -> None:
        """Move the memory of people (B,) half way to vectors (B, D)."""
        old = self.vectors[people]
        share = torch.where(old.abs().sum(1, keepdim=True) > 0, 0.5, 1.0)
        self.vectors[people] = F.normalize(torch.lerp(old, F.normalize(vectors.float()), share))


class MatcherStage(Stage):
    """Two pictures of each person of the batch must find each other among all pictures of the batch (InfoNCE), and their
    person, by a margin, in the memory of everybody's last embedding.

    Learned proxies (CosFace) had learned nothing after hundreds of steps with thousands of people of three pictures each;
    pairs learn from the first, and a memory is a proxy that needs no learning. Look-alike pressure: half of each batch's
    people are drawn as groups that share sex, skin, hair, glasses and beard, so that these cannot decide, and shape must.
    """

    scale = 14.0
    bank_scale = 20.0
    margin = 0.10
    """By how much, in cosine, a picture must be nearer to its own person's memory than to anybody else's."""
    batch = 64
    """People per step; two pictures each."""
    group = 8
    """People of a group of look-alikes."""

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
        self.lr, self.weight_decay, self.ema, self.autocast, self.clip = 2.5e-3, 0.02, 0.99, True, 5.0
        self.warmup, self.validate_every = 50, 200
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net = FaceNet(**plan.net)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.bank = PeopleBank(world.people_total, self.net.config["dimension"])
        self.modules = nn.ModuleDict({"net": self.net, "bank": self.bank})
        self._look()

    def _look(self) -> None:
        self._looks = torch.from_numpy(np.array(self.world.attributes[:, [slot(name) for name in LOOKS]]))

    def loss(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """One batch of people, two different pictures of each."""
        people = self._choose(step, generator)
        device = next(self.net.parameters()).device
        with torch.autocast("cpu", enabled=False):
            first, second = (
                self._augment(pictures, points, generator)
                for pictures, points in pairs_of(self.world, people, generator)
            )
        vectors = self.net(torch.cat((first, second)).to(device, memory_format=torch.channels_last))
        with torch.autocast(device.type, enabled=False):
            count = len(people)
            scores = self.scale * (vectors.float() @ vectors.float().T)
            scores = scores - 1e4 * torch.eye(
                2 * count, device=device
            )  # nobody finds himself in the same picture
            mates = torch.arange(2 * count, device=device).roll(count)
            pairs = F.cross_entropy(scores, mates)
            right = (scores.argmax(1) == mates).float().mean()
            everybody = self._among_everybody(vectors.float(), people.to(device))
        return {"loss": pairs + everybody, "pairs": pairs, "everybody": everybody, "right": right}

    def _among_everybody(self, vectors: Tensor, people: Tensor) -> Tensor:
        """Loss of finding one's person in the memory; zero for people never seen before. Remembers them afterwards."""
        bank, twice = self.bank.vectors.clone(), people.repeat(2)
        known = bank.abs().sum(1) > 0
        scores = (vectors @ bank.T).masked_fill(~known, -1.0)
        scores = scores - self.margin * F.one_hot(twice, len(bank))
        losses = F.cross_entropy(self.bank_scale * scores, twice, reduction="none")
        self.bank.remember(people, vectors.detach().unflatten(0, (2, -1)).mean(0))
        return (losses * known[twice]).mean()

    def _choose(self, step: int, generator: torch.Generator) -> Tensor:
        """(B,) people, none twice; from a tenth of the schedule on half of them are groups of look-alikes."""
        if self.world.people < self.world.people_total and step % 50 == 0:
            self.world.refresh()
            self._look()
        if self.world.people < 2:
            raise ValueError(
                f"{self.world.folder} holds no finished shard of people yet: draw the world first"
            )
        order = torch.randperm(self.world.people, generator=generator)
        if self.progress < 0.1:
            return order[: self.batch]
        leaders = order[: self.batch // 2 // self.group]
        same = (self._looks[leaders][:, None] == self._looks[None, : self.world.people]).float().sum(2)
        tie_break = torch.rand(same.shape, generator=generator)
        alike = (same + tie_break).topk(self.group, dim=1).indices.flatten()
        people, seen = [], set()
        for person in [*alike.tolist(), *order.tolist()]:
            if person not in seen:
                seen.add(person)
                people.append(person)
            if len(people) == self.batch:
                break
        return torch.tensor(people)

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
        x = augment.sometimes(x, 0.1, g, lambda y: augment.noise(y, g, 0.04))
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


def pairs_of(world: World, people: Tensor, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Two different random pictures (views, or the canonical portrait) of each person, at 64 px, and their points.

    people (B,) -> twice (pictures (B, 3, 64, 64) in [0, 1], points (B, 5, 2) in 128 px pictures).
    """
    rows, views = people.numpy(), world.info.views
    order = torch.rand(len(rows), views + 1, generator=generator).argsort(1)[:, :2].numpy()
    drawn = []
    for view in order.T:
        plain = view == views
        seen = np.where(plain, 0, view)
        pictures, points = world.views_small[rows, seen], world.view_points[rows, seen]
        pictures[plain] = world.canonical_small[rows[plain]]
        points[plain] = world.canonical_points[rows[plain]]
        drawn.append((floats(pictures), torch.from_numpy(points)))
    return drawn


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
