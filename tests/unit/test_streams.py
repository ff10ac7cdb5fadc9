from __future__ import annotations

import gc
import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import DamagedError, StoreUnavailableError
from neuroca_backup.model.manifest import Digest
from neuroca_backup.stages.transforming import FinishingWriter
from neuroca_backup.streams import DigestReader, DigestWriter, Unclosed, copy, write_all


def digest_of(data: bytes) -> Digest:
    return Digest(size=len(data), sha256=hashlib.sha256(data).hexdigest())


class Sparing(io.RawIOBase):
    """Takes and gives at most `most` bytes at once; every `none_every`-th write takes None."""

    def __init__(self, data: bytes = b"", *, most: int = 3) -> None:
        self.taken = bytearray()
        self._rest = memoryview(data)
        self._most = most

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data)[: self._most])  # type: ignore[arg-type]
        self.taken += piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        size = self._most if size < 0 else min(size, self._most)
        piece, self._rest = bytes(self._rest[:size]), self._rest[size:]
        return piece


class Stuck(io.RawIOBase):
    def __init__(self, answer: int | None) -> None:
        self.answer = answer

    def write(self, data: object) -> int | None:  # noqa: ARG002 - it never looks at it
        return self.answer


class Framed(FinishingWriter):
    """Writes what it is given, then `.`; fails on `!`."""

    def __init__(self, sink: io.BytesIO) -> None:
        super().__init__()
        self.sink = sink

    def _take(self, data: memoryview) -> None:
        if b"!" in bytes(data):
            raise OSError("no space")
        self.sink.write(data)

    def _finish(self) -> None:
        self.sink.write(b".")


@given(data=st.binary(max_size=200), most=st.integers(1, 50), chunk=st.integers(1, 60))
def test_copy_delivers_every_byte_through_short_reads_and_short_writes(
    data: bytes, most: int, chunk: int
) -> None:
    sink, seen = Sparing(most=most), []
    assert copy(Sparing(data, most=most), sink, chunk=chunk, on_bytes=seen.append) == len(data)
    assert sink.taken == data
    assert sum(seen) == len(data)


@pytest.mark.parametrize("answer", [None, 0, -1, 5])
def test_a_sink_that_takes_nothing_or_claims_too_much_is_an_error(answer: int | None) -> None:
    with pytest.raises(StoreUnavailableError, match="of the 4 bytes"):
        write_all(Stuck(answer), b"data")


@given(data=st.binary(max_size=200), most=st.integers(1, 50))
def test_a_digest_writer_knows_what_its_sink_took(data: bytes, most: int) -> None:
    sink = Sparing(most=most)
    with DigestWriter(sink) as writer:
        assert writer.write(data) == len(data)
    assert sink.taken == data
    assert writer.digest == digest_of(data)
    assert not sink.closed


def test_a_digest_writer_does_not_count_what_its_sink_refused() -> None:
    writer = DigestWriter(Stuck(None))
    with pytest.raises(StoreUnavailableError):
        writer.write(b"data")
    assert writer.digest == digest_of(b"")


def test_buffers_of_wide_items_are_counted_in_bytes() -> None:
    sink = io.BytesIO()
    writer = DigestWriter(sink)
    assert writer.write(memoryview(bytes(range(16))).cast("I")) == 16
    assert writer.digest == digest_of(bytes(range(16)))


@given(data=st.binary(max_size=200), most=st.integers(1, 50), size=st.integers(1, 60))
def test_a_digest_reader_passes_what_is_expected(data: bytes, most: int, size: int) -> None:
    source = Sparing(data, most=most)
    reader = DigestReader(source, digest_of(data))
    assert b"".join(iter(lambda: reader.read(size), b"")) == data
    assert reader.read(1) == b""
    reader.close()
    assert reader.digest == digest_of(data)
    assert not source.closed


@pytest.mark.parametrize("through", ["read", "readinto", "drain", "read(-1)"])
@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (b"four", r"size is 4 bytes instead of 5"),
        (b"", r"size is 0 bytes instead of 5"),
        (b"fivex", r"SHA-256 is [0-9a-f]{64} instead of"),
        (b"fifty5", r"size is 6 or more bytes instead of 5"),
    ],
)
def test_a_digest_reader_says_what_is_wrong_with_which_object(
    found: bytes, complaint: str, through: str
) -> None:
    reader = DigestReader(io.BytesIO(found), digest_of(b"fifty"), name="a/b", store="primary")
    with pytest.raises(DamagedError, match=f"a/b in primary is damaged: its {complaint}"):
        _read_through(reader, through)
    with pytest.raises(DamagedError):
        reader.read(1)


def _read_through(reader: DigestReader, through: str) -> None:
    if through == "drain":
        reader.drain()
    elif through == "read(-1)":
        reader.read()
    elif through == "readinto":
        buffer = bytearray(64)
        while reader.readinto(buffer):
            pass
    else:
        while reader.read(2):
            pass


def test_more_bytes_than_expected_are_refused_before_the_end_is_read() -> None:
    source = io.BytesIO(bytes(1000))
    reader = DigestReader(source, digest_of(bytes(5)))
    assert reader.read(5) == bytes(5)
    with pytest.raises(DamagedError, match="or more"):
        reader.read(5)
    assert source.tell() == 10


def test_the_last_bytes_of_a_damaged_stream_are_never_given_out() -> None:
    reader = DigestReader(io.BytesIO(b"abcx"), digest_of(b"abcd"))
    assert reader.read(3) == b"abc"
    with pytest.raises(DamagedError):
        reader.read(1)


def test_drain_returns_the_digest_of_the_whole() -> None:
    reader = DigestReader(io.BytesIO(b"abcd"), digest_of(b"abcd"))
    assert reader.read(1) == b"a"
    assert reader.drain() == digest_of(b"abcd")


def test_reading_no_bytes_is_not_the_end() -> None:
    reader = DigestReader(io.BytesIO(b"abcd"), digest_of(b"abcd"))
    assert reader.read(0) == b""
    assert reader.read() == b"abcd"


def test_closing_a_stand_in_leaves_the_stream_open() -> None:
    sink = io.BytesIO()
    with io.BufferedWriter(Unclosed(sink)) as buffered:
        buffered.write(b"abc")
    assert sink.getvalue() == b"abc"
    source = io.BytesIO(b"abc")
    with io.BufferedReader(Unclosed(source)) as reading:
        assert reading.read() == b"abc"
    assert not source.closed


def test_a_closed_wrapper_refuses_to_work() -> None:
    for stream in (DigestWriter(io.BytesIO()), Unclosed(io.BytesIO()), Framed(io.BytesIO())):
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.write(b"x")
    reader = DigestReader(io.BytesIO(b"x"))
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.read()


def test_a_finishing_writer_ends_its_stream_once_and_leaves_the_sink_open() -> None:
    sink = io.BytesIO()
    writer = Framed(sink)
    writer.write(b"ab")
    writer.close()
    writer.close()
    assert sink.getvalue() == b"ab."


def test_an_error_in_the_block_leaves_the_stream_without_its_end() -> None:
    sink = io.BytesIO()
    with pytest.raises(ZeroDivisionError), Framed(sink) as writer:
        writer.write(b"ab" * (1 // (writer.write(b"ab") - 2)))
    assert sink.getvalue() == b"ab"


def test_a_forgotten_writer_does_not_end_its_stream() -> None:
    sink = io.BytesIO()
    Framed(sink).write(b"ab")
    gc.collect()
    assert sink.getvalue() == b"ab"


def test_a_writer_that_failed_once_can_never_be_finished() -> None:
    sink = io.BytesIO()
    writer = Framed(sink)
    with pytest.raises(OSError, match="no space"):
        writer.write(b"!")
    with pytest.raises(ValueError, match="abandoned"):
        writer.close()
    assert sink.getvalue() == b""
