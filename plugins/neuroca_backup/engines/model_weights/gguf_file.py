"""The structure of a .gguf file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md."""

from __future__ import annotations

import math
import struct

from neuroca_backup.engines.model_weights.sequential import Sequential, TornError

MAGIC = b"GGUF"

_VERSIONS = (2, 3)
_MOST = 1_000_000  # tensors, and pairs of metadata; known models have some thousands
_LONGEST_TEXT = 64 * 1024 * 1024  # bytes; templates and merged tokens, far below that
_LARGEST_HEADER = 1024 * 1024 * 1024  # bytes; it is skipped through, not held
_MOST_DIMENSIONS = 8
_DEFAULT_ALIGNMENT = 32
_ALIGNMENT = b"general.alignment"
_TEXT, _ARRAY, _UINT32 = 8, 9, 4
# Bytes of a value by its type; texts and arrays say theirs themselves.
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Elements and bytes of a block, by the type of a tensor (enum ggml_type).
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}


def check(file: Sequential) -> None:
    """Raise `TornError` unless the header is whole and the file has every tensor's data.

    Of a type of tensor that is not known here only the beginning of the data is held to the size.
    """
    if file.exact(4, what="its first bytes") != MAGIC:
        raise TornError("it does not begin as a GGUF file")
    version = _number(file, "<I")
    if version not in _VERSIONS:
        raise TornError(f"it is of version {version}; {_VERSIONS[0]} and {_VERSIONS[1]} are known")
    tensors, pairs = _count(file, "tensors"), _count(file, "pairs of metadata")
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(pairs):
        key = _text(file)
        kind = _number(file, "<I")
        if key == _ALIGNMENT and kind == _UINT32:
            alignment = _number(file, "<I")
        else:
            _skip_value(file, kind)
    if alignment == 0 or alignment % 8:
        raise TornError(f"its alignment is {alignment}")
    end = 0
    for _ in range(tensors):
        end = max(end, _tensor(file))
    padding = -file.position % alignment
    if tensors and file.rest < padding + end:
        raise TornError(f"its tensors take {end:,} bytes, the file has {file.rest - padding:,}")


def _tensor(file: Sequential) -> int:
    """Pass over the description of a tensor; return where its data end, from the data's begin."""
    _text(file)
    dimensions = _number(file, "<I")
    if dimensions > _MOST_DIMENSIONS:
        raise TornError(f"a tensor has {dimensions} dimensions")
    elements = math.prod(_number(file, "<Q") for _ in range(dimensions))
    kind, offset = _number(file, "<I"), _number(file, "<Q")
    if kind not in _BLOCKS:
        return offset
    block, size = _BLOCKS[kind]
    return offset + -(-elements // block) * size


def _skip_value(file: Sequential, kind: int, *, depth: int = 0) -> None:
    if kind == _TEXT:
        _text(file)
    elif kind == _ARRAY:
        if depth:
            raise TornError("its metadata have an array of arrays")
        inner, count = _number(file, "<I"), _number(file, "<Q")
        if inner in _SIZES:
            _limited(file, count * _SIZES[inner])
            file.skip(count * _SIZES[inner], what="its metadata")
            return
        for _ in range(count):
            _skip_value(file, inner, depth=depth + 1)
    elif kind in _SIZES:
        file.skip(_SIZES[kind], what="its metadata")
    else:
        raise TornError(f"its metadata have a value of the unknown type {kind}")


def _text(file: Sequential) -> bytes:
    """Return a text when it can be a name; a longer one is passed over."""
    size = _number(file, "<Q")
    if size > _LONGEST_TEXT:
        raise TornError(f"a text in its header would be of {size:,} bytes")
    _limited(file, size)
    if size > len(_ALIGNMENT):
        file.skip(size, what="its header")
        return b""
    return file.exact(size, what="its header")


def _limited(file: Sequential, more: int) -> None:
    if file.position + more > _LARGEST_HEADER:
        raise TornError(f"its header is longer than {_LARGEST_HEADER:,} bytes")


def _count(file: Sequential, what: str) -> int:
    found = _number(file, "<Q")
    if found > _MOST:
        raise TornError(f"it would have {found:,} {what}; {_MOST:,} are allowed")
    return found


def _number(file: Sequential, form: str) -> int:
    found: int = struct.unpack(form, file.exact(struct.calcsize(form), what="its header"))[0]
    return found
