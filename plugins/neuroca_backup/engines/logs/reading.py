"""Reading one log: up to an end that is fixed when it is opened, cut into pieces on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from neuroca_backup.engines.logs.content import HEAD_BYTES, Content, Contents, head_of
from neuroca_backup.engines.logs.listing import Found
from neuroca_backup.engines.logs.pieces import PIECE_BYTES, Piece
from neuroca_backup.streams import CHUNK_BYTES
from neuroca_backup.trees.walking import readable

Keep = Callable[[memoryview, Piece, int], object]


class ShrunkError(Exception):
    """A log became shorter while it was read; `content` is what was read until then."""

    def __init__(self, content: Content) -> None:
        super().__init__("a log became shorter while it was read")
        self.content = content


@contextmanager
def opened(found: Found) -> Iterator[int | None]:
    """Give a descriptor of the regular file at a path that was listed; None where it is none now.

    A folder that was replaced by a symbolic link since does not lead us elsewhere.

    Raises:
        AccessDeniedError, PermanentError: It may not, or cannot, be read; names it.
    """
    with readable(found.path):
        descriptor = _descriptor(found.path)
        if descriptor is None:
            yield None
            return
        try:
            yield descriptor if _is_at(descriptor, found.real) else None
        finally:
            os.close(descriptor)


def _descriptor(path: str) -> int | None:
    # A pipe that has taken the file's name must not hold us until somebody writes to it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        try:
            return os.open(path, flags | os.O_NOATIME)
        except PermissionError:
            # Only the owner may keep the time of the last access as it is.
            return os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:
            return None  # a symbolic link or a socket by now
        raise


def _is_at(descriptor: int, real: str) -> bool:
    """Return whether an open file is a regular one, in the folder of `real`."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    # https://man7.org/linux/man-pages/man5/proc_pid_fd.5.html
    is_at = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - text paths
    return is_at.rpartition("/")[0] == real.rpartition("/")[0]


def beginning(descriptor: int) -> bytes:
    """Return the first bytes of a file, as many as a head may need."""
    return os.pread(descriptor, HEAD_BYTES, 0)


def read(
    descriptor: int,
    end: int,
    keep: Keep,
    contents: Contents,
    likely: Sequence[Content] = (),
) -> Content:
    """Read the first `end` bytes and give every piece to `keep`; return the content.

    The file is cut where the content that it continues was cut, so that what is stored already is
    recognised, and from there on in pieces of `PIECE_BYTES`.

    Raises:
        ShrunkError: It ended before `end`.
    """
    cuts = contents.beginning_like(beginning(descriptor), end, likely) if end else ()
    position = 0

    def fill(buffer: memoryview) -> int:
        nonlocal position
        count = os.preadv(descriptor, [buffer[: end - position]], position) if position < end else 0
        position += count
        return count

    content = divide(fill, cuts, keep, room=end)
    if content.size < end:
        raise ShrunkError(content)
    return content


def unchanged(descriptor: int, content: Content) -> bool:
    """Return whether the file still begins with `content`, every byte read again."""
    digest = hashlib.sha256()
    position = 0
    while position < content.size:
        data = os.pread(descriptor, min(CHUNK_BYTES, content.size - position), position)
        if not data:
            return False
        digest.update(data)
        position += len(data)
    return digest.hexdigest() == content.sha256


def divide(
    fill: Callable[[memoryview], int],
    cuts: Sequence[Piece],
    keep: Keep | None = None,
    *,
    room: int = PIECE_BYTES,
) -> Content:
    """Return the content of a stream, cut as `cuts` say and in pieces of `PIECE_BYTES` after them.

    `fill` puts bytes into a buffer and returns their number, 0 at the end; `keep` is given the
    bytes of every piece, valid for the length of the call, the piece, and its ends of lines. `room`
    is the size of the stream in bytes where it is known: little ones need no large buffer.
    """
    store = bytearray(min(room, PIECE_BYTES))
    buffer = memoryview(store)
    first = bytearray()
    whole = None
    pieces: list[Piece] = []
    size = lines = 0
    for wanted in _lengths(cuts):
        count = 0
        while count < wanted and (more := fill(buffer[count:wanted])):
            count += more
        if not count:
            break
        data = buffer[:count]
        digest = hashlib.sha256(data)
        if whole is None:
            whole = digest.copy()  # most logs are one piece: they are not digested twice
        else:
            whole.update(data)
        piece = Piece(digest.hexdigest(), count)
        ends = store.count(b"\n", 0, count)
        if keep is not None:
            keep(data, piece, ends)
        pieces.append(piece)
        size += count
        lines += ends
        if len(first) < HEAD_BYTES:
            first += data[:HEAD_BYTES]
    return Content(
        size=size,
        sha256=(whole or hashlib.sha256()).hexdigest(),
        lines=lines,
        head=head_of(first, size),
        pieces=tuple(pieces),
    )


def _lengths(cuts: Sequence[Piece]) -> Iterator[int]:
    for piece in cuts:
        yield piece.size
    while True:
        yield PIECE_BYTES
