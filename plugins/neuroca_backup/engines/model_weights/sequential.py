"""Reading the structure of a file from its beginning to its end, whether it can be searched or not.

A file on a disk is searched; a member of a backup only flows by, and what is skipped is read.
"""

from __future__ import annotations

from typing import BinaryIO

from neuroca_backup.streams import CHUNK_BYTES


class TornError(Exception):
    """A file is not what its own structure says: cut off, half written, or something else."""


class Sequential:
    """A stream of `size` bytes, and where one is in it; never goes back.

    Args:
        stream: Positioned at the beginning.
        size: What the stream holds, in bytes.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.position = 0
        self.size = size
        self._ahead = b""
        self._stream = stream
        self._searchable = stream.seekable()

    @property
    def rest(self) -> int:
        """How many bytes come after the position."""
        return self.size - self.position

    def peek(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer at the end, without passing over them."""
        while len(self._ahead) < min(count, self.rest):
            data = self._stream.read(min(count, self.rest) - len(self._ahead))
            if not data:
                break
            self._ahead += data
        return self._ahead[:count]

    def exact(self, count: int, *, what: str) -> bytes:
        """Return the next `count` bytes, which the caller has limited.

        Raises:
            TornError: The file ends before them; names `what` they are.
        """
        if count > self.rest:
            raise TornError(f"it ends within {what}")
        parts = [self._ahead[:count]]
        self._ahead = self._ahead[count:]
        self.position += len(parts[0])
        count -= len(parts[0])
        while count:
            data = self._stream.read(count)
            if not data:
                raise TornError(f"it ends within {what}")
            self.position += len(data)
            count -= len(data)
            parts.append(data)
        return b"".join(parts)

    def skip(self, count: int, *, what: str) -> None:
        """Pass over `count` bytes, which are part of `what`."""
        if count > self.rest:
            raise TornError(f"it ends within {what}")
        if self._searchable and count > len(self._ahead):
            self._stream.seek(count - len(self._ahead), 1)
            self._ahead = b""
            self.position += count
            return
        while count:
            count -= len(self.exact(min(count, CHUNK_BYTES), what=what))
