"""Which structure a file should have, by its name, and whether it has it.

A file that is half written, or was cut by a full disk, is the same bytes in every backup: no
digest tells. Its own structure does, mostly.
"""

from __future__ import annotations

from typing import BinaryIO

from neuroca_backup.engines.model_weights import (
    gguf_file,
    safetensors_file,
    shard_index,
    torch_file,
)
from neuroca_backup.engines.model_weights.sequential import Sequential, TornError

_TORCH = (".pt", ".pth")
# Other programs write files of these names, too: they are PyTorch's where they begin so.
_PERHAPS_TORCH = (".bin", ".ckpt")
_SHARDED = (".safetensors" + shard_index.SUFFIX, ".bin" + shard_index.SUFFIX)


def known(path: str) -> bool:
    """Return whether a file called `path` has a structure that can be checked."""
    suffixes = (".safetensors", ".gguf", *_TORCH, *_PERHAPS_TORCH, *_SHARDED)
    return path.lower().endswith(suffixes)


def is_shard_index(path: str) -> bool:
    """Return whether `path` lists the shards of a model."""
    return path.lower().endswith(_SHARDED)


def check(path: str, stream: BinaryIO, size: int) -> frozenset[str]:
    """Check the structure of the file `path`, of `size` bytes, reading `stream` as far as needed.

    Returns the names of the shards that have to lie beside it, for a list of those; no name else.

    Raises:
        TornError: It does not have the structure that its name promises.
    """
    name, file = path.lower(), Sequential(stream, size)
    if is_shard_index(path):
        return shard_index.shards(file)
    if name.endswith(".safetensors"):
        safetensors_file.check(file)
    elif name.endswith(".gguf"):
        gguf_file.check(file)
    elif name.endswith((*_TORCH, *_PERHAPS_TORCH)):
        _torch(file, certain=name.endswith(_TORCH))
    return frozenset()


def _torch(file: Sequential, *, certain: bool) -> None:
    begin = file.peek(len(torch_file.LEGACY_MAGIC))
    if begin.startswith(torch_file.ZIP_MAGIC):
        torch_file.check_zip(file)
    elif begin == torch_file.LEGACY_MAGIC:
        torch_file.check_legacy(file)
    elif certain:
        raise TornError("it begins neither as a zip nor as a pickle of PyTorch")
