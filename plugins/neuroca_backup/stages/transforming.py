"""What the stages are made of: a writer that must be finished, a reader whose errors stay."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

from neuroca_backup.streams import CHUNK_BYTES, RawStream, refuse_closed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from _typeshed import ReadableBuffer, WriteableBuffer


class FinishingWriter(RawStream):
    """A writer whose stream is complete only after an orderly `close`.

    An error in its `with` block, `abandon` and garbage collection all end it without the end mark,
    so that half a stream can never pass for a whole one. A subclass defines `_take` and `_finish`.
    """

    _broken = False

    def writable(self) -> bool:
        """Return True: bytes may be written."""
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Transform all of `data`; return its size in bytes."""
        refuse_closed(self)
        view = memoryview(data).cast("B")
        try:
            for start in range(0, len(view), CHUNK_BYTES):
                self._take(view[start : start + CHUNK_BYTES])
        except BaseException:
            # Some of `data` may have been taken: neither a retry nor a close can mend the stream.
            self.abandon()
            raise
        return len(view)

    def close(self) -> None:
        """Write the end of the stream; the sink stays open.

        Raises:
            ValueError: A write failed before, so there is no whole stream to finish.
        """
        if self._broken:
            raise ValueError("close of a stream that was abandoned")
        if self.closed:
            return
        try:
            self._finish()
        except BaseException:
            self.abandon()
            raise
        super().close()

    def abandon(self) -> None:
        """End the stream without its end mark; nothing more is written to the sink."""
        if not self.closed:
            self._broken = True
            super().close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def __enter__(self) -> Self:
        refuse_closed(self)
        return self

    def __del__(self) -> None:
        self.abandon()

    def _take(self, data: memoryview) -> None:
        """Transform at most `CHUNK_BYTES` of data into the sink."""
        raise NotImplementedError

    def _finish(self) -> None:
        """Write what is still held back, and the end mark."""
        raise NotImplementedError


class ChunkReader(RawStream):
    """Reads what an iterator yields; an error it raised is raised again by every later read.

    A generator that has failed looks exhausted to the next caller: without this, an error could
    be taken for the end of the stream.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")
        self._error: BaseException | None = None

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into `buffer`; return the number of bytes, 0 at the end."""
        refuse_closed(self)
        view = memoryview(buffer).cast("B")
        while not self._rest and (chunk := self._next()) is not None:
            self._rest = memoryview(chunk)
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count

    def _next(self) -> bytes | None:
        if self._error is not None:
            raise self._error
        try:
            return next(self._chunks, None)
        except BaseException as error:
            self._error = error
            raise


def read_chunks(chunks: Iterator[bytes]) -> BinaryIO:
    """Return a reader of what `chunks` yields; `read(n)` gives fewer than `n` only at the end."""
    return io.BufferedReader(ChunkReader(chunks), CHUNK_BYTES)
