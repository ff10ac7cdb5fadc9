"""Members of JSON Lines: one object a line, bytes that are no text as base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from neuroca_backup.errors import DamagedError

_BASE64 = "base64"
# Nothing that is written here makes a longer line.
LONGEST_LINE = 256 * 1024 * 1024
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line."""
    return _ENCODER.encode(record).encode() + b"\n"


def lines(stream: BinaryIO, *, name: str) -> Iterator[bytes]:
    """Yield the lines of a member, without their ends.

    Raises:
        DamagedError: The last line has no end, or one is too long; names the member.
    """
    rest = b""
    while data := stream.read(1024 * 1024):
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
        if len(rest) > LONGEST_LINE:
            raise damaged(name, f"has a line of more than {LONGEST_LINE} bytes")
    if rest:
        raise damaged(name, "ends within a line")


def records(stream: BinaryIO, *, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and record of each line; raises as `lines` does, and where one is no object."""
    for number, text in enumerate(lines(stream, name=name), 1):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise damaged(name, f"holds no object in line {number}")
        yield number, record


def packed(data: bytes) -> str | dict[str, str]:
    """Return bytes as JSON: text where they are UTF-8, else an object with base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {_BASE64: base64.b64encode(data).decode()}


def unpacked(value: Any) -> bytes:
    """Return the bytes that `packed` was given.

    Raises:
        ValueError: It is nothing that `packed` gives.
    """
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and set(value) == {_BASE64}:
        try:
            return base64.b64decode(value[_BASE64], validate=True)
        except (binascii.Error, TypeError):
            pass
    raise ValueError("neither text nor base64")


def damaged(name: str, what: str) -> DamagedError:
    """Return the error for a member that is not what it should be."""
    return DamagedError(
        f"{name} {what}",
        remedy="Restore from another store or an older backup; then look why it was made so.",
        key=name,
    )
