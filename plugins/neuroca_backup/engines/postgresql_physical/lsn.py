"""Positions in the write-ahead log (LSN) and the names of the files that hold them.

https://www.postgresql.org/docs/current/wal-internals.html
"""

from __future__ import annotations

_WORD = 1 << 32


def parse(text: str) -> int:
    """Return the position that PostgreSQL prints as `0/16F2738`, in bytes."""
    high, low = text.split("/")
    return int(high, 16) * _WORD + int(low, 16)


def printed(position: int) -> str:
    """Return a position as PostgreSQL prints it."""
    return f"{position // _WORD:X}/{position % _WORD:X}"


def segment_start(position: int, segment_bytes: int) -> int:
    """Return where the file that holds `position` begins."""
    return position - position % segment_bytes


def segment_name(position: int, *, timeline: int, segment_bytes: int) -> str:
    """Return the name of the file that holds `position`, e.g. `000000010000000000000003`."""
    number, per_word = position // segment_bytes, _WORD // segment_bytes
    return f"{timeline:08X}{number // per_word:08X}{number % per_word:08X}"
