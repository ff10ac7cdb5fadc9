"""How much a backup holds, in the nouns of its engine: the counts in the facts of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_EACH = "*"
# The places of counts in the facts of all engines, and what is counted there.
_COUNTED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("rows", ("databases", _EACH, "tables", _EACH, "rows")),
    ("rows", ("tables", _EACH, "rows")),
    ("documents", ("collections", _EACH, "documents")),
    ("vectors", ("collections", _EACH, "count")),
    ("keys", ("databases", _EACH, "keys")),
    ("files", ("files",)),
    ("files", ("categories", _EACH, "files")),
)


def content(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return how many rows, documents, vectors, keys or files there are; {} where none is told."""
    found: dict[str, int] = {}
    for noun, place in _COUNTED:
        for count in _at(facts, place):
            if isinstance(count, int) and not isinstance(count, bool):
                found[noun] = found.get(noun, 0) + count
    return found


def _at(data: Any, place: tuple[str, ...]) -> Iterator[Any]:
    if not place:
        yield data
    elif isinstance(data, Mapping):
        word, rest = place[0], place[1:]
        for value in data.values() if word == _EACH else [data[word]] if word in data else []:
            yield from _at(value, rest)
