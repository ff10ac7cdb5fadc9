"""The structure of a .safetensors file: https://huggingface.co/docs/safetensors/index#format."""

from __future__ import annotations

import json
import math
from typing import Any

from neuroca_backup.engines.model_weights.sequential import Sequential, TornError

# Some 100 bytes a tensor. The format's own library allows 100 MB, which would take a GB to parse.
_LARGEST_HEADER = 32 * 1024 * 1024  # bytes
_METADATA = "__metadata__"
_HEADER = "its header"
_LENGTH_BYTES = 8
# Bits of an element; kinds that are not listed here are held to the file's size alone.
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}


def check(file: Sequential) -> None:
    """Raise `TornError` unless the header's tensors fill the file exactly, without a hole."""
    size = int.from_bytes(file.exact(_LENGTH_BYTES, what="the length of its header"), "little")
    if size > _LARGEST_HEADER:
        raise TornError(f"its header would be of {size:,} bytes; {_LARGEST_HEADER:,} are allowed")
    header = _parsed(file.exact(size, what=_HEADER))
    end = 0
    for name, begin, after, tensor in sorted(_ranges(header), key=lambda one: one[1:3]):
        if begin != end:
            raise TornError(f"the data of {name!r} begin at {begin:,} and not at {end:,}")
        if (expected := _expected(tensor)) is not None and after - begin != expected:
            raise TornError(f"{name!r} has {after - begin:,} bytes, its shape says {expected:,}")
        end = after
    if file.rest != end:
        raise TornError(f"its tensors take {end:,} bytes, the file has {file.rest:,} of them")


def _parsed(data: bytes) -> dict[str, Any]:
    if not data.startswith(b"{"):
        raise TornError("its header does not begin as JSON")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise TornError("its header is not JSON") from None
    if not isinstance(found, dict):
        raise TornError("its header is no object")
    return found


def _ranges(header: dict[str, Any]) -> list[tuple[str, int, int, dict[str, Any]]]:
    found = []
    for name, tensor in header.items():
        if name == _METADATA:
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if (
            not isinstance(offsets, list)
            or len(offsets) != 2
            or not all(isinstance(one, int) and one >= 0 for one in offsets)
            or offsets[0] > offsets[1]
        ):
            raise TornError(f"its header does not say where {name!r} lies")
        found.append((name, offsets[0], offsets[1], tensor))
    return found


def _expected(tensor: dict[str, Any]) -> int | None:
    """Return the bytes that kind and shape of a tensor mean, or None for a kind not known here."""
    shape, bits = tensor.get("shape"), _BITS.get(str(tensor.get("dtype")))
    if not isinstance(shape, list) or not all(isinstance(one, int) and one >= 0 for one in shape):
        raise TornError("a tensor in its header has no shape")
    return None if bits is None else math.prod(shape) * bits // 8
