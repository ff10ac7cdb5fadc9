"""Taking a restored copy away again from a server of an isolated environment.

Only what the backup names is removed, and only after a preflight has found none of it there: so it
is the copy, and nobody's data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.endpoint import Endpoint

_SERVERS_OWN = frozenset({"admin", "config", "local"})
_KEPT = "postgres"  # every server has it


def require_removable(endpoint: Endpoint, facts: Mapping[str, Any]) -> None:
    """Refuse before anything is loaded what `remove` could not tell from what was there before.

    Raises:
        TargetRefusedError: It could not; says why.
    """
    reason = ""
    if endpoint.kind == "postgres":
        if "databases" not in facts:
            reason = "the copy goes into a database that is there already"
        elif _KEPT in facts["databases"]:
            reason = f"the backup holds the database {_KEPT}, which every server has"
    elif endpoint.kind == "redis":
        from neuroca_backup.redis_session import state  # noqa: PLC0415 - imports its client

        taken = state(endpoint).databases
        full = [number for number in facts["databases"] if taken.get(int(number))]
        reason = f"its databases {', '.join(full)} hold keys" if full else ""
    if reason:
        raise TargetRefusedError(
            f"The copy could not be taken away from {endpoint.label} again: {reason}",
            remedy="Use an empty server, or a sandbox of the kind `process` for this source.",
            target=endpoint.label,
        )


def remove(endpoint: Endpoint, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Remove the copy of the dump with `facts` from `endpoint`; return the names of what went.

    What is not there (any more) is no error, so that it can be repeated.

    Raises:
        ConfigurationError: Nothing is known of servers of this kind.
        BackupError: The server refused, or did not answer.
    """
    if endpoint.kind == "postgres":
        return _databases(endpoint, facts)
    if endpoint.kind == "mongo":
        return _collections(endpoint, facts)
    if endpoint.kind == "redis":
        return _keys(endpoint, facts)
    from neuroca_backup.engines.semantic_memory import store  # noqa: PLC0415 - imports its client

    try:
        engine = store.of(endpoint)
    except ConfigurationError:
        raise ConfigurationError(
            f"A copy cannot be removed from a server of type {endpoint.kind!r}",
            remedy="Use a sandbox of the kind `process`.",
            value=endpoint.kind,
        ) from None
    names = {label.rpartition(".")[2] for label in facts["collections"]}
    with engine.connect(store.plain(endpoint)) as database:
        gone = [at for at in database.collections() if at.collection in names]
        for at in gone:
            database.drop(at)
    return tuple(at.label for at in gone)


def _databases(endpoint: Endpoint, facts: Mapping[str, Any]) -> tuple[str, ...]:
    from psycopg import sql  # noqa: PLC0415 - as above

    from neuroca_backup.postgres_session import connect  # noqa: PLC0415 - as above

    names = tuple(name for name in facts["databases"] if name != _KEPT)
    with connect(endpoint, database=_KEPT, autocommit=True) as session:
        for name in names:
            session.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
    return names


def _collections(endpoint: Endpoint, facts: Mapping[str, Any]) -> tuple[str, ...]:
    from neuroca_backup.mongodb_session import connect  # noqa: PLC0415 - as above

    gone = []
    with connect(endpoint) as client:
        for label in facts["collections"]:
            database, _, name = label.partition(".")
            if database not in _SERVERS_OWN:
                client[database].drop_collection(name)
                gone.append(label)
    return tuple(gone)


def _keys(endpoint: Endpoint, facts: Mapping[str, Any]) -> tuple[str, ...]:
    from neuroca_backup.redis_session import connect  # noqa: PLC0415 - as above

    for number in facts["databases"]:
        with connect(endpoint, database=int(number)) as client:
            client.flushdb()
    return tuple(f"database {number}" for number in facts["databases"])
