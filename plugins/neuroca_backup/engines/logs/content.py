"""Contents: what a file held, as a sequence of pieces, and which earlier content it continues."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from neuroca_backup.engines.logs.pieces import Piece

# The beginning of a log has its first time stamps, which no other log shares.
HEAD_BYTES = 4096
# Logs that begin alike beyond this number are not all tried: that costs space, never correctness.
_ALIKE = 16


@dataclass(frozen=True, slots=True)
class Inflated:
    """What is in a compressed file: bytes, SHA-256 (hex), and ends of lines."""

    size: int
    sha256: str
    lines: int


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file: their number, SHA-256 (hex), ends of lines, and pieces in order.

    `head` is the SHA-256 of the first bytes, as many as `head_size` says, "" of an empty file.
    """

    size: int
    sha256: str
    lines: int
    head: str
    pieces: tuple[Piece, ...]
    inflated: Inflated | None = None

    @property
    def text_lines(self) -> int:
        """Ends of lines in the text, be it compressed or not."""
        return self.inflated.lines if self.inflated else self.lines


def head_size(size: int) -> int:
    """Return how many of the first bytes of a file of `size` bytes are its head: a power of two."""
    return min(HEAD_BYTES, 1 << (size.bit_length() - 1)) if size else 0


def head_of(beginning: bytes | bytearray | memoryview, size: int) -> str:
    """Return the SHA-256 (hex) of the head of a file of `size` bytes, given its first bytes."""
    wanted = head_size(size)
    return hashlib.sha256(beginning[:wanted]).hexdigest() if wanted else ""


@dataclass(slots=True)
class Contents:
    """All contents that are known, found by how a file begins.

    This only says where to cut a file into pieces: whether a piece is stored already is decided by
    its SHA-256, so a wrong guess costs space and never a byte.
    """

    _by_head: dict[str, list[Content]] = field(default_factory=dict)
    _by_pieces: dict[bytes, str] = field(default_factory=dict)
    _inflated: dict[str, Inflated] = field(default_factory=dict)

    def add(self, content: Content) -> None:
        """Make `content` known."""
        if not content.size:
            return
        if content.inflated is not None:
            self._inflated[content.sha256] = content.inflated
        whole = deque(_prefixes(content.pieces), maxlen=1)[0]
        if whole in self._by_pieces:
            return
        self._by_pieces[whole] = content.sha256
        alike = self._by_head.setdefault(content.head, [])
        alike.append(content)
        del alike[:-_ALIKE]

    def inflated(self, sha256: str) -> Inflated | None:
        """Return what is in the compressed file with this SHA-256, if that is known."""
        return self._inflated.get(sha256)

    def beginning_like(
        self, beginning: bytes, size: int | None, likely: Iterable[Content] = ()
    ) -> Sequence[Piece]:
        """Return the pieces of a content that a file seems to continue; () for none.

        Args:
            beginning: The file's first `HEAD_BYTES` bytes, or all of them.
            size: Its size in bytes, None where that is not known.
            likely: Contents that it may continue, because of its inode or its name.
        """
        heads = {
            head_of(beginning, length)
            for length in (1 << power for power in range(HEAD_BYTES.bit_length()))
            if length <= len(beginning)
        }
        alike = [
            one
            for one in (*likely, *(one for head in heads for one in self._by_head.get(head, ())))
            if one.head in heads and _agrees(one, beginning)
        ]
        shorter = [one for one in alike if size is None or one.size <= size]
        if shorter:
            return max(shorter, key=lambda one: one.size).pieces
        return min(alike, key=lambda one: one.size).pieces if alike else ()

    def continued_by(self, pieces: Sequence[Piece]) -> Iterator[str]:
        """Yield the SHA-256 of every known content that a file of these `pieces` begins with."""
        for prefix in _prefixes(pieces):
            found = self._by_pieces.get(prefix)
            if found is not None:
                yield found


def _agrees(content: Content, beginning: bytes) -> bool:
    """Return whether the first piece is the file's, as far as its first bytes can tell.

    The head of a tiny log is a few bytes, which others may share.
    """
    piece = content.pieces[0] if content.pieces else Piece("", 0)
    if piece.size > len(beginning):
        return True
    return hashlib.sha256(beginning[: piece.size]).hexdigest() == piece.sha256


def _prefixes(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """Yield a digest of the first piece, of the first two, and so on."""
    running = hashlib.sha256()
    for piece in pieces:
        running.update(bytes.fromhex(piece.sha256))
        yield running.digest()
