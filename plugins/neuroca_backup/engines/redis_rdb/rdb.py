"""Walking through an RDB: what it holds, exactly, without a server and without decoding values.

Knows every type up to RDB version 12 (Redis 7.4). A type or opcode it does not know is an error,
never a guess.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from neuroca_backup.engines.redis_rdb.reader import MalformedError, Reader, UnknownFormError
from neuroca_backup.errors import DamagedError, IncompatibleVersionError

# The oldest server that reads each version of the format: RDB_VERSION in its rdb.h.
SERVER_OF_VERSION = {
    6: "2.6",
    7: "3.2",
    8: "4.0",
    9: "5.0",
    10: "7.0",
    11: "7.2",
    12: "7.4",
}

_SLOT_INFO, _FUNCTION, _MODULE_AUX, _IDLE, _FREQ, _AUX, _RESIZE = 244, 245, 247, 248, 249, 250, 251
_EXPIRE_MS, _EXPIRE, _SELECT, _EOF = 252, 253, 254, 255
_FIRST_OPCODE = 200
_CHECKSUM_SINCE = 5  # RDB version

# By the byte that says how a value is written: the word of the command TYPE for it.
TYPES = {
    0: "string",
    **dict.fromkeys((1, 10, 14, 18), "list"),
    **dict.fromkeys((2, 11, 20), "set"),
    **dict.fromkeys((3, 5, 12, 17), "zset"),
    **dict.fromkeys((4, 9, 13, 16, 22, 23, 24, 25), "hash"),
    **dict.fromkeys((15, 19, 21), "stream"),
    7: "module",
}
# Values that are one string to the format, whatever is in it.
_BLOBS = frozenset({0, 9, 10, 11, 12, 13, 16, 17, 20, 23})


@dataclass(slots=True)
class Database:
    """One logical database: its keys, those of them that expire, and its keys by type."""

    keys: int = 0
    expiring: int = 0
    types: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """Return this as it stands in a manifest."""
        return {
            "keys": self.keys,
            "expiring": self.expiring,
            "types": dict(sorted(self.types.items())),
        }


@dataclass(slots=True)
class Contents:
    """What an RDB holds. `size` is its length in bytes, `functions` digests of their libraries."""

    version: int = 0
    size: int = 0
    checksum: int = 0
    aux: dict[str, str] = field(default_factory=dict)
    databases: dict[int, Database] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    modules: int = 0

    @property
    def keys(self) -> int:
        """The keys of all databases."""
        return sum(database.keys for database in self.databases.values())

    @property
    def made_at(self) -> datetime | None:
        """When the server began to write it, to the second; None where it does not say."""
        seconds = self.aux.get("ctime", "")
        return datetime.fromtimestamp(int(seconds), UTC) if seconds.isdecimal() else None


# Given the number of the database, the value's form, the key, and when it expires (milliseconds
# since 1970, 0 for never); returns whether it has read the value.
Visit = Callable[[Contents, int, int, bytes, int, Reader], bool]


def walk(reader: Reader, *, name: str, visit: Visit | None = None) -> Contents:
    """Read one RDB from its magic to its checksum and return what it holds.

    `visit` sees every key. What follows the RDB is left unread.

    Raises:
        DamagedError: It has not the structure it should have; names `name` and the offset.
        IncompatibleVersionError: It holds something that only a newer program knows.
    """
    contents = Contents()
    try:
        _walk(reader, contents, visit)
    except UnknownFormError as error:
        known = max(SERVER_OF_VERSION)
        if contents.version <= known:
            raise _damaged(name, error) from None
        raise IncompatibleVersionError(
            f"{name} is an RDB of version {contents.version}: {error}",
            remedy=f"This program reads versions up to {known} (Redis {SERVER_OF_VERSION[known]}); "
            "use a newer one.",
            version=contents.version,
        ) from None
    except MalformedError as error:
        raise _damaged(name, error) from None
    return contents


def _damaged(name: str, error: MalformedError) -> DamagedError:
    return DamagedError(
        f"{name} is not a whole RDB: {error}",
        remedy="Restore from another store; a dump in the making is made again.",
        key=name,
    )


def _walk(  # noqa: C901, PLR0912 - one loop: a call for each key would take half the time
    reader: Reader, contents: Contents, visit: Visit | None
) -> None:
    _header(reader, contents)
    number, database, expiry = 0, Database(), 0
    byte, skip_strings, names = reader.byte, reader.skip_strings, TYPES
    while True:
        form = byte()
        word = names.get(form)
        if word is not None:
            if not database.keys:
                contents.databases[number] = database
            database.keys += 1
            database.types[word] += 1
            if expiry:
                database.expiring += 1
            if visit is None:
                if form in _BLOBS:
                    skip_strings(2)
                else:
                    skip_strings(1)
                    skip_value(reader, form)
            else:
                key = reader.string()
                if not visit(contents, number, form, key, expiry, reader):
                    skip_value(reader, form)
            expiry = 0
        elif form == _EXPIRE_MS:
            expiry = reader.number("<Q")
        elif form == _EXPIRE:
            expiry = reader.number("<I") * 1000
        elif form == _SELECT:
            number = reader.length()
            database = contents.databases.get(number) or Database()
        elif form == _EOF:
            break
        else:
            _opcode(reader, contents, form)
    if contents.version >= _CHECKSUM_SINCE:
        contents.checksum = reader.number("<Q")
    contents.size = reader.offset


def _header(reader: Reader, contents: Contents) -> None:
    magic = reader.take(9)
    if magic.startswith(b"VALKEY") and magic[6:].isdigit():
        contents.version = int(magic[6:])
        raise UnknownFormError("a format of Valkey's own")
    if not (magic.startswith(b"REDIS") and magic[5:].isdigit()):
        # The bytes may be anybody's data; they are not shown.
        reader.malformed("It does not begin with REDIS and a version")
    contents.version = int(magic[5:])


def _opcode(reader: Reader, contents: Contents, opcode: int) -> None:
    if opcode == _AUX:
        name, value = reader.string(), reader.string()
        contents.aux[name.decode(errors="replace")] = value.decode(errors="replace")
    elif opcode == _RESIZE:
        reader.length()
        reader.length()
    elif opcode == _FREQ:
        reader.byte()
    elif opcode == _IDLE:
        reader.length()
    elif opcode == _FUNCTION:
        contents.functions.append(hashlib.sha256(reader.string()).hexdigest())
    elif opcode == _SLOT_INFO:
        for _ in range(3):
            reader.length()
    elif opcode == _MODULE_AUX:
        contents.modules += 1
        _skip_module(reader)
    else:
        what = "opcode" if opcode >= _FIRST_OPCODE else "type"
        raise UnknownFormError(f"unknown {what} {opcode} at offset {reader.offset - 1:,}")


def skip_value(reader: Reader, form: int) -> None:  # noqa: C901, PLR0912 - one arm a form
    """Go past a value, decoding nothing of it."""
    if form in _BLOBS:
        reader.skip_strings(1)
    elif form in {1, 2, 14}:
        reader.skip_strings(reader.length())
    elif form == 4:
        reader.skip_strings(2 * reader.length())
    elif form == 5:
        reader.skip_strings(reader.length(), behind=8)
    elif form == 18:
        for _ in range(reader.length()):
            reader.length()
            reader.skip_strings(1)
    elif form == 3:
        for _ in range(reader.length()):
            reader.skip_strings(1)
            size = reader.byte()
            # 253 to 255 stand for not a number and the infinities.
            reader.skip(size if size < 253 else 0)
    elif form in {15, 19, 21}:
        _skip_stream(reader, form)
    elif form == 25:
        reader.skip(8)
        reader.skip_strings(1)
    elif form in {22, 24}:
        reader.skip(8 if form == 24 else 0)
        for _ in range(reader.length()):
            reader.length()
            reader.skip_strings(2)
    elif form == 7:
        _skip_module(reader)
    else:
        raise UnknownFormError(f"unknown type {form} at offset {reader.offset:,}")


def _skip_stream(reader: Reader, form: int) -> None:
    reader.skip_strings(2 * reader.length())
    # Length and last id; since version 10 the first id, the greatest deleted one, entries added.
    for _ in range(3 if form == 15 else 8):
        reader.length()
    for _ in range(reader.length()):
        reader.skip_strings(1)
        for _ in range(2 if form == 15 else 3):
            reader.length()
        for _ in range(reader.length()):
            reader.skip(16 + 8)
            reader.length()
        for _ in range(reader.length()):
            reader.skip_strings(1)
            reader.skip(16 if form == 21 else 8)
            reader.skip(16 * reader.length())


def _skip_module(reader: Reader) -> None:
    """Go past a module's value: its id, then pieces that each say what they are, then 0."""
    reader.length()
    while piece := reader.length():
        if piece in {1, 2}:
            reader.length()
        elif piece in {3, 4}:
            reader.skip(4 if piece == 3 else 8)
        elif piece == 5:
            reader.skip_strings(1)
        else:
            reader.malformed(f"A module's value has a piece of the unknown kind {piece}")
