"""BSON streams, document by document: framing, counting and an order-independent digest.

A BSON document begins with its length in bytes (int32, little endian) and ends with a zero byte:
https://bsonspec.org/spec.html
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

from neuroca_backup.errors import DamagedError

CHUNK_BYTES = 4 * 1024 * 1024
# A document has at most 16 MiB, an oplog entry 16 KiB more than that.
MAX_DOCUMENT_BYTES = 16 * 1024 * 1024 + 16 * 1024
_SMALLEST = 5
_LENGTH = struct.Struct("<i")
_MODULUS = 2**128


class Tally:
    """How many documents passed, and a digest of them that does not depend on their order.

    The digest is the sum modulo 2^128 of each document's BLAKE2b of 16 bytes, in hex.
    """

    def __init__(self, *, digests: bool) -> None:
        self.documents = 0
        self._digests = digests
        self._sum = 0

    def add(self, document: bytes | memoryview) -> None:
        """Count one document."""
        self.documents += 1
        if self._digests:
            hashed = hashlib.blake2b(document, digest_size=16).digest()
            self._sum = (self._sum + int.from_bytes(hashed, "big")) % _MODULUS

    @property
    def digest(self) -> str | None:
        """The digest of what has passed, None where none is taken."""
        return f"{self._sum:032x}" if self._digests else None


def split(batch: bytes, *, name: str) -> Iterator[memoryview]:
    """Yield the documents that `batch` consists of.

    Raises:
        DamagedError: It does not consist of whole documents; names `name`.
    """
    view, at = memoryview(batch), 0
    while at < len(view):
        size = _size(view, at, name)
        if at + size > len(view):
            raise _damaged(name, at, "it ends in the middle of a document")
        if view[at + size - 1]:
            raise _damaged(name, at, "a document does not end with a zero byte")
        yield view[at : at + size]
        at += size


def batches(stream: BinaryIO, *, name: str, size: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yield the whole of `stream` in pieces of whole documents, of about `size` bytes each.

    Raises:
        DamagedError: It ends in the middle of a document, or a length is impossible.
    """
    rest = b""
    while data := stream.read(size):
        rest += data
        end = _whole(rest, name)
        if end:
            yield rest[:end]
            rest = rest[end:]
    if rest:
        raise _damaged(name, 0, "it ends in the middle of a document")


def documents(stream: BinaryIO, *, name: str) -> Iterator[bytes]:
    """Yield every document of `stream`; raises what `batches` raises."""
    for batch in batches(stream, name=name):
        for document in split(batch, name=name):
            yield bytes(document)


def _whole(data: bytes, name: str) -> int:
    """Return where the last whole document of `data` ends."""
    at = 0
    while at + _LENGTH.size <= len(data):
        size = _size(data, at, name)
        if at + size > len(data):
            break
        at += size
    return at


def _size(data: bytes | memoryview, at: int, name: str) -> int:
    if at + _LENGTH.size > len(data):
        raise _damaged(name, at, "it ends in the middle of a document")
    size: int = _LENGTH.unpack_from(data, at)[0]
    if not _SMALLEST <= size <= MAX_DOCUMENT_BYTES:
        raise _damaged(name, at, f"a document claims to have {size} bytes")
    return size


def _damaged(name: str, at: int, what: str) -> DamagedError:
    return DamagedError(
        f"{name} is not BSON: {what} (at byte {at} of a piece)",
        remedy="Restore from another store or another backup.",
        key=name,
    )
