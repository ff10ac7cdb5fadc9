"""The envelope of every JSON object in a store: a body and the digest of its exact bytes.

A single flipped bit anywhere in such an object is found without any key.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from neuroca_backup.errors import DamagedError

_REMEDY = "Restore from another store, then replicate this backup again."


def canonical(body: Any) -> bytes:
    """Return `body` as JSON with sorted keys and no white space: the same data, the same bytes."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def encode(body: dict[str, Any]) -> bytes:
    """Return the document that holds `body`."""
    return canonical({"body": body, "sha256": hashlib.sha256(canonical(body)).hexdigest()})


def decode(data: bytes, *, name: str) -> dict[str, Any]:
    """Return the body of a document, or raise `DamagedError` naming it.

    The document must be byte for byte what `encode` gives for its body.
    """
    try:
        body = json.loads(data)["body"]
        intact = isinstance(body, dict) and encode(body) == data
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedError(
            f"{name} is not the document that was written ({len(data)} bytes)",
            remedy=_REMEDY,
            key=name,
        )
    result: dict[str, Any] = body
    return result
