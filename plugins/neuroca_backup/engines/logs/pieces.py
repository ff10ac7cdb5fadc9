"""Pieces: the bytes of logs, each run of them stored once under its own SHA-256.

A file is a sequence of pieces. They lie in tar archives whose entries are `pieces/<sha256>`, so
that stock tar and cat can put any file together again, and every entry proves itself.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from neuroca_backup.engines import Sink
from neuroca_backup.streams import write_all
from neuroca_backup.trees.entries import damaged

# What is held in memory at once: large enough for few entries, small enough for a small worker.
PIECE_BYTES = 8 * 1024 * 1024
# A new archive begins beyond this, so that later stages can handle several at once.
ARCHIVE_BYTES = 1024 * 1024 * 1024

_FOLDER = "pieces"
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_NAME = re.compile(rf"{_FOLDER}/([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of bytes: its SHA-256 (hex) and its size in bytes, at most `PIECE_BYTES`."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A piece in an archive; its bytes begin at `offset`."""

    piece: Piece
    offset: int


def archive_name(number: int) -> str:
    """Return the name of the member that is the `number`th archive of a backup, from 1 on."""
    return f"content/{number:05d}.tar"


class PieceWriter(AbstractContextManager["PieceWriter"]):
    """Stores pieces that no earlier backup of the chain holds, in as many archives as needed.

    Args:
        sink: Takes the archives as members; without a new piece there is none.
        known: SHA-256 (hex) of every piece that the chain holds already.
    """

    def __init__(self, sink: Sink, known: Iterable[str] = ()) -> None:
        self.archives = 0
        self.count = 0
        self.size = 0
        self._sink = sink
        self._known = set(known)
        self._stack = ExitStack()
        self._out: BinaryIO | None = None
        self._filled = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the last archive; after an error it does not become a member."""
        if kind is None:
            self._end()
        else:
            self._stack.__exit__(kind, error, trace)

    def add(self, data: memoryview, piece: Piece) -> bool:
        """Store `data`, which is `piece`, unless the chain has it; return whether it was new."""
        if piece.sha256 in self._known:
            return False
        if self._filled >= ARCHIVE_BYTES:
            self._end()
        if self._out is None:
            self.archives += 1
            member = self._sink.member(archive_name(self.archives))
            self._out = self._stack.enter_context(member)
        entry = tarfile.TarInfo(f"{_FOLDER}/{piece.sha256}")
        entry.size = piece.size
        entry.mode = 0o600
        write_all(self._out, entry.tobuf(tarfile.USTAR_FORMAT))
        write_all(self._out, data)
        write_all(self._out, bytes(-piece.size % _BLOCK))
        self._filled += _BLOCK + piece.size
        self._known.add(piece.sha256)
        self.count += 1
        self.size += piece.size
        return True

    def _end(self) -> None:
        if self._out is not None:
            write_all(self._out, _END)
        self._stack.close()
        self._out, self._filled = None, 0


def listed(stream: BinaryIO, *, name: str) -> Iterator[Placed]:
    """Yield where the pieces of the archive `name` lie; `stream` can seek.

    Raises:
        DamagedError: It is not an archive of pieces, or does not come to its end.
    """
    size = stream.seek(0, 2)
    position = 0
    while True:
        stream.seek(position)
        piece = _header(stream.read(_BLOCK), name=name, at=position)
        if piece is None:
            _require_end(stream, name=name)
            return
        yield Placed(piece, position + _BLOCK)
        position += _BLOCK + piece.size + -piece.size % _BLOCK
        if position > size:
            raise damaged(name, f"it ends within the piece {piece.sha256}")


def checked(stream: BinaryIO, *, name: str) -> Iterator[Piece]:
    """Read an archive through, compare every piece with its own name, and yield the pieces.

    Raises:
        DamagedError: A piece is not what its name says, or the archive is not whole.
    """
    position = 0
    while (piece := _header(exactly(stream, _BLOCK), name=name, at=position)) is not None:
        data = exactly(stream, piece.size)
        if hashlib.sha256(data).hexdigest() != piece.sha256 or len(data) != piece.size:
            raise damaged(name, f"it holds a piece that is not {piece.sha256}")
        padding = exactly(stream, -piece.size % _BLOCK)
        if any(padding) or len(padding) != -piece.size % _BLOCK:
            raise damaged(name, f"it is not padded after {piece.sha256}")
        position += _BLOCK + piece.size + len(padding)
        yield piece
    _require_end(stream, name=name)


def exactly(stream: BinaryIO, size: int) -> bytes:
    """Return `size` bytes, fewer only at the end of `stream`, however few it gives at once."""
    parts = []
    while size and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _header(block: bytes, *, name: str, at: int) -> Piece | None:
    """Return the piece that a header announces, or None at the mark of the end."""
    if len(block) == _BLOCK and not any(block):
        return None
    try:
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except tarfile.HeaderError:
        raise damaged(
            name, f"it is not an archive of pieces: no entry begins at byte {at}"
        ) from None
    found = _NAME.fullmatch(entry.name)
    if found is None or not entry.isreg() or not 0 < entry.size <= PIECE_BYTES:
        raise damaged(name, f"it has an entry at byte {at} that is not a piece: {entry.name!r}")
    return Piece(found[1], entry.size)


def _require_end(stream: BinaryIO, *, name: str) -> None:
    """Raise `DamagedError` unless the second block of the end mark follows, and nothing more."""
    rest = exactly(stream, _BLOCK + 1)
    if len(rest) != _BLOCK or any(rest):
        raise damaged(name, "it does not end where its last entry does")
