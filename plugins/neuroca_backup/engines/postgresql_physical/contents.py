"""What a cluster holds: the facts that a restored copy is compared with.

Rows can be counted exactly only when nothing was written between the counting and the marker at
which the backup ends. Whether that was so is known: every transaction that writes takes a number,
and numbers are never taken twice. Where it was not so the facts are the tables that were there
both before and after the marker, no more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroca_backup import postgres_facts as facts
from neuroca_backup import postgres_session
from neuroca_backup.engines.postgresql_physical import source
from neuroca_backup.errors import AccessDeniedError
from neuroca_backup.model.endpoint import Endpoint

_ATTEMPTS = 3
_AGAIN_WITHIN_SECONDS = 10  # counting is repeated only where it is cheap

# Tables that survive a crash, and so are part of a physical backup with their rows.
_NAMES = """
SELECT c.oid::text, n.nspname, c.relname
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""
_DATABASES = """
SELECT datname FROM pg_catalog.pg_database
 WHERE datallowconn AND NOT datistemplate
   AND pg_catalog.has_database_privilege(oid, 'CONNECT')
 ORDER BY datname
"""
Names = dict[str, dict[str, str]]


class _WrittenToError(Exception):
    """A transaction has written since the counting began."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Facts by database, whether their rows are those at `marker`, and notes."""

    databases: Mapping[str, Any]
    exact: bool
    marker: source.Marker
    notes: tuple[str, ...]


def take(endpoint: Endpoint, *, checksums: bool) -> Taken:
    """Return the facts of all databases, and write the marker at which they hold."""
    before = names(endpoint)
    begun = time.monotonic()
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            quiet = _transactions(endpoint)
            rows = count(endpoint, list(before), checksums=checksums, unless_after=quiet)
            marker = source.mark(endpoint)
            if _nothing_between(quiet, marker.transactions):
                return Taken(databases=rows, exact=True, marker=marker, notes=())
        except AccessDeniedError as error:
            marker, why = source.mark(endpoint), f"the user may not read them: {error.problem}"
            break
        except _WrittenToError:
            marker = source.mark(endpoint)
        why = "the source was written to meanwhile"
        if attempt == _ATTEMPTS or time.monotonic() - begun > _AGAIN_WITHIN_SECONDS:
            break
    stayed = _in_both(before, names(endpoint))
    return Taken(
        databases={
            database: {"tables": dict.fromkeys(sorted(tables.values()))}
            for database, tables in stayed.items()
        },
        exact=False,
        marker=marker,
        notes=(
            f"Rows of tables were not counted, because {why}; a restore compares which tables "
            "there are, and the structure of each.",
        ),
    )


def names(endpoint: Endpoint) -> Names:
    """Return the tables of every database: their names by OID."""
    found: Names = {}
    for database in _databases(endpoint):
        with postgres_session.connect(endpoint, database=database) as connection:
            found[database] = {
                oid: facts.table_key(schema, table)
                for oid, schema, table in connection.execute(_NAMES).fetchall()
            }
    return found


def count(
    endpoint: Endpoint, databases: list[str], *, checksums: bool, unless_after: str | None = None
) -> dict[str, Any]:
    """Return rows and checksum of every table.

    Raises:
        _WrittenToError: Something was written since the snapshot `unless_after`.
    """
    found: dict[str, Any] = {}
    for database in databases:
        with postgres_session.connect(endpoint, database=database) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")
            facts.prepare_session(connection)
            method = facts.hash_method(connection)
            logged = {facts.table_key(*row[1:]) for row in connection.execute(_NAMES).fetchall()}
            tables: dict[str, Any] = {}
            for key, rows in facts.table_facts(connection, checksums=checksums, method=method):
                if unless_after is not None and _snapshot(connection) != unless_after:
                    raise _WrittenToError
                if key in logged:
                    tables[key] = rows
        found[database] = {"tables": tables, "hash": method}
    return found


def _databases(endpoint: Endpoint) -> list[str]:
    with postgres_session.connect(endpoint) as connection:
        return [str(row[0]) for row in connection.execute(_DATABASES).fetchall()]


def _transactions(endpoint: Endpoint) -> str:
    with postgres_session.connect(endpoint) as connection:
        return _snapshot(connection)


def _snapshot(connection: facts.Connection) -> str:
    row: Any = connection.execute("SELECT pg_catalog.pg_current_snapshot()::text").fetchone()
    return str(row[0])


def _nothing_between(before: str, after: str) -> bool:
    """Return whether no transaction wrote between two snapshots, `xmin:xmax:running` each.

    None was running at the first, and the second, of the marker's own transaction, knows of no
    other: the marker has the very number that was the next one.
    """
    oldest, following, running = before.split(":")
    return oldest == following and not running and before == after


def _in_both(before: Names, after: Names) -> Names:
    return {
        database: {oid: name for oid, name in tables.items() if after[database].get(oid) == name}
        for database, tables in before.items()
        if database in after
    }
