"""The walk through an RDB, on bytes that real servers wrote and on bytes that none can write here.

Every encoding of this server's version is in `tests/services/test_redis.py`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.engines.redis_rdb import parts, rdb, values
from neuroca_backup.engines.redis_rdb.reader import MalformedError, Reader, unpacked
from neuroca_backup.errors import ConfigurationError, DamagedError, IncompatibleVersionError

# Written by Redis 7.0.15: a library of functions, a key of every type, two databases.
REDIS_7 = base64.b64decode(
    "UkVESVMwMDEw+glyZWRpcy12ZXIGNy4wLjE1+gpyZWRpcy1iaXRzwED6BWN0aW1lwlFjBmv6CHVzZWQtbWVtwoiuGQD6"
    "DnJlcGwtc3RyZWFtLWRiwAP6B3JlcGwtaWQoODllOTg1MjQ3OTI4ZDY5ZjhlOGM4YjMyOTY1YTk1N2JiYWVjMTA2Y/oL"
    "cmVwbC1vZmZzZXTBYQL6CGFvZi1iYXNlwAD1w0BXQFwfIyFsdWEgbmFtZT1uY2EKcmVkaXMucmVnaXN0ZXJfZnUPbmN0"
    "aW9uKCd0d2ljZScsIOAAERVrZXlzLCBhcmdzKSByZXR1cm4gMiAqYBAHWzFdIGVuZCn+APsGABMGc3RyZWFtARAAAAAA"
    "AAAAAQAAAAAAAAABHR0AAAAKAAEBAAEBAYFmAgABAgEAAQABgXYCBAH/AQEBAQEAAAEBAWcAAIH//////////wAAAAR0"
    "ZXh0BWhlbGxvBARoYXNoAgRuYW1lBXZhbHVlBW90aGVywAwSBGxpc3QBAhERAAAAAwCBYQIBAfKQ7v4E/wUEenNldAID"
    "dHdvAAAAAAAAAEAEaGFsZgAAAAAAAPg/AgdudW1iZXJzA8ABwAPAAv4D+wEB/ACsEtWzAwAAAANmYXLAAf8D1GJupPKL"
    "gQ=="
)
LIBRARY = (
    b"#!lua name=nca\nredis.register_function('twice', function(keys, args) return 2 * args[1] end)"
)


def text(data: bytes) -> bytes:
    return bytes([0x80]) + struct.pack(">I", len(data)) + data


def rdb_of(body: bytes, *, version: int = 12) -> bytes:
    return b"REDIS%04d" % version + body + b"\xff" + bytes(8)


def walked(data: bytes, visit: rdb.Visit | None = None) -> rdb.Contents:
    return rdb.walk(Reader(io.BytesIO(data).read), name="dump.rdb", visit=visit)


def digest(form: int, value: bytes, *, moment: int = 0) -> str:
    reader = Reader(io.BytesIO(value).read)
    found = values.digest(reader, form, moment=moment)
    assert reader.at_end()
    skipped = Reader(io.BytesIO(value).read)
    rdb.skip_value(skipped, form)
    assert skipped.at_end()
    return found


def listpack(pieces: Iterable[bytes]) -> bytes:
    """Return a listpack of short strings."""
    body = b"".join(bytes([0x80 | len(one)]) + one + bytes([len(one) + 1]) for one in pieces)
    return struct.pack("<IH", len(body) + 7, 0) + body + b"\xff"


def test_a_snapshot_of_redis_7_is_read_with_its_functions() -> None:
    found = walked(REDIS_7)
    assert (found.version, found.size) == (10, len(REDIS_7))
    assert found.aux["redis-ver"] == "7.0.15"
    assert found.functions == [hashlib.sha256(LIBRARY).hexdigest()]
    assert {number: one.facts() for number, one in found.databases.items()} == {
        0: {
            "keys": 6,
            "expiring": 0,
            "types": {"hash": 1, "list": 1, "set": 1, "stream": 1, "string": 1, "zset": 1},
        },
        3: {"keys": 1, "expiring": 1, "types": {"string": 1}},
    }


def test_values_of_redis_7_have_the_digests_of_what_a_client_sees() -> None:
    found = {}

    def visit(
        _: rdb.Contents, number: int, form: int, key: bytes, expiry: int, reader: Reader
    ) -> bool:
        found[key] = (number, values.digest(reader, form, moment=0), expiry)
        return True

    walked(REDIS_7, visit)
    assert found[b"far"] == (3, values._ordered([b"1"]), 4_070_908_800_000)
    assert found[b"text"][1] == values._ordered([b"hello"])
    assert found[b"list"][1] == values._ordered([b"a", b"1", b"-70000"])
    assert found[b"numbers"][1] == values._unordered((n,) for n in (b"3", b"1", b"2"))
    assert found[b"hash"][1] == digest(16, text(listpack([b"other", b"12", b"name", b"value"]))), (
        "a table and a listpack of the same fields"
    )
    assert found[b"zset"][1] == digest(17, text(listpack([b"half", b"1.5", b"two", b"2"])))


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_walk_does_not_depend_on_how_the_bytes_arrive(size: int) -> None:
    source = io.BytesIO(REDIS_7)
    found = rdb.walk(Reader(lambda _: source.read(size)), name="dump.rdb")
    assert found == walked(REDIS_7)


def test_a_snapshot_cut_anywhere_is_damaged() -> None:
    for end in range(len(REDIS_7)):
        with pytest.raises(DamagedError, match=r"dump\.rdb"):
            walked(REDIS_7[:end])


@given(st.binary(max_size=300))
def test_bytes_of_any_kind_are_damaged_or_read_but_nothing_else(data: bytes) -> None:
    def visit(
        _: rdb.Contents, number: int, form: int, key: bytes, expiry: int, reader: Reader
    ) -> bool:
        values.digest(reader, form, moment=0)
        return True

    for body in (data, b"\x0f\x01k" + data, b"\x10\x01k" + data):
        for way in (None, visit):
            try:
                walked(rdb_of(body), way)
            except DamagedError:
                continue


@pytest.mark.parametrize(("version", "error"), [(12, DamagedError), (13, IncompatibleVersionError)])
def test_an_unknown_type_is_damage_unless_the_snapshot_is_newer_than_this_program(
    version: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match="28"):
        walked(rdb_of(b"\x1c\x01k\x00", version=version))


def test_a_format_of_another_server_is_told_apart_from_damage() -> None:
    with pytest.raises(IncompatibleVersionError, match="Valkey"):
        walked(b"VALKEY080" + rdb_of(b"")[9:])


def test_fields_of_a_hash_that_expire_have_one_digest_in_all_forms() -> None:
    # 7.4 counts the times from the earliest, one up; a listpack holds them as they are.
    table = struct.pack("<Q", 5000) + b"\x02" + b"\x01" + b"\x01a\x01b" + b"\x00" + b"\x01c\x01d"
    packed = struct.pack("<Q", 5000) + text(listpack([b"c", b"d", b"0", b"a", b"b", b"5000"]))
    assert digest(24, table) == digest(25, packed)
    assert digest(24, table, moment=5000) == digest(4, b"\x01" + b"\x01c\x01d")
    assert digest(22, b"\x01" + b"\x53\x88" + b"\x01a\x01b") == digest(
        23, text(listpack([b"a", b"b", b"5000"]))
    )


def test_old_forms_of_hashes_and_scores_have_the_digests_of_new_ones() -> None:
    zipmap = b"\x01" + b"\x01a" + b"\x01\x02b__" + b"\xff"
    assert digest(9, text(zipmap)) == digest(4, b"\x01" + b"\x01a\x01b")
    scores = b"\x03" + b"\x01a\x031.5" + b"\x01b\xfe" + b"\x01c\xff"
    assert digest(3, scores) == digest(
        5,
        b"\x03"
        + b"".join(
            b"\x01" + name + struct.pack("<d", score)
            for name, score in ((b"c", float("-inf")), (b"a", 1.5), (b"b", float("inf")))
        ),
    )


def test_what_surrounds_keys_is_read_past() -> None:
    module = (
        b"\x07\x01m" + b"\x81" + bytes(8) + b"\x01\x05\x02\x07\x03abcd\x0412345678\x05\x02xy\x00"
    )
    found = walked(
        rdb_of(
            b"\xf7\x81" + bytes(8) + b"\x02\x02\x05\x03aux\x00"  # a module's own data
            b"\xf4\x01\x02\x03"  # slot sizes of a cluster
            b"\xfe\x02\xf8\x05\xf9\x07\xfd" + struct.pack("<I", 99) + b"\x00\x01k\x01v" + module
        )
    )
    assert found.databases[2].facts() == {
        "keys": 2,
        "expiring": 1,
        "types": {"module": 1, "string": 1},
    }
    assert found.modules == 1


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=32), st.integers(3, 264)), min_size=1))
def test_a_compressed_string_unpacks_also_where_a_copy_overlaps_itself(
    runs: list[tuple[bytes, int]],
) -> None:
    packed, plain = b"", b""
    for literal, length in runs:
        packed += bytes([len(literal) - 1]) + literal
        plain += literal
        if length < 9:
            packed += bytes([(length - 2) << 5, 0])
        else:
            packed += bytes([7 << 5, length - 9, 0])
        plain += plain[-1:] * length
    assert unpacked(packed) == plain
    assert unpacked(packed[:-1]) is None
    assert unpacked(b"\x20\x05") is None, "a copy from before the beginning"


def test_a_length_in_the_place_of_a_string_and_the_reverse_are_malformed() -> None:
    for read in (Reader.length, Reader.string):
        with pytest.raises(MalformedError, match="offset"):
            read(Reader(io.BytesIO(b"\xc9").read))


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*", [b"", b"any\nthing"], []),
        ("memory:stm:*", [b"memory:stm:1", b"memory:stm:"], [b"memory:ltm:1", b"xmemory:stm:1"]),
        ("h?llo", [b"hello", b"h.llo"], [b"hllo"]),
        ("h[ae]llo", [b"hello", b"hallo"], [b"hillo"]),
        ("h[^e]llo", [b"hallo"], [b"hello"]),
        ("h[a-c]llo", [b"hbllo"], [b"hdllo"]),
        ("a\\*b", [b"a*b"], [b"axb"]),
        ("a[\\]x]b", [b"a]b", b"axb"], [b"ayb"]),
        ("a.b+c", [b"a.b+c"], [b"axbbc"]),
        ("a[b", [b"a[b"], [b"ab"]),
    ],
)
def test_a_pattern_means_what_it_means_to_scan(
    pattern: str, yes: list[bytes], no: list[bytes]
) -> None:
    chosen = parts.parts([f"db1:{pattern}"], {"databases": {"1": {}}})
    assert all(chosen.has(1, key) for key in yes)
    assert not any(chosen.has(1, key) for key in no)
    assert not any(chosen.has(0, key) for key in yes)


@pytest.mark.parametrize("word", ["2", "db2", "neuroca", "1:", "-1", "", "1;*"])
def test_a_word_that_is_no_part_is_refused_with_what_there_is(word: str) -> None:
    with pytest.raises(ConfigurationError, match="db0, db1"):
        parts.parts([word], {"databases": {"0": {}, "1": {}}})
