"""Counts and the fingerprint of a tree: what the manifest says of it, whatever its size."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from neuroca_backup.trees.entries import Entry, Kind, order, shown

_WORDS = {
    Kind.FILE: "files",
    Kind.DIRECTORY: "directories",
    Kind.SYMLINK: "symlinks",
    Kind.HARDLINK: "hardlinks",
}
_EXAMPLES = 5


class Totals:
    """Grows with every entry, which have to come in their order."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(_WORDS.values(), 0)
        self._bytes = 0
        self._sections: dict[str, dict[str, int]] = {}
        self._hash = hashlib.sha256()
        self._last: tuple[str, ...] = ()

    def add(self, entry: Entry) -> None:
        """Count one more entry.

        Raises:
            ValueError: It does not come after the one before it.
        """
        place = order(entry.path)
        if place <= self._last:
            raise ValueError(f"{shown(entry.path)} is not in its order")
        self._last = place
        self._counts[_WORDS[entry.kind]] += 1
        self._bytes += entry.size
        self._hash.update(entry.fingerprint())
        if entry.section:
            section = self._sections.setdefault(entry.section, {"entries": 0, "bytes": 0})
            section["entries"] += 1
            section["bytes"] += entry.size

    @property
    def entries(self) -> int:
        """How many paths there are."""
        return sum(self._counts.values())

    @property
    def fingerprint(self) -> str:
        """The SHA-256 (hex) of all contents and metadata, but no times."""
        return self._hash.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return `files`, `directories`, `symlinks`, `hardlinks`, `bytes`, sections, fingerprint.

        `sections` has `entries` and `bytes` by section.
        """
        return {
            **self._counts,
            "bytes": self._bytes,
            "sections": {name: dict(one) for name, one in sorted(self._sections.items())},
            "fingerprint": self.fingerprint,
        }


def said(facts: Mapping[str, Any]) -> str:
    """Return what `Totals.facts` counted in words, e.g. `3 directories, 9 files, 12 KB`."""
    counted = [f"{facts[word]:,} {word}" for word in ("directories", "files") if facts[word]]
    links = facts["symlinks"] + facts["hardlinks"]
    counted += [f"{links:,} links"] if links else []
    return f"{', '.join(counted) or 'no files'}, {facts['bytes']:,} bytes"


class Remarks:
    """What was left out or done otherwise, by reason: how often, and the first paths.

    `prefix` is put before each path, such as "/".
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, path: str) -> None:
        """Remember one; `reason` continues a sentence that begins with the paths."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(shown(self._prefix + path))

    def sentences(self) -> tuple[str, ...]:
        """Return a sentence a reason."""
        return tuple(
            ", ".join(self._examples[reason])
            + (f" and {count - _EXAMPLES:,} more" if count > _EXAMPLES else "")
            + f" {reason}"
            for reason, count in sorted(self._counts.items())
        )
