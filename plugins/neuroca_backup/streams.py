"""Byte streams: counting and digesting them, copying them, keeping them open."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from neuroca_backup.errors import DamagedError, StoreUnavailableError
from neuroca_backup.model.manifest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

    # typing.BinaryIO has abstract members that a raw stream lacks, so only the checker sees it.
    class RawStream(io.RawIOBase, BinaryIO):
        """A raw stream that may be passed where a `BinaryIO` is asked for."""
else:
    RawStream = io.RawIOBase

# Large enough that SHA-256, zstd and Tink leave the interpreter lock alone for most of the time.
CHUNK_BYTES = 1024 * 1024

_REMEDY = "Restore from another store, then replicate this backup again."


def write_all(sink: BinaryIO, data: ReadableBuffer) -> int:
    """Write every byte of `data` to `sink`, however few it takes at once; return their number.

    Raises:
        StoreUnavailableError: The sink stopped taking bytes without raising an error of its own.
    """
    view = memoryview(data).cast("B")
    done = 0
    while done < len(view):
        # A raw stream answers None when it could take nothing.
        taken = sink.write(view[done:] if done else view) or 0
        if not 0 < taken <= len(view) - done:
            raise StoreUnavailableError(
                f"A sink took {taken} of the {len(view) - done} bytes it was given",
                remedy="It is tried again; if it keeps happening look at the space of the target.",
            )
        done += taken
    return done


def copy(
    source: BinaryIO,
    sink: BinaryIO,
    *,
    chunk: int = CHUNK_BYTES,
    on_bytes: Callable[[int], None] | None = None,
) -> int:
    """Copy `source` to its end into `sink` in pieces of `chunk` bytes; return the bytes copied.

    `on_bytes` is given the size of each piece once the sink has taken it.
    """
    total = 0
    while data := source.read(chunk):
        write_all(sink, data)
        total += len(data)
        if on_bytes is not None:
            on_bytes(len(data))
    return total


class _Tally:
    """The running size and SHA-256 of a stream."""

    def __init__(self, on_bytes: Callable[[int], None] | None = None) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._on_bytes = on_bytes

    def add(self, data: ReadableBuffer) -> None:
        self._hash.update(data)
        count = len(memoryview(data))
        self.size += count
        if self._on_bytes is not None and count:
            self._on_bytes(count)

    @property
    def digest(self) -> Digest:
        return Digest(size=self.size, sha256=self._hash.hexdigest())


class DigestWriter(RawStream):
    """Passes everything to `sink` and knows its digest; closing it leaves `sink` open.

    A write always takes all of its bytes; `on_bytes` is told how many.
    """

    def __init__(self, sink: BinaryIO, *, on_bytes: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._sink = sink
        self._tally = _Tally(on_bytes)

    @property
    def digest(self) -> Digest:
        """The digest of what the sink has taken so far."""
        return self._tally.digest

    def writable(self) -> bool:
        """Return True: bytes may be written."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data`; return its size in bytes."""
        refuse_closed(self)
        view = memoryview(data).cast("B")
        written = write_all(self._sink, view)
        self._tally.add(view)
        return written


class DigestReader(RawStream):
    """Reads `source` and knows the digest of what was read; closing it leaves `source` open.

    With `expected`, a `DamagedError` that names `name` and `store` is raised instead of the last
    bytes when their SHA-256 is wrong, at an end that comes early, and as soon as more bytes than
    expected arrive. Who stops before the end has checked nothing: `drain` reads the rest.
    `on_bytes` is told of every piece read.
    """

    def __init__(
        self,
        source: BinaryIO,
        expected: Digest | None = None,
        name: str = "",
        store: str = "",
        *,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._expected = expected
        self._name = name
        self._store = store
        self._tally = _Tally(on_bytes)

    @property
    def digest(self) -> Digest:
        """The digest of what has been read so far."""
        return self._tally.digest

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, as many as the source gives at once; `b""` at the end.

        Raises:
            DamagedError: The bytes are not the expected ones.
        """
        refuse_closed(self)
        if size < 0:
            return b"".join(iter(partial(self.read, CHUNK_BYTES), b""))
        data = self._source.read(size)
        if size:
            self._tally.add(data)
            self._check(at_end=not data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer` as `read` does; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def drain(self) -> Digest:
        """Read to the end, throw the bytes away and return the digest of the whole."""
        while self.read(CHUNK_BYTES):
            pass
        return self.digest

    def _check(self, *, at_end: bool) -> None:
        expected, size = self._expected, self._tally.size
        if expected is None or (size < expected.size and not at_end):
            return
        found = self.digest
        if found.size != expected.size:
            more = " or more" if found.size > expected.size else ""
            problem = f"its size is {found.size}{more} bytes instead of {expected.size}"
        elif found.sha256 != expected.sha256:
            problem = f"its SHA-256 is {found.sha256} instead of {expected.sha256}"
        else:
            return
        place = f"{self._name or 'A stream'}{f' in {self._store}' if self._store else ''}"
        raise DamagedError(
            f"{place} is damaged: {problem}", remedy=_REMEDY, key=self._name, store=self._store
        )


class Unclosed(RawStream):
    """Stands for `stream` where a library insists on closing what it is given."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        """Return whether the wrapped stream may be read."""
        return self._stream.readable()

    def writable(self) -> bool:
        """Return whether the wrapped stream may be written."""
        return self._stream.writable()

    def read(self, size: int = -1) -> bytes:
        """Return what the wrapped stream gives."""
        refuse_closed(self)
        return self._stream.read(size)

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def write(self, data: ReadableBuffer) -> int:
        """Write all of `data` to the wrapped stream; return its size in bytes."""
        refuse_closed(self)
        return write_all(self._stream, data)

    def flush(self) -> None:
        """Flush the wrapped stream, as long as both are open."""
        if not self.closed and not self._stream.closed and self._stream.writable():
            self._stream.flush()


def refuse_closed(stream: io.IOBase) -> None:
    """Raise the `ValueError` that every closed stream of the standard library raises."""
    if stream.closed:
        raise ValueError("I/O operation on a closed stream")
