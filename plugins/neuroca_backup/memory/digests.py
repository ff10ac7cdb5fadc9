"""A digest of many things whatever their order: the sum of their SHA-256 digests."""

from __future__ import annotations

import hashlib

_MODULUS = 1 << 256


class Tally:
    """How many things there were, and the digest of all of them together."""

    def __init__(self) -> None:
        self.count = 0
        self._total = 0

    def add(self, *parts: bytes) -> None:
        """Add one thing, which is its parts in their order."""
        one = hashlib.sha256()
        for part in parts:
            one.update(len(part).to_bytes(8, "big"))
            one.update(part)
        self.count += 1
        self._total = (self._total + int.from_bytes(one.digest(), "big")) % _MODULUS

    @property
    def digest(self) -> str:
        """64 hexadecimal digits; the same for the same things in any order."""
        return f"{self._total:064x}"
