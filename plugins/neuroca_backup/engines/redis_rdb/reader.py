"""Reading the primitives of an RDB: lengths, strings, numbers; forward only, memory flat.

The format is described by the server's own source alone:
https://github.com/redis/redis/blob/7.2/src/rdb.c and rdb.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NoReturn

CHUNK_BYTES = 1024 * 1024

# The first byte of a string that is not just its length: an integer, or compressed by LZF.
_INT8, _INT16, _INT32, _LZF = 0xC0, 0xC1, 0xC2, 0xC3
_LENGTH_32, _LENGTH_64 = 0x80, 0x81
_LONGEST_HEADER = 9  # bytes of a length
_SIZES = {"b": 1, "h": 2, "i": 4, "I": 4, "Q": 8}
_INTEGERS = {_INT8: "<b", _INT16: "<h", _INT32: "<i"}


class MalformedError(Exception):
    """Bytes are not what the format asks for; says what was found, and at which offset."""


class UnknownFormError(MalformedError):
    """A type or an opcode that this program does not know; perhaps of a newer server."""


class Reader:
    """Takes the pieces of an RDB from `read(size)`, which gives `b""` at its end."""

    __slots__ = ("_base", "_buffer", "_end", "_ended", "_position", "_read")

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._position = 0
        self._end = 0
        self._base = 0
        self._ended = False

    @property
    def offset(self) -> int:
        """How many bytes have been consumed."""
        return self._base + self._position

    def malformed(self, problem: str) -> NoReturn:
        """Raise `MalformedError` with the offset."""
        raise MalformedError(f"{problem} at offset {self.offset:,}")

    def _fill(self) -> None:
        """Drop what was consumed and append one more piece, if there is one."""
        self._base += self._position
        piece = b"" if self._ended else self._read(CHUNK_BYTES)
        self._ended = not piece
        self._buffer = self._buffer[self._position :] + piece
        self._position, self._end = 0, len(self._buffer)

    def at_end(self) -> bool:
        """Return whether nothing is left."""
        while self._position == self._end and not self._ended:
            self._fill()
        return self._position == self._end

    def byte(self) -> int:
        """Return the next byte."""
        while self._position == self._end:
            if self._ended:
                self.malformed("It ends early")
            self._fill()
        found = self._buffer[self._position]
        self._position += 1
        return found

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        begin, end = self._position, self._position + size
        if end <= self._end:
            self._position = end
            return self._buffer[begin:end]
        pieces, missing = [self._buffer[begin:]], end - self._end
        self._position = self._end
        while missing:
            self._fill()
            if self._ended:
                self.malformed("It ends early")
            self._position = min(missing, self._end)
            pieces.append(self._buffer[: self._position])
            missing -= self._position
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        """Go past the next `size` bytes."""
        self._position += size
        while self._position > self._end:
            missing = self._position - self._end
            self._position = self._end
            self._fill()
            if self._ended:
                self.malformed("It ends early")
            self._position = missing

    def number(self, form: str) -> int:
        """Return an integer of fixed size, `form` being that of the `struct` module."""
        (found,) = struct.unpack(form, self.take(_SIZES[form[1]]))
        return int(found)

    def length(self) -> int:
        """Return a length; a string's special form in its place is an error."""
        first = self.byte()
        if first < 0x40:
            return first
        if first < 0x80:
            return (first & 0x3F) << 8 | self.byte()
        if first == _LENGTH_32:
            return self.number(">I")
        if first == _LENGTH_64:
            return self.number(">Q")
        return self.malformed(f"There is no length but byte {first:#04x}")

    def string(self) -> bytes:  # noqa: PLR0911 - one for each form
        """Return a string, an integer as its digits."""
        first = self.byte()
        if first < 0x40:
            return self.take(first)
        if first < 0x80:
            return self.take((first & 0x3F) << 8 | self.byte())
        if first in _INTEGERS:
            return b"%d" % self.number(_INTEGERS[first])
        if first == _LZF:
            packed, size = self.length(), self.length()
            return self._unpacked(self.take(packed), size)
        if first == _LENGTH_32:
            return self.take(self.number(">I"))
        if first == _LENGTH_64:
            return self.take(self.number(">Q"))
        return self.malformed(f"There is no string but byte {first:#04x}")

    def skip_strings(self, count: int, *, behind: int = 0) -> None:
        """Go past `count` strings, each followed by `behind` more bytes, decoding none.

        Nearly all the time of reading an RDB is spent here, so nothing is called where the
        string lies in the buffer.
        """
        buffer, position, end = self._buffer, self._position, self._end
        while count:
            count -= 1
            if position + _LONGEST_HEADER > end and not self._ended:
                self._position = position
                self._fill()
                buffer, position, end = self._buffer, self._position, self._end
            if position >= end:
                self._position = position
                self.malformed("It ends early")
            first = buffer[position]
            if first < 0x40:
                position += 1 + first + behind
            elif first < 0x80 and position + 1 < end:
                position += 2 + ((first & 0x3F) << 8 | buffer[position + 1]) + behind
            elif first == _LZF and position + 5 <= end and buffer[position + 1] < 0x80:
                # Two lengths: packed, which is skipped, and unpacked, whose form alone matters.
                packed = buffer[position + 1]
                position += 2
                if packed >= 0x40:
                    packed = (packed & 0x3F) << 8 | buffer[position]
                    position += 1
                form = buffer[position]
                position += packed + behind + (1 if form < 0x40 else 2 if form < 0x80 else 5)
                if form > _LENGTH_32:
                    self._position = min(position, end)
                    self.malformed("A compressed string has no length")
            else:
                self._position = position
                self._skip_long_string()
                self.skip(behind)
                buffer, position, end = self._buffer, self._position, self._end
                continue
            if position > end:
                self._position = end
                self.skip(position - end)
                buffer, position, end = self._buffer, self._position, self._end
        self._position = position

    def _skip_long_string(self) -> None:
        first = self.byte()
        if first < 0x80:
            self.skip((first & 0x3F) << 8 | self.byte())
        elif first in _INTEGERS:
            self.skip(_SIZES[_INTEGERS[first][1]])
        elif first == _LZF:
            packed = self.length()
            self.length()
            self.skip(packed)
        elif first == _LENGTH_32:
            self.skip(self.number(">I"))
        elif first == _LENGTH_64:
            self.skip(self.number(">Q"))
        else:
            self.malformed(f"There is no string but byte {first:#04x}")

    def _unpacked(self, packed: bytes, size: int) -> bytes:
        found = unpacked(packed)
        if found is None or len(found) != size:
            self.malformed("A compressed string does not unpack")
        return found


def unpacked(packed: bytes) -> bytes | None:
    """Return what LibLZF has packed, None where that is impossible.

    A control byte below 32 is followed by one literal byte more than it says; any other gives
    the length of a copy in its upper three bits (seven of them: one more byte) and, with the
    byte after it, how far back the copy begins: http://oldhome.schmorp.de/marc/liblzf.html.
    """
    out, position, end = bytearray(), 0, len(packed)
    try:
        while position < end:
            control = packed[position]
            position += 1
            if control < 0x20:
                if position + control >= end:
                    return None
                out += packed[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[position]
                position += 1
            length += 2
            begin = len(out) - ((control & 0x1F) << 8 | packed[position]) - 1
            position += 1
            if begin < 0:
                return None
            piece = out[begin : begin + length]
            # A copy may reach into what it writes itself.
            out += (piece * (length // len(piece) + 1))[:length]
    except IndexError:
        return None
    return bytes(out)
