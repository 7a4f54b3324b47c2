"""Exact search by inner product. An approximate index can miss a true mate outright, so there is none
here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from identiface_core.errors import GalleryError, InputError

from .store import Gallery
from .values import Candidate, Candidates

if TYPE_CHECKING:
    from identiface_core.matchers.base import Embedding
    from identiface_core.matchers.calibration import Calibration


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise GalleryError(
            "searching a gallery needs faiss, which is not installed: pip install faiss-cpu"
        ) from error
    return faiss


def search(
    gallery: Gallery,
    query: Embedding,
    k: int = 10,
    *,
    calibration: Calibration | None = None,
    exclude: Collection[str] = (),
    source: str = "portrait",
) -> Candidates:
    """The `k` people most similar to `query`, best first; equal scores in the order of enrolment.

    `calibration` gives each score its false-positive identification rate at the size of the gallery searched.
    `exclude` names people who are left out (unknown names are an error: a typo must not quietly include
    someone). Raises `GalleryError` for an empty gallery or another matcher's query, `InputError` for `k` < 1.
    """
    if k < 1:
        raise InputError(f"a candidate list needs at least one place; k = {k}")
    templates = gallery.templates_of(query.matcher, dimension=int(query.vector.numel())).numpy()
    left_out = set(exclude)
    unknown = sorted(left_out.difference(gallery.people))
    if unknown:
        raise GalleryError(
            f"cannot exclude {unknown[0]!r}: the gallery of {len(gallery)} people has nobody of that name"
        )
    kept = np.array([i for i, name in enumerate(gallery.people) if name not in left_out], dtype=np.int64)
    if kept.size == 0:
        raise GalleryError(
            "the gallery has nobody to search: enrol people with `identiface gallery enrol FOLDER --out FILE`"
        )

    index = _faiss().IndexFlatIP(templates.shape[1])
    index.add(np.ascontiguousarray(templates[kept]))
    vector = _unit(query)
    take = min(k + 16, kept.size)
    scores, rows = index.search(vector, take)
    # faiss cuts ties at the end of its list arbitrarily: widen until the cut does not fall into a tie.
    while take < kept.size and scores[0, -1] == scores[0, min(k, take) - 1]:
        take = min(2 * take, kept.size)
        scores, rows = index.search(vector, take)

    order = np.lexsort((rows[0], -scores[0]))[:k]
    size = int(kept.size)
    entries = []
    for rank, place in enumerate(order, start=1):
        row, score = int(kept[rows[0, place]]), float(scores[0, place])
        fpir = None if calibration is None else float(calibration.fpir(score, size))
        entries.append(Candidate(rank, gallery.people[row], score, fpir, gallery.origins[row] == "generated"))
    return Candidates(tuple(entries), query.matcher, source, size)


def _unit(query: Embedding) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    vector = query.vector.detach().float().cpu()
    length = float(vector.norm())
    if vector.dim() != 1 or not 0.0 < length < float("inf"):
        raise InputError(
            f"a query embedding must be one finite, non-zero vector (D,); "
            f"got shape {tuple(vector.shape)}, length {length:g}: embed a face first"
        )
    row: np.ndarray[tuple[int, int], np.dtype[np.float32]] = (vector / length).numpy()[None]
    return row
