"""Proof that nothing is left: personal values seen before are searched for in the whole copy.

They are in memory alone, a bounded number of them, and are in no record and no message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from neuroca_backup.errors import PermanentError

MOST_OF_A_RULE = 10  # values that are kept of each rule
_SHORTEST = 6  # bytes: what is shorter is found by chance
_DIGITS = 9  # a number is only telling from this length on
_LONGEST = 120
# Between two of these no way of writing a text down changes it.
_PLAIN = re.compile(r"[^\x00-\x1f\x7f\"'\\/{}<>,]+")


@dataclass(slots=True)
class Evidence:
    """The personal values that were seen, by the place of their rule; never shown."""

    seen: dict[str, set[str]] = field(default_factory=dict, repr=False)
    most: int = MOST_OF_A_RULE

    def add(self, place: str, value: Any) -> None:
        """Keep `value`, or the texts in it, until there are enough of its place."""
        kept = self.seen.setdefault(place, set())
        for text in _texts(value):
            if len(kept) >= self.most:
                return
            kept.add(text)

    def wants(self, place: str) -> bool:
        """Return whether more values of `place` are of use."""
        return len(self.seen.get(place, ())) < self.most

    @property
    def needles(self) -> dict[bytes, str]:
        """What is searched for, each with the place that it came from."""
        return {
            needle: place
            for place, values in self.seen.items()
            for value in values
            for needle in _needles(value)
        }

    @property
    def values(self) -> int:
        """How many different values are searched for; the others are too short to be told apart."""
        return sum(any(True for _ in _needles(v)) for vs in self.seen.values() for v in vs)


def require_replaced(before: Evidence, after: Evidence) -> None:
    """Raise `PermanentError` where a value that stood at a place before still stands there."""
    for place, values in after.seen.items():
        if values & before.seen.get(place, set()):
            raise PermanentError(
                f"Values at {place} are what they were before sanitising",
                remedy="Something undoes the change, such as a trigger: look at what writes there.",
                place=place,
            )


def search(pieces: Iterable[bytes], needles: dict[bytes, str]) -> int:
    """Read everything; return how many bytes that were.

    A value never begins in one piece and ends in the next: each is a whole row, document or key.

    Raises:
        PermanentError: Something personal is still there; names the place it came from alone.
    """
    read = 0
    for piece in pieces:
        read += len(piece)
        # One after another they are found ten times as fast as by one expression of all.
        found = next((needle for needle in needles if needle in piece), None)
        if found is not None:
            place = needles[found]
            raise PermanentError(
                f"What stood at {place} is still somewhere in the sanitised copy",
                remedy="Another place holds the same values, such as a column that was computed "
                "from it, a copy or a log: give that a rule of `sanitise`, too.",
                place=place,
            )
    return read


def _texts(value: Any) -> Iterator[str]:
    if not value:
        return
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "replace")
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, int | float | UUID) and not isinstance(value, bool):
        yield str(value)


def _needles(value: str) -> Iterator[bytes]:
    """Yield the ways in which the longest plain stretch of `value` may be written down."""
    stretch = max(_PLAIN.findall(value), key=len, default="").strip()[:_LONGEST]
    stretch = stretch.replace("\ufffd", "")
    data = stretch.encode()
    if len(data) < (_DIGITS if stretch.replace(".", "").isdigit() else _SHORTEST):
        return
    yield data
    escaped = json.dumps(stretch)[1:-1].encode()
    if escaped != data:
        yield escaped
