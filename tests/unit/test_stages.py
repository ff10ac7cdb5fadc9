from __future__ import annotations

import gc
import io
import os
import random
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, BinaryIO

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroca_backup.errors import (
    DamagedError,
    IncompatibleVersionError,
    StoreUnavailableError,
)
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.stages.compression import MAX_WINDOW_BYTES, ZstdStage
from neuroca_backup.stages.resolve import DEFAULT, backward_all, forward_all, resolve
from neuroca_backup.stages.sealing import SealingStage, associated_data

if TYPE_CHECKING:
    from neuroca_backup.stages import Stage

MIB = 1024 * 1024
REF = BackupRef("20261123T020000Z-1f0c9a3e-postgres", Component.DATABASE)
KEYSET = Keyset.generate()
SEALING = SealingStage(KEYSET, REF)
CHAINS: dict[str, list[Stage]] = {
    "zstd": [ZstdStage(level=1, threads=0)],
    "zstd, threads": [ZstdStage(level=3, threads=2)],
    "sealing": [SEALING],
    "both": resolve(DEFAULT, keyset=KEYSET, ref=REF),
    "none": [],
}


def forward(stages: list[Stage], data: bytes, *, member: str = "m", piece: int = MIB) -> bytes:
    sink = io.BytesIO()
    with forward_all(stages, sink, member=member) as writer:
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
    return sink.getvalue()


def backward(stages: list[Stage], stored: bytes, *, member: str = "m", piece: int = MIB) -> bytes:
    source = io.BytesIO(stored)
    with backward_all(stages, source, member=member) as reader:
        data = b"".join(iter(lambda: reader.read(piece), b""))
    assert not source.closed
    return data


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)  # noqa: S311 - the same noise every time


@pytest.mark.parametrize("chain", CHAINS)
@given(data=st.binary(max_size=3000), piece=st.integers(1, 4000), read=st.integers(1, 4000))
@settings(max_examples=40, deadline=None)
def test_any_bytes_in_any_pieces_come_back(chain: str, data: bytes, piece: int, read: int) -> None:
    stored = forward(CHAINS[chain], data, piece=piece)
    assert backward(CHAINS[chain], stored, piece=read) == data


# Tink's first segment holds 1 MiB less 40 bytes of header and 16 of tag, later ones less the tag.
FIRST, LATER = MIB - 56, MIB - 16


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize(
    "size",
    [0, 1]
    + [border + step for border in (128 * 1024, FIRST, MIB, FIRST + LATER) for step in (-1, 0, 1)]
    + [3 * MIB + 17],
)
def test_sizes_around_blocks_segments_and_chunks_come_back(chain: str, size: int) -> None:
    data = noise(size)
    assert backward(CHAINS[chain], forward(CHAINS[chain], data)) == data


@given(size=st.integers(0, 2 * MIB), piece=st.integers(1, 2 * MIB), zeros=st.booleans())
@settings(max_examples=25, deadline=None)
def test_large_members_in_odd_pieces_come_back(size: int, piece: int, zeros: bool) -> None:  # noqa: FBT001 - drawn
    piece = max(piece, size // 50)
    data = bytes(size) if zeros else noise(size)
    stored = forward(CHAINS["both"], data, piece=piece)
    assert backward(CHAINS["both"], stored, piece=piece) == data


@pytest.mark.parametrize("chain", ["zstd", "sealing", "both"])
def test_a_reader_gives_as_many_bytes_as_asked_for_until_the_end(chain: str) -> None:
    stored = forward(CHAINS[chain], noise(2 * MIB + 5))
    with backward_all(CHAINS[chain], io.BytesIO(stored), member="m") as reader:
        sizes = [len(part) for part in iter(lambda: reader.read(700_000), b"")]
    assert sizes == [700_000, 700_000, 2 * MIB + 5 - 1_400_000]


SMALL = b"a small member, " * 4


def test_every_flipped_bit_of_a_compressed_and_sealed_member_is_found() -> None:
    stored = forward(CHAINS["both"], SMALL)
    survivors = []
    for position in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[position // 8] ^= 1 << position % 8
        try:
            backward(CHAINS["both"], bytes(changed))
        except DamagedError:
            continue
        survivors.append(position)
    assert survivors == []


@pytest.mark.parametrize("chain", ["zstd", "zstd, threads", "sealing", "both"])
def test_a_small_member_cut_anywhere_is_damaged(chain: str) -> None:
    stored = forward(CHAINS[chain], SMALL)
    for length in range(len(stored)):
        with pytest.raises(DamagedError, match="member m is damaged"):
            backward(CHAINS[chain], stored[:length])


@pytest.mark.parametrize("chain", ["sealing", "both"])
def test_a_large_member_cut_at_a_segment_is_damaged_in_the_end(chain: str) -> None:
    stored = forward(CHAINS[chain], noise(3 * MIB))
    for border in (MIB, 2 * MIB, 3 * MIB, len(stored)):
        for length in (border - 1, border, border + 1):
            if length < len(stored):
                with pytest.raises(DamagedError):
                    backward(CHAINS[chain], stored[:length])


def test_a_compressed_member_cut_between_its_blocks_is_damaged() -> None:
    stored = forward(CHAINS["zstd"], noise(3 * MIB))
    # Noise is stored in blocks of 128 KiB, each after 3 bytes; the frame's header has 6.
    for border in range(6, len(stored), 128 * 1024 + 3):
        with pytest.raises(DamagedError, match="ends early"):
            backward(CHAINS["zstd"], stored[:border])


@pytest.mark.parametrize("chain", ["zstd", "sealing", "both"])
@pytest.mark.parametrize("size", [0, 64, MIB + 7])
def test_bytes_after_the_end_are_damage(chain: str, size: int) -> None:
    stored = forward(CHAINS[chain], noise(size))
    for extra in (b"\0", noise(100), noise(2 * MIB), stored):
        with pytest.raises(DamagedError):
            backward(CHAINS[chain], stored + extra)


def test_an_error_is_never_followed_by_an_end() -> None:
    stored = forward(CHAINS["both"], SMALL)[:-1]
    with backward_all(CHAINS["both"], io.BytesIO(stored), member="m") as reader:
        for _ in range(3):
            with pytest.raises(DamagedError):
                reader.read(10)


def test_a_member_in_the_place_of_another_is_damaged() -> None:
    stored = forward([SEALING], SMALL, member="accounts")
    with pytest.raises(DamagedError, match="orders"):
        backward([SEALING], stored, member="orders")


@pytest.mark.parametrize(
    "other",
    [
        BackupRef("20261124T020000Z-1f0c9a3e-postgres", Component.DATABASE),
        BackupRef("20261123T020000Z-1f0c9a3e-redis", Component.DATABASE),
        BackupRef(REF.backup_id, Component.LOGS),
    ],
)
def test_a_member_of_another_backup_is_damaged(other: BackupRef) -> None:
    stored = forward([SEALING], SMALL)
    with pytest.raises(DamagedError):
        backward([SealingStage(KEYSET, other)], stored)


def test_another_keyset_does_not_unseal() -> None:
    stored = forward([SEALING], SMALL)
    with pytest.raises(DamagedError):
        backward([SealingStage(Keyset.generate(), REF)], stored)


def test_segments_that_changed_places_are_damaged() -> None:
    stored = forward([SEALING], noise(4 * MIB))
    swapped = stored[:MIB] + stored[2 * MIB : 3 * MIB] + stored[MIB : 2 * MIB] + stored[3 * MIB :]
    with pytest.raises(DamagedError):
        backward([SEALING], swapped)


def test_sealed_bytes_hold_nothing_of_the_plain_ones_and_never_repeat() -> None:
    first, second = forward([SEALING], SMALL), forward([SEALING], SMALL)
    assert SMALL[:8] not in first
    assert first != second


def test_the_associated_data_is_what_the_format_says() -> None:
    assert (
        associated_data(REF, member='weights/é "1"')
        == (
            '{"backup_id":"20261123T020000Z-1f0c9a3e-postgres",'
            '"component":"database","member":"weights/é \\"1\\""}'
        ).encode()
    )


def _unseal_by_the_book(stored: bytes, secret: bytes, bound: bytes) -> bytes:
    """Unseal without Tink, from what docs/reference/format.md says and nothing else."""
    field = b"\x1a\x20"
    key = secret[secret.index(field, secret.index(b"AesGcmHkdfStreamingKey")) + len(field) :][:32]
    assert stored[0] == 40
    salt, prefix = stored[1:33], stored[33:40]
    derived = HKDF(algorithm=SHA256(), length=32, salt=salt, info=bound).derive(key)
    plain, start, number = b"", 40, 0
    while True:
        end = min((number + 1) * MIB, len(stored))
        last = end == len(stored)
        nonce = prefix + number.to_bytes(4, "big") + bytes([last])
        plain += AESGCM(derived).decrypt(nonce, stored[start:end], b"")
        if last:
            return plain
        start, number = end, number + 1


@pytest.mark.parametrize("size", [0, 100, FIRST, FIRST + 1, FIRST + LATER, 3 * MIB])
def test_a_decoder_written_from_the_format_page_reads_a_member(size: int) -> None:
    stored = forward(CHAINS["both"], noise(size), member="base.tar")
    compressed = _unseal_by_the_book(stored, KEYSET.secret, associated_data(REF, member="base.tar"))
    assert zstandard.ZstdDecompressor().decompressobj().decompress(compressed) == noise(size)


def test_a_frame_carries_a_checksum_and_a_small_window() -> None:
    for level in (1, 3, 19):
        stored = forward([ZstdStage(level=level)], noise(200_000))
        parameters = zstandard.get_frame_parameters(stored)
        assert parameters.has_checksum
        assert parameters.window_size <= MAX_WINDOW_BYTES
        assert zstandard.ZstdDecompressor().decompressobj().decompress(stored) == noise(200_000)


def test_a_frame_that_asks_for_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    hostile = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stored = hostile.compress(SMALL) + hostile.flush()
    assert zstandard.get_frame_parameters(stored).window_size == 128 * MIB
    with pytest.raises(DamagedError, match="memory"):
        backward(CHAINS["zstd"], stored)


def test_a_skippable_frame_or_other_bytes_are_no_member() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    for stored in (skippable, skippable + forward(CHAINS["zstd"], SMALL), b"not zstd at all"):
        with pytest.raises(DamagedError):
            backward(CHAINS["zstd"], stored)


@pytest.mark.parametrize("chain", ["zstd", "sealing", "both"])
@pytest.mark.parametrize("size", [0, 100, 2 * MIB])
def test_an_error_while_writing_leaves_nothing_that_reads_back(chain: str, size: int) -> None:
    sink = io.BytesIO()

    def produce() -> None:
        with forward_all(CHAINS[chain], sink, member="m") as writer:
            writer.write(noise(size))
            # What a library does with the stream it was given must not count as the end.
            writer.close()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        produce()
    gc.collect()
    assert not sink.closed
    with pytest.raises(DamagedError):
        backward(CHAINS[chain], sink.getvalue())


@pytest.mark.parametrize("chain", ["zstd", "sealing"])
def test_a_forgotten_writer_leaves_nothing_that_reads_back(chain: str) -> None:
    sink = io.BytesIO()
    CHAINS[chain][0].forward(sink, member="m").write(SMALL)
    gc.collect()
    with pytest.raises(DamagedError):
        backward(CHAINS[chain], sink.getvalue())


class Failing(io.RawIOBase):
    """Fails with a given error after a number of bytes, in both directions."""

    def __init__(self, error: BaseException, *, after: int, stored: bytes = b"") -> None:
        self._error = error
        self._left = after
        self._source = io.BytesIO(stored)

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        size = len(memoryview(data))  # type: ignore[arg-type]
        self._left -= size
        if self._left < 0:
            raise self._error
        return size

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(min(size, self._left))
        self._left -= len(data)
        if not data:
            raise self._error
        return data


OUTAGE = StoreUnavailableError("The store went away", remedy="Wait.")


@pytest.mark.parametrize("chain", ["zstd", "sealing", "both"])
@pytest.mark.parametrize("after", [0, 30, MIB, 2 * MIB])
@pytest.mark.parametrize("error", [OUTAGE, KeyboardInterrupt()])
def test_the_error_of_a_store_arrives_unchanged(
    chain: str, after: int, error: BaseException
) -> None:
    data = noise(3 * MIB)

    def write() -> None:
        with forward_all(CHAINS[chain], Failing(error, after=after), member="m") as writer:
            writer.write(data)

    with pytest.raises(type(error)) as written:
        write()
    assert written.value is error
    source = Failing(error, after=after, stored=forward(CHAINS[chain], data))

    def read() -> None:
        with backward_all(CHAINS[chain], source, member="m") as reader:
            while reader.read(MIB):
                pass

    with pytest.raises(type(error)) as got:
        read()
    assert got.value is error


class Trickle(io.RawIOBase):
    """Takes and gives few bytes at once, as a socket may."""

    def __init__(self, stored: bytes = b"") -> None:
        self.taken = bytearray()
        self._source = io.BytesIO(stored)

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data)[:1009])  # type: ignore[arg-type]
        self.taken += piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        return self._source.read(min(size, 1013))


@pytest.mark.parametrize("chain", CHAINS)
def test_short_writes_and_short_reads_lose_nothing(chain: str) -> None:
    data, sink = noise(MIB + 100_000), Trickle()
    with forward_all(CHAINS[chain], sink, member="m") as writer:
        writer.write(data)
    with backward_all(CHAINS[chain], Trickle(bytes(sink.taken)), member="m") as reader:
        assert reader.read() == data


class Broken:
    """A stage that cannot write its end."""

    name = "broken"

    def forward(self, sink: BinaryIO, *, member: str) -> BinaryIO:  # noqa: ARG002 - the contract
        class Writer(io.BytesIO):
            def close(self) -> None:
                raise StoreUnavailableError("No end", remedy="Wait.")

        return Writer()

    def backward(self, source: BinaryIO, *, member: str) -> BinaryIO:
        raise NotImplementedError


def test_when_one_stage_cannot_finish_the_stages_after_it_do_not_finish_either() -> None:
    sink = io.BytesIO()
    with pytest.raises(StoreUnavailableError), forward_all([Broken(), SEALING], sink, member="m"):
        pass
    with pytest.raises(DamagedError):
        backward([SEALING], sink.getvalue())


def test_a_manifest_with_an_unknown_stage_is_refused() -> None:
    with pytest.raises(IncompatibleVersionError, match=r"'rot13'.*zstd, tink-aes256-gcm-hkdf-1mb"):
        resolve(["zstd", "rot13"], keyset=KEYSET, ref=REF)


def test_stages_are_applied_in_the_order_of_their_names() -> None:
    stored = forward(resolve(DEFAULT, keyset=KEYSET, ref=REF), SMALL)
    compressed = backward([SEALING], stored)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(compressed) == SMALL


def test_tink_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, neuroca_backup.stages.resolve, neuroca_backup.keyring.keys_document;"
        "print('tink' in sys.modules)"
    )
    assert _python(code).strip() == "False"


FLAT = """
    import io, os, resource
    from neuroca_backup.keyring.keyset import Keyset
    from neuroca_backup.model.identity import BackupRef, Component
    from neuroca_backup.stages.resolve import DEFAULT, backward_all, forward_all, resolve
    MIB = 1024 * 1024
    ref = BackupRef("20261123T020000Z-1f0c9a3e-postgres", Component.DATABASE)
    stages = resolve(DEFAULT, keyset=Keyset.generate(), ref=ref)
    half = os.urandom(MIB // 2) + bytes(MIB // 2)
    def run(mebibytes, piece):
        with open("stored", "wb") as sink, forward_all(stages, sink, member="m") as writer:
            for _ in range(mebibytes // (len(piece) // MIB)):
                writer.write(piece)
        size = 0
        with open("stored", "rb") as source, backward_all(stages, source, member="m") as reader:
            while data := reader.read(MIB):
                size += len(data)
        assert size == mebibytes * MIB, size
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(run(16, half), run(200, half))
"""


def test_memory_stays_flat_for_200_mebibytes(tmp_path: object) -> None:
    small, large = map(int, _python(textwrap.dedent(FLAT), cwd=str(tmp_path)).split())
    assert large - small < 24, f"{small} MiB after 16 MiB, {large} MiB after 200 MiB"


def test_a_frame_of_nothing_but_zeros_does_not_fill_the_memory(tmp_path: object) -> None:
    bomb = textwrap.dedent(FLAT).replace("run(16, half), run(200, half)", "run(16, half), bomb()")
    bomb = bomb.replace(
        "print(",
        textwrap.dedent("""
            def bomb():
                # 4 bytes a block: run-length blocks of 128 KiB of zeros, 2 GiB in 64 KiB.
                block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"\\0"
                frame = bytes.fromhex("28b52ffd0058") + block * 16384
                size = 0
                with backward_all(stages[:1], io.BytesIO(frame), member="m") as reader:
                    try:
                        while data := reader.read(MIB):
                            size += len(data)
                    except Exception as error:
                        assert "ends early" in str(error), error
                assert size == 2048 * MIB, size
                return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print("""),
    )
    small, large = map(int, _python(bomb, cwd=str(tmp_path)).split())
    assert large - small < 200, f"{small} MiB before, {large} MiB after"


def _python(code: str, *, cwd: str | None = None) -> str:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=cwd,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def test_what_hardly_shrinks_is_compressed_at_the_quickest_level_and_the_rest_as_told() -> None:
    chance = random.Random(7)  # noqa: S311 - the same bytes every time
    weights = bytearray(chance.randbytes(3 * MIB))
    weights[1::2] = bytes(0x30 + byte % 16 for byte in weights[1::2])  # as exponents are: alike
    text = b"".join(
        b"memory %d of the semantic tier\n" % chance.randrange(10**6) for _ in range(10**5)
    )
    for data, level, other in ((bytes(weights), 1, 12), (text, 12, 1)):
        stored = forward([ZstdStage(level=12, threads=0)], data)
        assert stored == at_level(data, level) != at_level(data, other)
        assert backward([ZstdStage()], stored) == data


def at_level(data: bytes, level: int) -> bytes:
    chunker = zstandard.ZstdCompressor(level=level, write_checksum=True).chunker()
    return b"".join([*chunker.compress(data), *chunker.finish()])
