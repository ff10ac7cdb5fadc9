"""NCA-shaped content for the sandbox's stores: the same scale always gives the same content."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from neuroca_backup.errors import ConfigurationError, UnreachableError
from neuroca_backup.sandbox import seed_milvus, seed_mongodb, seed_postgres, seed_redis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.model.endpoint import Endpoint

_STORES = {
    "postgres": seed_postgres,
    "mongodb": seed_mongodb,
    "redis": seed_redis,
    "milvus": seed_milvus,
}


def seed(endpoints: Mapping[str, Endpoint], *, scale: float = 1.0) -> dict[str, dict[str, int]]:
    """Replace the content of every store among `endpoints` (as `sandbox.start` returns them).

    The twin and the object stores get nothing. `scale` 1.0 is a demo: 200,000 memory items (about
    200 MB), 5,000 episodes, 10,000 keys, 2,000 vectors. Returns what `expected` says of these.

    Raises:
        ConfigurationError: The scale is not a positive number.
        UnreachableError: A server does not answer, or ended half way.
    """
    wanted = {kind: numbers for kind, numbers in expected(scale).items() if kind in endpoints}
    if wanted:
        with ThreadPoolExecutor(len(wanted), thread_name_prefix="seed") as pool:
            for run in [pool.submit(_fill, kind, endpoints[kind], scale) for kind in wanted]:
                run.result()
    return wanted


def expected(scale: float = 1.0) -> dict[str, dict[str, int]]:
    """Return the rows, documents, keys or vectors of every store after `seed(scale=scale)`.

    By kind, then by table (`database.schema.table`), collection (`database.collection`), number of
    the logical database, or vector collection.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigurationError(
            f"A scale of {scale} gives no data", remedy="Give a number above 0.", value=scale
        )
    return {kind: store.counts(scale) for kind, store in _STORES.items()}


def _fill(kind: str, endpoint: Endpoint, scale: float) -> None:
    try:
        _STORES[kind].seed(endpoint, scale=scale)
    except Exception as error:
        # Four drivers' errors have no common base; their texts may quote what was sent.
        raise UnreachableError(
            f"{kind} at {endpoint.label} could not be filled ({type(error).__name__})",
            remedy="Look at its state and its log, then seed it again.",
        ) from error
