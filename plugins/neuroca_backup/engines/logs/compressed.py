"""What is in a compressed log: read to be recognised, never to be stored again.

`logrotate` compresses by a program whose output no library repeats byte for byte, so a compressed
file is stored as it is. That its text is in the backup already, or is not, is found here.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import zstandard

from neuroca_backup.engines.logs.content import HEAD_BYTES, Content, Contents
from neuroca_backup.engines.logs.pieces import exactly
from neuroca_backup.engines.logs.reading import divide
from neuroca_backup.streams import RawStream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def _zstd(stream: BinaryIO) -> Any:
    return zstandard.ZstdDecompressor().stream_reader(
        stream, read_across_frames=True, closefd=False
    )


# What the readers below raise for bytes that are not what they should be. The first is also what
# the system raises for a file that cannot be read, then with a number.
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)

_READERS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
}


def reader_for(beginning: bytes) -> Callable[[BinaryIO], Any] | None:
    """Return what reads a compressed file that begins so; None for any other file."""
    for magic, reader in _READERS.items():
        if beginning.startswith(magic):
            return reader
    return None


def look_into(
    descriptor: int,
    content: Content,
    reader: Callable[[BinaryIO], Any],
    contents: Contents,
) -> Content | None:
    """Return what is in the compressed file `content`, cut like the log that it was.

    None where it is not whole, as while `logrotate` still writes it: the file is then one like
    any other.
    """
    try:
        with reader(_Part(descriptor, content.size)) as stream:
            beginning = exactly(stream, HEAD_BYTES)
        raw = _Part(descriptor, content.size)
        with reader(raw) as stream:
            found = divide(stream.readinto, contents.beginning_like(beginning, None))
        same = raw.rest_is(content)
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None
    return found if same else None


class _Part(RawStream):
    """The first `end` bytes of an open file, with their digest."""

    def __init__(self, descriptor: int, end: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._end = end
        self._position = 0
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")[: self._end - self._position]
        count = os.preadv(self._descriptor, [view], self._position) if len(view) else 0
        self._digest.update(view[:count])
        self._position += count
        return count

    def rest_is(self, content: Content) -> bool:
        """Return whether all bytes, those read and those left, are those of `content`."""
        while self.read(HEAD_BYTES):
            pass
        return self._digest.hexdigest() == content.sha256
