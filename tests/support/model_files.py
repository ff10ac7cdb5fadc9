"""Model files as their programs write them, made here from the formats' descriptions."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping, Sequence

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch.serialization.MAGIC_NUMBER is
LEGACY_VERSION = 1001


def safetensors(**tensors: bytes) -> bytes:
    """Return a file of one-dimensional tensors of bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, data in tensors.items():
        end = begin + len(data)
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors.values())


def torch_zip(**tensors: bytes) -> bytes:
    """Return a file as `torch.save` writes it since PyTorch 1.6."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(list(tensors), protocol=2))
        archive.writestr("archive/version", b"3\n")
        for number, data in enumerate(tensors.values()):
            archive.writestr(f"archive/data/{number}", data)
    return out.getvalue()


def torch_legacy(data: bytes) -> bytes:
    """Return a file as `torch.save` wrote it before PyTorch 1.6, with one tensor of bytes."""
    parts: Sequence[object] = (
        LEGACY_MAGIC,
        LEGACY_VERSION,
        {"protocol_version": LEGACY_VERSION, "little_endian": True},
        {"weight": ["as the pickle of a tensor", len(data)]},
        ["140234"],
    )
    pickles = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return pickles + struct.pack("<q", len(data)) + data


def gguf(**tensors: bytes) -> bytes:
    """Return a file of one-dimensional tensors of bytes, with metadata of every kind."""
    pairs = [
        _text("general.architecture") + struct.pack("<I", 8) + _text("llama"),
        _text("general.alignment") + struct.pack("<II", 4, 64),
        _text("llama.context_length") + struct.pack("<II", 4, 4096),
        _text("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, 3)
        + b"".join(map(_text, ("<s>", "</s>", "memory"))),
        _text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 3) + bytes(12),
        _text("general.quantized") + struct.pack("<I?", 7, True),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, values in tensors.items():
        data += bytes(-len(data) % 64)
        head += _text(name) + struct.pack("<IQIQ", 1, len(values), 24, len(data))
        data += values
    return head + bytes(-len(head) % 64) + data


def shard_index(tensors: Mapping[str, str]) -> bytes:
    """Return the list of a model's shards; `tensors` gives the shard of each."""
    return json.dumps({"metadata": {"total_size": 1}, "weight_map": dict(tensors)}).encode()


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()
