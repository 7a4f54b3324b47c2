"""A run that ended early goes on from its journal: the same results, nothing done twice, nothing mixed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from identiface_core.errors import InputError
from identiface_core.evaluation import suite
from identiface_core.evaluation.journal import Journal
from identiface_core.evaluation.part_words import Moved
from identiface_core.evaluation.scores import Scores
from identiface_core.evaluation.suite import Search, Searched, WordsPiece

SEARCH = Search(404, "middle", 7, ("lq", "rounds"))
FOUND = Searched(
    SEARCH,
    "person-0007",
    {"sex": "man"},
    (0.1, 1 / 3),
    {
        "lq": Scores(0.25, 1, 0.5, 3, 0.4999999999999999, 2, 0.3, 21.0, 0.7, (1e-9, 0.2)),
        "rounds": Scores(2.0, 2, 0.5, rank=1, trail=(("overview", 4), ("eyes", 1))),
    },
)
PIECE = WordsPiece(10, 1)
MOVED = [Moved("glasses", ((0.1, 0.9),), (0.2, 0.4), (0, 1), 0.0)]
ABOUT = {"weights": {"a": "1"}}


def _journal(
    path: Path, about: dict[str, object] = ABOUT
) -> Journal[Search | WordsPiece, Searched | list[Moved]]:
    return Journal(path, about, suite._read)


def test_what_is_kept_comes_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = _journal(path)
    assert first.done([SEARCH, PIECE]) == {}
    first.add(SEARCH, FOUND)
    first.add(PIECE, MOVED)
    other = Search(404, "poor", 7, ("lq", "rounds"))
    assert _journal(path).done([other, PIECE, SEARCH]) == {1: MOVED, 2: FOUND}


def test_a_line_cut_off_by_a_kill_is_dropped_and_the_journal_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    _journal(path).add(SEARCH, FOUND)
    with path.open("a") as file:
        file.write('{"job": {"is": "WordsP')
    again = _journal(path)
    again.add(PIECE, MOVED)
    assert _journal(path).done([SEARCH, PIECE]) == {0: FOUND, 1: MOVED}


@pytest.mark.parametrize("before", ['{"weights": {"a": "2"}}\n', "somebody's notes\n", "notes"])
def test_a_journal_of_something_else_is_refused_and_kept(tmp_path: Path, before: str) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(before)
    with pytest.raises(InputError, match="other weights"):
        _journal(path)
    assert path.read_text() == before


def test_without_a_file_nothing_is_kept() -> None:
    journal = Journal[Search, Searched](None, ABOUT, suite._read)  # type: ignore[arg-type]
    journal.add(SEARCH, FOUND)
    assert journal.done([SEARCH]) == {}
