"""Facts of a PostgreSQL database: what is counted at a dump and compared after a restore.

They are read in the transaction of the connection that is given: its snapshot is what they are of.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from neuroca_backup import sql as statements

Connection = psycopg.Connection[TupleRow]

# Types whose hash function looks at the value alone and stays the same over versions, because
# hash partitions depend on it. Enums and reg* types hash their OIDs, which a restore changes.
_STABLE = frozenset(
    {"bool", "bytea", "char", "bpchar", "date", "float4", "float8", "int2", "int4", "int8"}
    | {"interval", "jsonb", "numeric", "text", "time", "timestamp", "timestamptz", "uuid"}
    | {"varchar"}
)
_COLLATED = frozenset({"bpchar", "text", "varchar"})
_RECORD_HASH_SINCE = 140000

_NAME = r'("(?:[^"]|"")*"|[^".]*)'
_KEY = re.compile(rf"{_NAME}\.{_NAME}")

_TABLES = "checks/postgresql_tables.sql"
_SCHEMA = "checks/postgresql_schema.sql"


def prepare_session(connection: Connection) -> None:
    """Make the session see every row and print every value the same way everywhere.

    `row_security = off` turns hidden rows into an error instead of a short dump.
    """
    connection.execute("SET search_path = ''")
    connection.execute("SET row_security = off")
    connection.execute("SET datestyle = 'ISO, YMD'")
    connection.execute("SET intervalstyle = 'postgres'")
    connection.execute("SET extra_float_digits = 1")
    connection.execute("SET bytea_output = 'hex'")
    connection.execute("SET lc_monetary = 'C'")
    connection.execute("SET statement_timeout = 0")
    connection.execute("SET idle_in_transaction_session_timeout = 0")


def database_facts(connection: Connection, *, checksums: bool, method: str) -> dict[str, Any]:
    """Return the facts of the database that `connection` is in, read in its transaction.

    `tables` maps `table_key` to its number of rows and, with `checksums`, an order-independent
    checksum of all rows; `schema` maps each kind of object to how many there are and a SHA-256 of
    their definitions; `large_objects` is their number.
    """
    tables = dict(table_facts(connection, checksums=checksums, method=method))
    (large_objects,) = connection.execute(
        "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata"
    ).fetchone() or (0,)
    return {"tables": tables, "schema": _schema(connection), "large_objects": large_objects}


def table_facts(
    connection: Connection, *, checksums: bool, method: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key of every table with its `rows` and `checksum`, one table read at a time."""
    for schema, table, columns in connection.execute(statements.read(_TABLES)).fetchall():
        query = _table_query(schema, table, columns, checksums=checksums, method=method)
        row = connection.execute(query).fetchone()
        assert row is not None  # noqa: S101 - an aggregate always gives one row
        yield table_key(schema, table), {"rows": row[0], "checksum": row[1]}


def table_key(schema: str, table: str) -> str:
    """Return `schema.table`; a name that holds a dot or a quote is quoted as SQL quotes it."""
    return ".".join(
        '"' + name.replace('"', '""') + '"' if "." in name or '"' in name else name
        for name in (schema, table)
    )


def names_in(key: str) -> tuple[str, str]:
    """Return the schema and the table that `table_key` made `key` of."""
    match = _KEY.fullmatch(key)
    assert match is not None, key  # noqa: S101 - every key is made by table_key
    schema, table = (
        name[1:-1].replace('""', '"') if name.startswith('"') else name for name in match.groups()
    )
    return schema, table


def hash_method(connection: Connection) -> str:
    """Return how rows are hashed on this server: `record` (14 and later) or `text`."""
    recent = connection.info.server_version >= _RECORD_HASH_SINCE
    return "record" if recent else "text"


def differences(
    database: str, expected: Mapping[str, Any], found: Mapping[str, Any], *, same_major: bool
) -> Iterator[tuple[str, str, str]]:
    """Yield what differs, as `expected` has it and as `found` has it, in words.

    Definitions are compared between servers of one major version only: newer servers print the
    same objects in other words.
    """
    before, after = expected["tables"], found["tables"]
    for table in sorted(before.keys() | after.keys()):
        old, new = before.get(table), after.get(table)
        if old != new:
            yield f"{database}: table {table}", _words(old), _words(new)
    if expected["large_objects"] != found["large_objects"]:
        yield (
            f"{database}: large objects",
            str(expected["large_objects"]),
            str(found["large_objects"]),
        )
    if same_major:
        kinds = expected["schema"].keys() | found["schema"].keys()
        for kind in sorted(kinds):
            old, new = expected["schema"].get(kind), found["schema"].get(kind)
            if old != new:
                yield f"{database}: definitions of {kind}", str(old), str(new)


def _words(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "no such table"
    return f"{facts['rows']} rows, checksum {facts['checksum']}"


def _table_query(
    schema: str, table: str, columns: list[list[str]], *, checksums: bool, method: str
) -> sql.Composed:
    parts = [_column(name, kind, element, method=method) for name, kind, element in columns]
    name = sql.Identifier(schema, table)
    if not checksums or not parts:
        return sql.SQL("SELECT count(*), NULL::text FROM ONLY {} AS t").format(name)
    row = sql.SQL("ROW({})").format(sql.SQL(", ").join(parts))
    if method == "record":
        hashed = sql.SQL("pg_catalog.hash_record_extended({}, 0)").format(row)
    else:
        hashed = sql.SQL("pg_catalog.hashtextextended({}::text, 0)").format(row)
    return sql.SQL("SELECT count(*), coalesce(sum({}), 0)::text FROM ONLY {} AS t").format(
        hashed, name
    )


def _column(name: str, kind: str, element: str, *, method: str) -> sql.Composed:
    column = sql.SQL("t.{}").format(sql.Identifier(name))
    if method == "text":
        return sql.SQL("{}").format(column)
    base = element or kind
    if base not in _STABLE:
        return sql.SQL('({}::pg_catalog.text COLLATE pg_catalog."C")').format(column)
    if base in _COLLATED:
        return sql.SQL('({} COLLATE pg_catalog."C")').format(column)
    return sql.SQL("{}").format(column)


def _schema(connection: Connection) -> dict[str, list[Any]]:
    digests: dict[str, Any] = {}
    counts: dict[str, int] = {}
    with connection.cursor() as cursor:
        for kind, line in cursor.stream(statements.read(_SCHEMA)):
            digests.setdefault(kind, hashlib.sha256()).update(f"{line}\n".encode())
            counts[kind] = counts.get(kind, 0) + 1
    return {kind: [counts[kind], digests[kind].hexdigest()] for kind in sorted(digests)}
