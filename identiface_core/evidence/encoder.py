"""From evidence straight to a matcher's embedding: the first query of every search, and the rival of every
generated face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from identiface_core.evidence.lexicon import SLOTS
from identiface_core.evidence.words import WIDTH

if TYPE_CHECKING:
    from identiface_core.evidence.values import Evidence
    from identiface_core.evidence.words import TextEncoder

LQ_SIDE = 32
SKETCH_SIDE = 64
KINDS: tuple[str, ...] = ("lq", "sketch", "words")
"""Order of the columns of `present`."""


def resize_lq(lq: Tensor) -> Tensor:
    """LQ photos (B, 3, h, w) of any size to the (B, 3, 32, 32) that the encoder reads: bicubic, antialiased
    when shrinking.
    """
    if lq.shape[-2:] == (LQ_SIDE, LQ_SIDE):
        return lq
    return F.interpolate(lq, (LQ_SIDE, LQ_SIDE), mode="bicubic", antialias=True, align_corners=False).clamp(
        0, 1
    )


def resize_sketch(sketch: Tensor) -> Tensor:
    """Sketches (B, 1, H, W) to the (B, 1, 64, 64) that the encoder reads, antialiased."""
    if sketch.shape[-2:] == (SKETCH_SIDE, SKETCH_SIDE):
        return sketch
    return F.interpolate(
        sketch, (SKETCH_SIDE, SKETCH_SIDE), mode="bilinear", antialias=True, align_corners=False
    )


class EvidenceEncoder(nn.Module):
    """LQ photo, sketch and words, any of them missing, to a unit vector in a matcher's space.

    Two convolutional towers bring the sketch (64 px) and the LQ photo (32 px) to 8 x 8 cells, where they are
    joined; the words set the scale and shift of the joint channels and add their own vector at the end. What
    is missing is replaced by learned null features.

    dimension: of the matcher's embeddings. sketch_widths: channels at 32, 16 and 8 px. lq_widths: at 32, 16
    and 8 px. trunk: joint channels. words: length of the word vector.
    """

    kind = "evidence-encoder"

    def __init__(
        self,
        *,
        dimension: int = 128,
        sketch_widths: tuple[int, int, int] = (24, 48, 96),
        lq_widths: tuple[int, int, int] = (24, 48, 96),
        trunk: int = 144,
        words: int = 192,
        slots: int = SLOTS,
        width: int = WIDTH,
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "dimension": dimension,
            "sketch_widths": list(sketch_widths),
            "lq_widths": list(lq_widths),
            "trunk": trunk,
            "words": words,
            "slots": slots,
            "width": width,
        }
        self.sketch_tower = nn.Sequential(
            nn.PixelUnshuffle(2),
            *_convolution(4, sketch_widths[0]),
            _Residual(sketch_widths[0]),
            *_rest(sketch_widths),
        )
        self.lq_tower = nn.Sequential(*_convolution(3, lq_widths[0]), *_rest(lq_widths))
        self.sketch_null = nn.Parameter(0.1 * torch.randn(sketch_widths[2], 8, 8))
        self.lq_null = nn.Parameter(0.1 * torch.randn(lq_widths[2], 8, 8))
        self.word_slots = nn.Parameter(torch.randn(slots, width, 8) * width**-0.5)
        self.word_mix = nn.Sequential(nn.Linear(slots * 8, words), nn.GELU(), nn.Linear(words, words))
        self.word_null = nn.Parameter(0.1 * torch.randn(words))
        self.modulate = nn.Linear(words, 2 * trunk)
        self.join = nn.Conv2d(sketch_widths[2] + lq_widths[2] + 2, trunk, 3, padding=1)
        self.join_norm = nn.BatchNorm2d(trunk, affine=False)
        self.fine = _Residual(trunk)
        self.down = nn.Sequential(*_convolution(trunk, trunk, stride=2), _Residual(trunk))
        self.head = nn.Linear(trunk * 16, 2 * dimension)
        self.out = nn.Sequential(
            nn.LayerNorm(2 * dimension + words), nn.Linear(2 * dimension + words, 2 * dimension), nn.GELU(),
            nn.Linear(2 * dimension, dimension),
        )  # fmt: skip
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, lq: Tensor, sketch: Tensor, words: Tensor, present: Tensor) -> Tensor:
        """lq (B, 3, 32, 32), sketch (B, 1, 64, 64) in [0, 1], words (B, SLOTS, WIDTH), present (B, 3) bool ->
        (B, D).

        Columns of `present` follow `KINDS`; what is absent may hold any finite values. Rows of the result
        have length 1.
        """
        has_lq, has_sketch, has_words = (present[:, i].view(-1, 1, 1, 1) for i in range(3))
        seen = torch.where(has_lq, self.lq_tower((lq - 0.5) * 4.0), self.lq_null)
        drawn = torch.where(has_sketch, self.sketch_tower((1.0 - sketch) * 3.0), self.sketch_null)
        said = self.word_mix(torch.einsum("bsw,swk->bsk", words, self.word_slots).flatten(1))
        said = torch.where(has_words.view(-1, 1), said, self.word_null)
        flags = torch.cat((has_lq, has_sketch), 1).to(seen).expand(-1, -1, 8, 8)
        scale, shift = self.modulate(said)[:, :, None, None].chunk(2, 1)
        h = self.join_norm(self.join(torch.cat((seen, drawn, flags), 1)))
        h = self.down(self.fine(F.relu(h * (1 + scale) + shift)))
        vector = self.out(torch.cat((self.head(h.flatten(1)), said), 1))
        return F.normalize(vector.float(), dim=1)

    @torch.no_grad()
    def query(self, evidence: Evidence, text_encoder: TextEncoder) -> Tensor:
        """(D,) unit vector: whom this evidence is looking for. LQ photos of any size, 128 px sketch,
        description.

        The mean over the pictures as they are and mirrored: which side is which says nothing of who it is.
        """
        like = self.word_null
        lq, sketch, words = (
            like.new_zeros(1, 3, LQ_SIDE, LQ_SIDE),
            like.new_zeros(1, 1, SKETCH_SIDE, SKETCH_SIDE),
            "",
        )
        if evidence.lq is not None:
            lq = resize_lq(evidence.lq[None].to(like))
        if evidence.sketch is not None:
            sketch = resize_sketch(evidence.sketch[None].to(like))
        if evidence.description is not None:
            words = evidence.description.full_prompt()
        present = torch.tensor([[kind in evidence.kinds for kind in KINDS]], device=like.device)
        said = text_encoder.encode([words]).to(like)
        both = (torch.cat((x, x.flip(3))) for x in (lq, sketch))
        vectors: Tensor = self(*both, said.expand(2, -1, -1), present.expand(2, -1))
        return F.normalize(vectors.mean(0), dim=0)


def _convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _rest(widths: tuple[int, int, int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:], strict=True):
        layers += [*_convolution(before, after, stride=2), _Residual(after)]
    return layers


class _Residual(nn.Module):
    """relu(x + BN(conv(relu(BN(conv(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(width, width),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))
