"""A set that does not grow in memory: which things have been seen, on disk, as keyed digests."""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import tempfile
from types import TracebackType
from typing import Self

_KEPT = 2000  # digests in memory before they are written


class Seen:
    """Remembers byte strings within a block; the file is private and goes with the block.

    What lies on disk are 16-byte digests under a random key that is never written, so nothing
    can be read or guessed from them.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._fresh: set[bytes] = set()

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="neuroca-seen-")
        self._file = sqlite3.connect(f"{self._folder.name}/seen", isolation_level=None)
        for words in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-16384"):
            self._file.execute(f"PRAGMA {words}")
        self._file.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._folder.cleanup()

    def add(self, *parts: bytes) -> bool:
        """Remember `parts` together; return whether they are new."""
        digest = self._digest(parts)
        if self._has(digest):
            return False
        self._fresh.add(digest)
        if len(self._fresh) >= _KEPT:
            self._file.execute("BEGIN")
            self._file.executemany("INSERT INTO seen VALUES (?)", [(one,) for one in self._fresh])
            self._file.execute("COMMIT")
            self._fresh.clear()
        return True

    def has(self, *parts: bytes) -> bool:
        """Return whether `parts` have been added."""
        return self._has(self._digest(parts))

    def _has(self, digest: bytes) -> bool:
        if digest in self._fresh:
            return True
        found = self._file.execute("SELECT 1 FROM seen WHERE digest = ?", [digest])
        return found.fetchone() is not None

    def _digest(self, parts: tuple[bytes, ...]) -> bytes:
        total = hashlib.blake2b(digest_size=16, key=self._key)
        for part in parts:
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
        return total.digest()
