"""The structure of model files: what is whole passes, whatever is cut off is found."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroca_backup.engines.model_weights import formats, torch_file
from neuroca_backup.engines.model_weights.sequential import TornError
from support import model_files

DATA = bytes(range(256)) * 40
WHOLE = {
    "model.safetensors": model_files.safetensors(weight=DATA, bias=b"abc", empty=b""),
    "model.pt": model_files.torch_zip(weight=DATA, bias=b"abc"),
    "pytorch_model.bin": model_files.torch_zip(weight=DATA),
    "old.pth": model_files.torch_legacy(DATA),
    "model.gguf": model_files.gguf(weight=DATA, bias=b"abc"),
    "model.safetensors.index.json": model_files.shard_index({"weight": "one.safetensors"}),
}


class Flowing(io.RawIOBase):
    """A stream that cannot be searched, and gives little at once, as a member does."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 777) if size >= 0 else size)


def flowing(data: bytes) -> BinaryIO:
    return Flowing(data)  # type: ignore[return-value]


def check(name: str, data: bytes) -> frozenset[str]:
    """Check both ways, which have to agree, and return the shards."""
    answers = []
    for stream in (io.BytesIO(data), flowing(data)):
        try:
            answers.append((formats.check(name, stream, len(data)), ""))
        except TornError as error:
            answers.append((frozenset(), str(error)))
    assert answers[0] == answers[1]
    if answers[0][1]:
        raise TornError(answers[0][1])
    return answers[0][0]


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_file_has_the_structure_that_its_name_promises(name: str) -> None:
    shards = check(name, WHOLE[name])
    assert shards == ({"one.safetensors"} if name.endswith(".json") else set())
    assert formats.known(name)
    check(name.upper(), WHOLE[name])


@pytest.mark.parametrize("name", [one for one in WHOLE if one != "old.pth"])
def test_a_file_that_is_cut_off_anywhere_is_torn(name: str) -> None:
    whole = WHOLE[name]
    cuts = {0, 1, 7, 8, 9, len(whole) // 2, *range(len(whole) - 200, len(whole))}
    for size in sorted(cuts & set(range(len(whole)))):
        if name.endswith(".bin") and size < 4:
            continue  # too little to tell whose file it is
        with pytest.raises(TornError):
            check(name, whole[:size])


def test_an_old_file_of_pytorch_that_is_cut_off_before_its_tensors_is_torn() -> None:
    whole = WHOLE["old.pth"]
    head = len(whole) - len(DATA) - 8
    check("old.pth", whole[:head])
    for size in range(head):
        with pytest.raises(TornError):
            check("old.pth", whole[:size])


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.gguf"])
def test_a_file_of_zeros_as_long_as_it_should_be_is_torn(name: str) -> None:
    with pytest.raises(TornError):
        check(name, bytes(len(WHOLE[name])))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
def test_bytes_after_the_end_are_found(name: str) -> None:
    with pytest.raises(TornError):
        check(name, WHOLE[name] + b"x")


def test_a_text_that_is_called_a_weight_is_torn_and_another_programs_bin_is_none_of_ours() -> None:
    for name in ("a.safetensors", "a.pt", "a.pth", "a.gguf"):
        with pytest.raises(TornError):
            check(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    for name in ("firmware.bin", "model.ckpt"):
        check(name, b"something else")
        check(name, b"")
    assert not formats.known("config.json")


def test_tensors_that_leave_a_hole_overlap_or_contradict_their_shape_are_torn() -> None:
    def header(*tensors: tuple[str, list[int], list[int]], size: int) -> bytes:
        text = json.dumps(
            {str(n): dict(zip(("dtype", "shape", "data_offsets"), one, strict=True))
             for n, one in enumerate(tensors)}
        ).encode()  # fmt: skip
        return struct.pack("<Q", len(text)) + text + bytes(size)

    check("a.safetensors", header(("F16", [2, 2], [0, 8]), ("U8", [1], [8, 9]), size=9))
    check("a.safetensors", header(("F99", [2, 2], [0, 9]), size=9))  # a kind of later times
    for tensors in (
        [("F16", [2, 2], [0, 8]), ("U8", [1], [9, 10])],
        [("F16", [2, 2], [0, 8]), ("U8", [2], [7, 9])],
        [("F16", [2, 3], [0, 8])],
        [("F16", [2, 2], [8, 0])],
        [("F16", [2, -2], [0, 8])],
    ):
        with pytest.raises(TornError):
            check("a.safetensors", header(*tensors, size=10))  # type: ignore[arg-type]


BOMBS = {
    "a.safetensors": struct.pack("<Q", 2**63) + b"{",
    "b.safetensors": struct.pack("<Q", 100) + b"[" * 100,
    "c.safetensors": struct.pack("<Q", 90_000) + b"{" + b'"a":[' * 17_999 + b"    ",
    "a.gguf": b"GGUF" + struct.pack("<IQQ", 3, 2**60, 1),
    "b.gguf": b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", 2**62),
    "c.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QIIQ", 0, 9, 0, 2**62),
    "d.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QI", 0, 99),
    "e.gguf": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "a.pth": torch_file.LEGACY_MAGIC + b"\x80\x02\x8d" + struct.pack("<Q", 2**40),
    "b.pth": torch_file.LEGACY_MAGIC + b"\x80\x02M\xe9\x03." + b"}" * 1000,
    "a.pt": b"PK\x03\x04" + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, 0, 0, 0),
    "b.pt": b"PK\x03\x04" + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 2**31, 2**31, 0),
    "a.safetensors.index.json": b"[]",
    "b.safetensors.index.json": b'{"weight_map": {"a": "../other/model.safetensors"}}',
    "c.safetensors.index.json": b'{"weight_map": {}}',
    "d.safetensors.index.json": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_promises_too_much_is_torn_and_takes_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TornError):
            check(name, BOMBS[name])
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_pickle_is_never_obeyed() -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
            return os.system, ("exit 1",)

    parts = [pickle.dumps(one, protocol=2) for one in (1001, Evil(), [Evil()], [])]
    check("evil.pth", torch_file.LEGACY_MAGIC + b"".join(parts))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
    check("evil.pt", out.getvalue())


def test_a_zip_with_its_long_form_is_read() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(70_000):  # more than the short form can count
            archive.writestr(f"archive/data/{number}", b"")
        archive.writestr("archive/data.pkl", b"x")
    check("model.pt", out.getvalue())
    with pytest.raises(TornError):
        check("model.pt", out.getvalue()[:-30])


def test_a_directory_that_lost_an_entry_or_points_behind_itself_is_torn() -> None:
    whole = WHOLE["model.pt"]
    start = whole.index(b"PK\x01\x02")
    for position in (start + 42, start + 20):  # its offset, its size
        damaged = bytearray(whole)
        damaged[position : position + 4] = struct.pack("<L", len(whole))
        with pytest.raises(TornError, match="behind it"):
            check("model.pt", bytes(damaged))
    damaged = bytearray(whole)
    damaged[start] ^= 1
    with pytest.raises(TornError, match="damaged"):
        check("model.pt", bytes(damaged))


@given(
    name=st.sampled_from(sorted(WHOLE)), seed=st.integers(0, 2**32), noise=st.binary(max_size=64)
)
@settings(max_examples=300, deadline=None)
def test_no_damage_whatever_gives_another_error_than_torn(
    name: str, seed: int, noise: bytes
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the example decides
    damaged = bytearray(WHOLE[name])
    at = chance.randrange(min(len(damaged), 600))
    if chance.random() < 0.5:
        at = len(damaged) - at  # the end, where a zip has its directory
    damaged[at : at + len(noise)] = noise
    with contextlib.suppress(TornError):
        check(name, bytes(damaged))
