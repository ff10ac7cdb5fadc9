"""Publishing key by key: DUMP from the sidecar, RESTORE into the target, stale keys removed.

For a part of a backup, and for a target that does not become anybody's replica. Nothing but the
chosen keys is touched. A repeat does the same again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines.redis_rdb.compare import dumped, now_ms, scan
from neuroca_backup.engines.redis_rdb.parts import Part, Parts
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint

if TYPE_CHECKING:
    import redis

# How far the clocks of this machine's sidecar and the target may differ: expiry is absolute.
_CLOCK_MS = 60_000


def publish(endpoint: Endpoint, sidecar: Endpoint, parts: Parts) -> None:
    """Make the chosen keys of `endpoint` those of the sidecar.

    Raises:
        UnreachableError: One of the two ended half way.
        ConfigurationError: The clocks differ too much for keys that expire.
    """
    _require_same_time(endpoint, sidecar)
    for part in _all(endpoint, parts):
        with (
            session.connect(sidecar, database=part.number) as source,
            session.connect(endpoint, database=part.number) as client,
        ):
            for keys in scan(source, part.pattern):
                _restore(client, source, keys)
            for keys in scan(client, part.pattern):
                _remove_stale(client, source, keys)
    if parts.whole:
        _functions(endpoint, sidecar)


def _all(endpoint: Endpoint, parts: Parts) -> list[Part]:
    """Return the parts, and with a whole restore what else the target has: it is to go."""
    if not parts.whole:
        return list(parts.chosen)
    known = {part.number for part in parts.chosen}
    others = sorted(session.state(endpoint).databases.keys() - known)
    return [*parts.chosen, *(Part(number, b"*") for number in others)]


def _restore(client: redis.Redis, source: redis.Redis, keys: list[bytes]) -> None:
    writing = client.pipeline(transaction=False)
    for key, expiry, payload in dumped(source, keys):
        session.call(writing, "RESTORE", key, expiry, payload, "REPLACE", "ABSTTL")
    writing.execute()


def _remove_stale(client: redis.Redis, source: redis.Redis, keys: list[bytes]) -> None:
    asking = source.pipeline(transaction=False)
    for key in keys:
        asking.exists(key)
    stale = [key for key, there in zip(keys, asking.execute(), strict=True) if not there]
    if stale:
        client.unlink(*stale)


def _functions(endpoint: Endpoint, sidecar: Endpoint) -> None:
    """Replace the libraries of functions, which servers have since 7.0."""
    if int(session.state(sidecar).version.split(".")[0]) < 7:
        return
    with session.connect(sidecar) as source, session.connect(endpoint) as client:
        payload: Any = session.call(source, "FUNCTION", "DUMP")
        session.call(client, "FUNCTION", "RESTORE", payload, "FLUSH")


def _require_same_time(endpoint: Endpoint, sidecar: Endpoint) -> None:
    with session.connect(sidecar) as source, session.connect(endpoint) as client:
        apart = abs(now_ms(source) - now_ms(client))
    if apart > _CLOCK_MS:
        raise ConfigurationError(
            f"The clock of {endpoint.label} differs from this machine's by {apart / 1000:,.0f} s",
            remedy="Synchronise both clocks: keys expire at a point in time.",
            server=endpoint.label,
        )
