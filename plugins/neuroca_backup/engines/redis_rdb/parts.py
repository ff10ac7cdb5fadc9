"""Parts of a Redis backup: a logical database, or the keys of one that match a pattern.

The words are `1` or `db1` for a database, `1:memory:stm:*` for keys, in the glob of SCAN MATCH.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.redis_patterns import matches

_WORD = re.compile(r"(?:db)?(\d{1,9})(?::(.+))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """Keys of the database `number` that match `pattern`; all of them where it is `*`."""

    number: int
    pattern: bytes

    def has(self, key: bytes) -> bool:
        """Return whether `key` matches, by the rules of SCAN."""
        return matches(self.pattern, key)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is restored; `whole` means all databases of the backup, and nothing else."""

    chosen: tuple[Part, ...]
    whole: bool

    def has(self, number: int, key: bytes) -> bool:
        """Return whether a key of the database `number` belongs to what is restored."""
        return self.whole or any(p.number == number and p.has(key) for p in self.chosen)


def parts(words: Sequence[str], facts: Mapping[str, Any]) -> Parts:
    """Return what the words name; without any, everything.

    Raises:
        ConfigurationError: A word is no part, or the backup has no such database.
    """
    present = [int(number) for number in facts["databases"]]
    if not words:
        return Parts(tuple(Part(number, b"*") for number in present), whole=True)
    chosen = []
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None or int(match[1]) not in present:
            held = ", ".join(f"db{number}" for number in present) or "none"
            raise ConfigurationError(
                f"{word!r} is no part of this backup of Redis",
                remedy=f"Write a database as db1, or keys of one as 1:pattern*. It holds: {held}.",
                value=word,
            )
        chosen.append(Part(int(match[1]), (match[2] or "*").encode()))
    return Parts(tuple(chosen), whole=False)
