"""TOML by the standard library, or by its backport on Python 3.10."""

from __future__ import annotations

import sys
from typing import Any


def parse_toml(data: bytes) -> dict[str, Any]:
    """The tables in UTF-8 `data` (a byte-order mark is skipped); ValueError says where it is no TOML."""
    if sys.version_info >= (3, 11):
        import tomllib as reader
    else:
        import tomli as reader
    try:
        return reader.loads(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
