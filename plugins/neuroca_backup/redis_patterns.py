"""Patterns of Redis keys: the globs of SCAN MATCH, applied here as the server applies them."""

from __future__ import annotations

import re
from functools import lru_cache


def matches(pattern: bytes, key: bytes) -> bool:
    """Return whether `key` matches, by the rules of SCAN."""
    return pattern == b"*" or _compiled(pattern).fullmatch(key) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(_regex(pattern))


def _regex(pattern: bytes) -> bytes:
    """Return the regular expression of a glob: https://redis.io/docs/latest/commands/keys/."""
    found, position = b"(?s)", 0
    while position < len(pattern):
        one = pattern[position : position + 1]
        position += 1
        if one == b"*":
            found += b".*"
        elif one == b"?":
            found += b"."
        elif one == b"[" and (
            match := re.compile(rb"(\^?)((?:\\.|[^\]])+)\]").match(pattern, position)
        ):
            found += b"[" + match[1] + _class(match[2]) + b"]"
            position = match.end()
        else:
            if one == b"\\" and position < len(pattern):
                one = pattern[position : position + 1]
                position += 1
            found += re.escape(one)
    return found


def _class(words: bytes) -> bytes:
    """Return the inside of a character class, where only `-` and a backslash mean something."""
    found, pieces = b"", re.findall(rb"\\.|.", words, re.DOTALL)
    for piece in pieces:
        found += b"-" if piece == b"-" else re.escape(piece[-1:])
    return found
