"""The structure of what `torch.save` writes: a zip, or before PyTorch 1.6 a row of pickles.

Nothing here is ever unpickled: a pickle can run any program. Its opcodes are read, not obeyed.
"""

from __future__ import annotations

import pickletools
import struct

from neuroca_backup.engines.model_weights.sequential import Sequential, TornError

ZIP_MAGIC = b"PK\x03\x04"
# The pickle, of protocol 2, of the number that all files of the older form begin with.
LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."

_END = b"PK\x05\x06"
_END_BYTES = 22
_END64 = b"PK\x06\x06"
_END64_BYTES = 56
_LOCATOR64 = b"PK\x06\x07"
_LOCATOR64_BYTES = 20
_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES = 46
_LARGEST_COMMENT = 65_535
_UNKNOWN16, _UNKNOWN32 = 0xFFFF, 0xFFFFFFFF
_ZIP64 = 1  # the extra field that holds what does not fit 32 bits
_DATA = "/data.pkl"
# The end of a file that is held in memory: its directory, 50 to 100 bytes a tensor.
_LARGEST_DIRECTORY = 64 * 1024 * 1024
_LARGEST_PICKLES = 64 * 1024 * 1024  # bytes of the pickles before the tensors of the older form
_MOST_OPCODES = 20_000_000
_TRUNCATED = "it has no directory at its end, so it is cut off or half written"


def check_zip(file: Sequential) -> None:
    """Raise `TornError` unless the directory is whole and all that it names lies before it."""
    tail_size = min(file.rest, _LARGEST_DIRECTORY)
    file.skip(file.rest - tail_size, what="its tensors")
    tail = file.exact(tail_size, what="its directory")
    count, size, start = _directory(tail, file.size)
    begin = start - (file.size - tail_size)
    if begin < 0:
        raise TornError(f"its directory is longer than {_LARGEST_DIRECTORY:,} bytes")
    names = _entries(tail[begin : begin + size], count=count, start=start)
    if not any(name.endswith(_DATA) or name == _DATA[1:] for name in names):
        raise TornError("it holds no data.pkl, so PyTorch did not write all of it")


def check_legacy(file: Sequential) -> None:
    """Raise `TornError` unless the pickles before the tensors are whole.

    How long the tensors are is known only to who unpickles, so a file that is cut off within them
    is not found here.
    """
    if file.exact(len(LEGACY_MAGIC), what="its first bytes") != LEGACY_MAGIC:
        raise TornError("it does not begin as a file of PyTorch")
    pickles = _Limited(file)
    for what in ("its version", "its system", "its structure", "its list of tensors"):
        _pass_over(pickles, what)


def _directory(tail: bytes, size: int) -> tuple[int, int, int]:
    """Return the entries, the bytes and the offset of a zip's directory.

    `tail` is the end of a file of `size` bytes; the form is described in
    https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.14 to 4.3.16.
    """
    skipped = size - len(tail)
    at = tail.rfind(_END, max(0, len(tail) - _END_BYTES - _LARGEST_COMMENT))
    if at < 0 or len(tail) < at + _END_BYTES:
        raise TornError(_TRUNCATED)
    fields = struct.unpack("<4s4H2LH", tail[at : at + _END_BYTES])
    count, length, start, comment = fields[4:]
    if at + _END_BYTES + comment != len(tail):
        raise TornError("bytes follow its end")
    end = skipped + at
    locator = tail[max(0, at - _LOCATOR64_BYTES) : at]
    if locator.startswith(_LOCATOR64):
        (end,) = struct.unpack("<Q", locator[8:16])
        record = tail[end - skipped : end - skipped + _END64_BYTES] if end >= skipped else b""
        if len(record) < _END64_BYTES or not record.startswith(_END64):
            raise TornError("the long form of its directory is damaged")
        count, length, start = struct.unpack("<3Q", record[32:56])
    elif count == _UNKNOWN16 or _UNKNOWN32 in (length, start):
        raise TornError("the long form of its directory is missing")
    if start + length > end:
        raise TornError("its directory ends behind its end mark")
    return count, length, start


def _entries(directory: bytes, *, count: int, start: int) -> list[str]:
    """Return the names in a directory whose entries all lie before `start`."""
    names, at = [], 0
    while at < len(directory):
        fields = directory[at : at + _ENTRY_BYTES]
        if len(fields) < _ENTRY_BYTES or not fields.startswith(_ENTRY):
            raise TornError("its directory is damaged")
        packed, _, name, extra, comment = struct.unpack("<2L3H", fields[20:34])
        (offset,) = struct.unpack("<L", fields[42:46])
        text = at + _ENTRY_BYTES
        packed, offset = _long(directory[text + name : text + name + extra], fields, packed, offset)
        if offset + packed > start:
            raise TornError("its directory names what lies behind it")
        names.append(directory[text : text + name].decode("utf-8", "replace"))
        at = text + name + extra + comment
    if at != len(directory) or len(names) != count:
        raise TornError(f"its directory has {len(names):,} entries, {count:,} were announced")
    return names


def _long(extra: bytes, fields: bytes, packed: int, offset: int) -> tuple[int, int]:
    """Return size and offset of an entry, from its long form where the short one has no room."""
    (unpacked,) = struct.unpack("<L", fields[24:28])
    while len(extra) >= 4:
        kind, size = struct.unpack("<2H", extra[:4])
        if kind == _ZIP64:
            values = [one for (one,) in struct.iter_unpack("<Q", extra[4 : 4 + size // 8 * 8])]
            if unpacked == _UNKNOWN32 and values:
                values.pop(0)
            if packed == _UNKNOWN32 and values:
                packed = values.pop(0)
            if offset == _UNKNOWN32 and values:
                offset = values.pop(0)
        extra = extra[4 + size :]
    return packed, offset


class _Limited:
    """The pickles of a file, as far as they may go."""

    def __init__(self, file: Sequential) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer at the end."""
        if self._file.position + size > _LARGEST_PICKLES:
            raise TornError(f"its pickles are longer than {_LARGEST_PICKLES:,} bytes")
        return self._file.exact(min(size, self._file.rest), what="its pickles")

    def readline(self) -> bytes:
        """Return the bytes up to the next line's end."""
        line = bytearray()
        while not line.endswith(b"\n") and (byte := self.read(1)):
            line += byte
        return bytes(line)


def _pass_over(pickles: _Limited, what: str) -> None:
    """Read the opcodes of one pickle up to its end."""
    try:
        for number, _ in enumerate(pickletools.genops(pickles)):  # type: ignore[arg-type]
            if number > _MOST_OPCODES:
                raise TornError(f"{what} has more than {_MOST_OPCODES:,} parts")
    except (ValueError, struct.error, UnicodeError) as error:
        raise TornError(f"{what} is no whole pickle ({type(error).__name__})") from None
