"""The shipped workflows before they are drawn: their API graphs, and where things stand on the canvas.

Each module has `GRAPH` (id -> node), `PLACES` (id -> x, y, width, height) or `COLUMNS` (lists of ids, stacked by their own
heights), `GROUPS` (title, x, y, width, height, colour; with columns: title, first and last column, colour), `NOTES` (title, x,
y, width, height, text), `VIEW` (canvas region that the picture shows) and `RUNS`: whether the picture shows results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.host.server import Graph


def numbered(graph: Graph, columns: Sequence[Sequence[str]]) -> tuple[Graph, list[list[str]]]:
    """A graph of names as one of numbers, which the page wants, and its columns; numbers follow the columns."""
    names = [name for column in columns for name in column]
    assert sorted(names) == sorted(graph), set(names) ^ set(graph)
    ids = {name: str(place) for place, name in enumerate(names, start=1)}

    def renamed(value: Any) -> Any:
        return [ids[value[0]], value[1]] if isinstance(value, list) else value

    made = {
        ids[name]: {
            **graph[name],
            "inputs": {key: renamed(one) for key, one in graph[name]["inputs"].items()},
        }
        for name in names
    }
    return made, [[ids[name] for name in column] for column in columns]
