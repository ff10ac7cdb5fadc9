"""The list of a model's shards, as Hugging Face writes it: `*.safetensors.index.json`."""

from __future__ import annotations

import json

from neuroca_backup.engines.model_weights.sequential import Sequential, TornError

SUFFIX = ".index.json"

_LARGEST = 64 * 1024 * 1024  # bytes; some 100 for each tensor


def shards(file: Sequential) -> frozenset[str]:
    """Return the names of the files, beside the list, that hold the model's tensors.

    Raises:
        TornError: It is no such list, or names files elsewhere.
    """
    if file.size > _LARGEST:
        raise TornError(f"it is of {file.size:,} bytes; {_LARGEST:,} are allowed")
    try:
        found = json.loads(file.exact(file.size, what="its list"))
    except (ValueError, RecursionError):
        raise TornError("it is not JSON") from None
    named = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(named, dict) or not named:
        raise TornError("it has no weight_map that names shards")
    names = set(named.values())
    if not all(isinstance(name, str) and name and "/" not in name for name in names):
        raise TornError("it names shards that are not beside it")
    return frozenset(names)
