"""Comparing a restored cluster with its manifest, by a server that runs on it.

The blocks were compared when they were rebuilt (`pg_verifybackup`), before any server touched
them. What is compared here is what recovery made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import errors, sql

from neuroca_backup import postgres_facts as facts
from neuroca_backup import postgres_session
from neuroca_backup import sql as statements
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.postgresql_physical import contents, serving
from neuroca_backup.engines.postgresql_physical.place import Place, find
from neuroca_backup.errors import NotFoundError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.postgres_directory import answers, peer_endpoint

_HEAP_CHECK_SINCE = 140000
_STRUCTURE = "checks/postgresql_structure.sql"
_INDEXES = """
SELECT i.indexrelid::regclass::text, i.indexrelid
  FROM pg_catalog.pg_index AS i
  JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid
 WHERE c.relam = (SELECT oid FROM pg_catalog.pg_am WHERE amname = 'btree')
   AND c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisready AND i.indisvalid
"""


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return what differs: the cluster, its tables, their rows and their structure.

    Tables and rows are compared where the whole chain was restored; a moment between two backups
    has no facts of its own.
    """
    known, place = backup.last.dump, find(backup, target)
    with _server(backup, target, place) as endpoint:
        found = list(_identity(endpoint, known.consistency))
        present = contents.names(endpoint)
        if backup.until is None:
            found += _tables(endpoint, known.facts, present)
        for database in present:
            found += _structure(endpoint, database, place)
    return found


@contextmanager
def _server(backup: Restorable, target: RestoreTarget, place: Place) -> Iterator[Endpoint]:
    """Give a server on the loaded directory, or on the published one."""
    superuser = backup.last.dump.facts["superuser"]
    if place.gate:
        inside = peer_endpoint(place.socket, superuser, port=target.endpoint.port or 0)
        if not place.data.is_dir() and answers(inside):
            yield inside
            return
    data = place.data if place.data.is_dir() else place.directory
    if data == place.directory:
        place.refuse_running()
    if not (data / "PG_VERSION").is_file():
        raise NotFoundError(
            f"Neither {place.data} nor {place.directory} holds a cluster: nothing was loaded",
            remedy="Run the restore from its load step on.",
            path=str(place.directory),
        )
    with serving.served(data, place, work=backup.work, superuser=superuser) as endpoint:
        yield endpoint


def _identity(endpoint: Endpoint, known: dict[str, str]) -> Iterator[Difference]:
    with postgres_session.connect(endpoint) as connection:
        row: Any = connection.execute(
            "SELECT system_identifier::text, timeline_id"
            " FROM pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint()"
        ).fetchone()
    if row[0] != known["system_identifier"]:
        yield Difference("system identifier", known["system_identifier"], row[0])
    if row[1] <= int(known["timeline"]):
        yield Difference("timeline", f"after {known['timeline']}", str(row[1]))


def _tables(
    endpoint: Endpoint, known: dict[str, Any], present: contents.Names
) -> Iterator[Difference]:
    counted: dict[str, Any] = {}
    if known["exact"]:
        databases = [name for name in known["databases"] if name in present]
        counted = contents.count(endpoint, databases, checksums=known["checksums"])
    for database, expected in known["databases"].items():
        if database not in present:
            yield Difference(f"database {database}", "present", "absent")
        elif known["exact"]:
            before, after = expected["tables"], counted[database]["tables"]
            for table in sorted(before.keys() | after.keys()):
                if before.get(table) != after.get(table):
                    yield Difference(
                        f"{database}: table {table}",
                        _words(before.get(table)),
                        _words(after.get(table)),
                    )
        else:
            for table in sorted(set(expected["tables"]) - set(present[database].values())):
                yield Difference(f"{database}: table {table}", "present", "absent")


def _words(rows: dict[str, Any] | None) -> str:
    if rows is None:
        return "no such table"
    return f"{rows['rows']} rows, checksum {rows['checksum']}"


def can_check_structure(connection: facts.Connection, place: Place) -> bool:
    """Return whether `compare` reads every table and index: it may, and has the extension."""
    row: Any = connection.execute(
        "SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'amcheck'"
    ).fetchone()
    return place.structure_check and row is not None


def _structure(endpoint: Endpoint, database: str, place: Place) -> list[Difference]:
    """Check every table and B-tree index; the extension that does it is not left behind."""
    with postgres_session.connect(endpoint, database=database) as connection:
        if not can_check_structure(connection, place):
            return []
        found = list(_unsound(connection, database))
        connection.rollback()
        return found


def _unsound(connection: facts.Connection, database: str) -> Iterator[Difference]:
    connection.execute("CREATE EXTENSION IF NOT EXISTS amcheck SCHEMA public")
    row: Any = connection.execute(
        "SELECT n.nspname FROM pg_catalog.pg_extension AS e"
        " JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE extname = 'amcheck'"
    ).fetchone()
    schema = sql.Identifier(row[0])
    if connection.info.server_version >= _HEAP_CHECK_SINCE:
        query = sql.SQL(statements.read(_STRUCTURE)).format(schema=schema)
        for relation, finding in connection.execute(query).fetchall():
            yield Difference(f"{database}: {relation}", "sound", finding)
    check = sql.SQL("SELECT {}.bt_index_check(%s, true)").format(schema)
    for name, oid in connection.execute(_INDEXES).fetchall():
        try:
            with connection.transaction():
                connection.execute(check, [oid])
        except (errors.DataCorrupted, errors.IndexCorrupted) as error:
            yield Difference(f"{database}: index {name}", "sound", str(error.diag.message_primary))
