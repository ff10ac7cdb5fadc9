"""Stages: reversible transformations of a byte stream. One file each.

A manifest names the stages of its members in the order they were applied; a restore follows the
manifest, never today's settings.
"""

from __future__ import annotations

from typing import BinaryIO, Protocol


class Stage(Protocol):
    """One transformation, bound to whatever settings or keys it needs."""

    name: str

    def forward(self, sink: BinaryIO, *, member: str) -> BinaryIO:
        """Return a writer that transforms what is written to it into `sink`.

        Closing the writer finishes the transformation; leaving its `with` block with an error
        abandons it, so that `sink` never holds what could pass for a whole stream. `sink` stays
        open either way.
        """
        ...

    def backward(self, source: BinaryIO, *, member: str) -> BinaryIO:
        """Return a reader of the original bytes.

        Raises:
            DamagedError: From `read`, where `source` is not what `forward` wrote. A truncation may
                show only at the end: nothing irreversible may happen before the last byte.
        """
        ...
