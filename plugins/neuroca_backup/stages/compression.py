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

_REMEDY = "Restore from another store, then replicate this backup again."


class ZstdStage:
    """Compresses at `level` (1 to 19) with `threads` worker threads (0: in the caller's own)."""

    name = NAME

    def __init__(self, *, level: int = 3, threads: int = 2) -> None:
        self._level = level
        self._threads = threads

    def forward(self, sink: BinaryIO, *, member: str) -> BinaryIO:  # noqa: ARG002 - the contract
        """Return a writer that compresses into `sink`; closing it finishes the frame."""
        compressor = zstandard.ZstdCompressor(
            level=self._level, threads=self._threads, write_checksum=True
        )
        return _Compressing(compressor.chunker(chunk_size=CHUNK_BYTES), sink)

    def backward(self, source: BinaryIO, *, member: str) -> BinaryIO:
        """Return a reader of the original bytes.

        Raises:
            DamagedError: From `read`, where `source` is not exactly one whole frame.
        """
        return read_chunks(_decompress(source, member))


class _Compressing(FinishingWriter):
    def __init__(self, chunker: zstandard.ZstdCompressionChunker, sink: BinaryIO) -> None:
        super().__init__()
        self._chunker = chunker
        self._sink = sink

    def _take(self, data: memoryview) -> None:
        for chunk in self._chunker.compress(data):
            write_all(self._sink, chunk)

    def _finish(self) -> None:
        for chunk in self._chunker.finish():  # type: ignore[no-untyped-call]
            write_all(self._sink, chunk)


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
