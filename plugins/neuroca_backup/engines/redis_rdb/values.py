"""Digests of values, the same however a server has chosen to write them.

A hash may be a table, a ziplist or a listpack, its fields in any order; a score may be text or
eight bytes. A digest is that of the value which a client sees. What has no order is digested as
a sum, so that a value of any size costs no memory.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from itertools import islice

from neuroca_backup.engines.redis_rdb.rdb import TYPES, skip_value
from neuroca_backup.engines.redis_rdb.reader import MalformedError, Reader

_MODULUS = 1 << 128
_PACKED = 2  # a quicklist's node that is a listpack; 1 is a plain string
_DELETED, _SAME_FIELDS = 1, 2  # flags of a stream's entry
_SPECIAL_SCORES = {253: "nan", 254: "inf", 255: "-inf"}


def digest(reader: Reader, form: int, *, moment: int) -> str:  # noqa: PLR0911 - one a type
    """Read the value and return its digest, 32 hex digits; "" for a module's value.

    Fields of a hash that have expired by `moment` (milliseconds since 1970) are left out.

    Raises:
        MalformedError: The value is not what its form says.
    """
    word = TYPES[form]
    try:
        if word == "module":
            skip_value(reader, form)
            return ""
        if word == "string":
            return _ordered([reader.string()])
        if word == "list":
            return _ordered(_list(reader, form))
        if word == "stream":
            return _ordered(_stream(reader, form))
        if word == "set":
            return _unordered((member,) for member in _set(reader, form))
        if word == "zset":
            scored = _zset(reader, form)
            return _unordered((member, struct.pack("<d", score)) for member, score in scored)
        return _unordered(
            (name, value, b"%d" % expiry)
            for name, value, expiry in _hash(reader, form)
            if not expiry or expiry > moment
        )
    except (IndexError, KeyError, ValueError, struct.error, RuntimeError) as error:
        raise MalformedError(
            f"a {word} does not decode ({type(error).__name__}) before offset {reader.offset:,}"
        ) from None


def _ordered(pieces: Iterable[bytes]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        total.update(len(piece).to_bytes(8, "little"))
        total.update(piece)
    return total.hexdigest()


def _unordered(elements: Iterable[tuple[bytes, ...]]) -> str:
    total = 0
    for pieces in elements:
        one = hashlib.blake2b(digest_size=16)
        for piece in pieces:
            one.update(len(piece).to_bytes(8, "little"))
            one.update(piece)
        total += int.from_bytes(one.digest(), "little")
    return f"{total % _MODULUS:032x}"


def _list(reader: Reader, form: int) -> Iterator[bytes]:
    if form == 10:
        yield from ziplist(reader.string())
        return
    for _ in range(reader.length()):
        if form == 14:
            yield from ziplist(reader.string())
        elif form == 18 and reader.length() == _PACKED:
            yield from listpack(reader.string())
        else:
            yield reader.string()


def _set(reader: Reader, form: int) -> Iterator[bytes]:
    if form == 11:
        return _intset(reader.string())
    if form == 20:
        return listpack(reader.string())
    return (reader.string() for _ in range(reader.length()))


def _zset(reader: Reader, form: int) -> Iterator[tuple[bytes, float]]:
    if form in {12, 17}:
        blob = reader.string()
        for member, text in _tuples(ziplist(blob) if form == 12 else listpack(blob), 2):
            yield member, float(text)
        return
    for _ in range(reader.length()):
        member = reader.string()
        if form == 5:
            (score,) = struct.unpack("<d", reader.take(8))
        else:
            size = reader.byte()
            score = float(_SPECIAL_SCORES.get(size) or reader.take(size))
        yield member, score


def _hash(reader: Reader, form: int) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield name, value, and when the field expires in milliseconds since 1970, 0 for never."""
    if form in {23, 25}:
        reader.skip(8 if form == 25 else 0)
        for name, value, expiry in _tuples(listpack(reader.string()), 3):
            yield name, value, int(expiry)
    elif form in {22, 24}:
        # Since 7.4 the times are counted, from one up, from the earliest of them.
        earliest = reader.number("<Q") if form == 24 else 1
        for _ in range(reader.length()):
            after = reader.length()
            yield reader.string(), reader.string(), earliest + after - 1 if after else 0
    elif form == 4:
        for _ in range(reader.length()):
            yield reader.string(), reader.string(), 0
    else:
        reading = {9: _zipmap, 13: ziplist, 16: listpack}[form]
        for name, value in _tuples(reading(reader.string()), 2):
            yield name, value, 0


def _stream(reader: Reader, form: int) -> Iterator[bytes]:
    """Yield entries, then the last id, then each group with its pending entries and consumers."""
    for _ in range(reader.length()):
        ms, sequence = struct.unpack(">QQ", reader.string())
        yield from _entries(listpack(reader.string()), ms, sequence)
    numbers = [reader.length() for _ in range(3 if form == 15 else 8)]
    yield b"last %d-%d" % (numbers[1], numbers[2])
    for _ in range(reader.length()):
        yield reader.string()
        yield b"group %d-%d" % (reader.length(), reader.length())
        if form != 15:
            reader.length()
        for _ in range(reader.length()):
            # The id, when it was delivered, how often.
            yield reader.take(16 + 8)
            yield b"%d" % reader.length()
        for _ in range(reader.length()):
            yield reader.string()
            # When the consumer was last seen or active changes with every look at it.
            reader.skip(16 if form == 21 else 8)
            for _ in range(reader.length()):
                yield reader.take(16)


def _entries(pieces: Iterator[bytes], ms: int, sequence: int) -> Iterator[bytes]:
    """Yield the entries of one node; the first of its pieces are the fields that most share."""
    count, deleted, width = (int(piece) for piece in islice(pieces, 3))
    shared = list(islice(pieces, width))
    next(pieces)
    for _ in range(count + deleted):
        flags, after_ms, after_sequence = (int(piece) for piece in islice(pieces, 3))
        if flags & _SAME_FIELDS:
            told = [piece for name in shared for piece in (name, next(pieces))]
        else:
            told = list(islice(pieces, 2 * int(next(pieces))))
        next(pieces)
        if not flags & _DELETED:
            yield b"entry %d-%d %d" % (ms + after_ms, sequence + after_sequence, len(told))
            yield from told


def _tuples(pieces: Iterator[bytes], size: int) -> Iterator[tuple[bytes, ...]]:
    for first in pieces:
        rest = tuple(islice(pieces, size - 1))
        if len(rest) != size - 1:
            raise ValueError
        yield (first, *rest)


def _intset(blob: bytes) -> Iterator[bytes]:
    width, count = struct.unpack_from("<II", blob)
    letter = {2: "h", 4: "i", 8: "q"}.get(width)
    if letter is None or len(blob) != 8 + width * count:
        raise ValueError
    for (number,) in struct.iter_unpack(f"<{letter}", blob[8:]):
        yield b"%d" % number


def ziplist(blob: bytes) -> Iterator[bytes]:
    """Yield the entries of a ziplist, integers as their digits."""
    position = 10
    while (previous := blob[position]) != 0xFF:
        position += 5 if previous == 0xFE else 1
        first = blob[position]
        if first < 0xC0:
            if first < 0x40:
                size, position = first, position + 1
            elif first < 0x80:
                size, position = (first & 0x3F) << 8 | blob[position + 1], position + 2
            else:
                size, position = int.from_bytes(blob[position + 1 : position + 5]), position + 5
            yield _piece(blob, position, size)
        elif 0xF1 <= first <= 0xFD:
            size, position = 0, position + 1
            yield b"%d" % ((first & 0x0F) - 1)
        else:
            size = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}[first]
            position += 1
            yield _integer(blob, position, size)
        position += size


def listpack(blob: bytes) -> Iterator[bytes]:
    """Yield the entries of a listpack, integers as their digits."""
    position = 6
    while (first := blob[position]) != 0xFF:
        begin = position
        position += 1
        if first < 0x80:
            size = 0
            yield b"%d" % first
        elif first < 0xC0:
            size = first & 0x3F
            yield _piece(blob, position, size)
        elif first < 0xE0:
            size = 1
            number = (first & 0x1F) << 8 | blob[position]
            yield b"%d" % (number - (1 << 13) if number >> 12 else number)
        elif first < 0xF0:
            size = (first & 0x0F) << 8 | blob[position]
            position += 1
            yield _piece(blob, position, size)
        elif first == 0xF0:
            size = int.from_bytes(blob[position : position + 4], "little")
            position += 4
            yield _piece(blob, position, size)
        else:
            size = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}[first]
            yield _integer(blob, position, size)
        position += size
        # Its own length follows, seven bits a byte, for who reads backwards.
        position += max(1, ((position - begin).bit_length() + 6) // 7)


def _zipmap(blob: bytes) -> Iterator[bytes]:
    """Yield names and values in turn; a value is followed by bytes that are free."""
    position = 1
    while blob[position] != 0xFF:
        for free in (False, True):
            size, position = blob[position], position + 1
            if size == 0xFE:
                size = int.from_bytes(blob[position : position + 4], "little")
                position += 4
            room = 0
            if free:
                room, position = blob[position], position + 1
            yield _piece(blob, position, size)
            position += size + room


def _piece(blob: bytes, position: int, size: int) -> bytes:
    if position + size > len(blob):
        raise ValueError
    return blob[position : position + size]


def _integer(blob: bytes, position: int, size: int) -> bytes:
    return b"%d" % int.from_bytes(_piece(blob, position, size), "little", signed=True)
