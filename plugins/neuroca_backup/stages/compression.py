"""Compression: one zstd frame (RFC 8878) a member, with a checksum of its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import zstandard

from neuroca_backup.errors import DamagedError
from neuroca_backup.stages.transforming import FinishingWriter, read_chunks
from neuroca_backup.streams import CHUNK_BYTES, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "zstd"

# What RFC 8878 asks every decoder to support, and what level 19, our highest, uses.
MAX_WINDOW_BYTES = 8 * 1024 * 1024

# A run-length block of 4 bytes stands for 128 KiB: a slice of this size can grow to 64 MiB at most.
_SLICE_BYTES = 2 * 1024

# What a member begins with tells how the rest compresses: enough to outweigh a file's header.
_SAMPLE_BYTES = 1024 * 1024
_QUICK_LEVEL = 1
# Weights of a model shrink to 0.78 (bf16) or 0.92 (fp16) of their size at level 3 and at level 1,
# which takes two thirds of the time; text and database dumps come to 0.5 and less.
_HARDLY = 0.7

_REMEDY = "Restore from another store, then replicate this backup again."


class ZstdStage:
    """Compresses at `level` (1 to 19) with `threads` worker threads (0: in the caller's own).

    A member whose first MiB hardly shrinks is compressed at level 1: a higher one would take
    longer and save nothing. Any decoder reads either.
    """

    name = NAME

    def __init__(self, *, level: int = 3, threads: int = 2) -> None:
        self._level = level
        self._threads = threads

    def forward(self, sink: BinaryIO, *, member: str) -> BinaryIO:  # noqa: ARG002 - the contract
        """Return a writer that compresses into `sink`; closing it finishes the frame."""
        return _Compressing(sink, level=self._level, threads=self._threads)

    def backward(self, source: BinaryIO, *, member: str) -> BinaryIO:
        """Return a reader of the original bytes.

        Raises:
            DamagedError: From `read`, where `source` is not exactly one whole frame.
        """
        return read_chunks(_decompress(source, member))


class _Compressing(FinishingWriter):
    """Holds back the beginning, until it is enough to choose the level by."""

    def __init__(self, sink: BinaryIO, *, level: int, threads: int) -> None:
        super().__init__()
        self._sink = sink
        self._level = level
        self._threads = threads
        self._beginning = bytearray()
        self._chunker: zstandard.ZstdCompressionChunker | None = None

    def _take(self, data: memoryview) -> None:
        if self._chunker is not None:
            self._compress(self._chunker, data)
            return
        self._beginning += data
        if len(self._beginning) >= _SAMPLE_BYTES:
            self._begin()

    def _finish(self) -> None:
        for chunk in (self._chunker or self._begin()).finish():  # type: ignore[no-untyped-call]
            write_all(self._sink, chunk)

    def _begin(self) -> zstandard.ZstdCompressionChunker:
        beginning, self._beginning = self._beginning, bytearray()
        level = _QUICK_LEVEL if _hardly_shrinks(beginning) else self._level
        compressor = zstandard.ZstdCompressor(
            level=level, threads=self._threads, write_checksum=True
        )
        self._chunker = compressor.chunker(chunk_size=CHUNK_BYTES)
        self._compress(self._chunker, memoryview(beginning))
        return self._chunker

    def _compress(self, chunker: zstandard.ZstdCompressionChunker, data: memoryview) -> None:
        for chunk in chunker.compress(data):
            write_all(self._sink, chunk)


def _hardly_shrinks(sample: bytearray) -> bool:
    """Return whether a higher level would be lost on data that begins with `sample`."""
    if len(sample) < _SAMPLE_BYTES:
        return False  # too little to be worth a guess
    found = zstandard.ZstdCompressor(level=_QUICK_LEVEL).compress(sample)
    return len(found) >= _HARDLY * len(sample)


def _decompress(source: BinaryIO, member: str) -> Iterator[bytes]:
    # python-zstandard's stream_reader takes a truncated frame for a whole one and ignores what
    # follows a frame; a decompressobj knows both, but its output is only bounded by its input.
    frame = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).decompressobj()
    magic = _read_magic(source)
    # libzstd would take a skippable frame for a whole one that holds nothing.
    if magic != zstandard.FRAME_HEADER[: len(magic)]:
        raise _damaged(member, "it does not begin as a zstd frame")
    frame.decompress(magic)
    while chunk := source.read(CHUNK_BYTES):
        view = memoryview(chunk)
        for start in range(0, len(view), _SLICE_BYTES):
            if frame.eof:
                raise _damaged(member, "bytes follow its end")
            try:
                plain = frame.decompress(view[start : start + _SLICE_BYTES])
            except zstandard.ZstdError as error:
                raise _damaged(member, str(error)) from None
            if frame.unused_data:
                raise _damaged(member, "bytes follow its end")
            yield plain
    if not frame.eof:
        raise _damaged(member, "it ends early")


def _read_magic(source: BinaryIO) -> bytes:
    magic = b""
    size = len(zstandard.FRAME_HEADER)
    while len(magic) < size and (more := source.read(size - len(magic))):
        magic += more
    return magic


def _damaged(member: str, problem: str) -> DamagedError:
    return DamagedError(
        f"The compressed member {member} is damaged: {problem}", remedy=_REMEDY, key=member
    )
