"""Rows of the tables as lines of JSON, their secrets in clear; sorted, so that two can be merged.

The order is that of the key's bytes in UTF-8, PostgreSQL's collation "C".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from psycopg import sql

from neuroca_backup.engines.airflow_metadata.fernet import Keys
from neuroca_backup.engines.airflow_metadata.tables import (
    Connection,
    Table,
    identifier,
)
from neuroca_backup.errors import DamagedError

Row = Mapping[str, Any]
OpenMember = Callable[[str], BinaryIO]

_BATCH = 1000  # rows fetched at once
_LONGEST_LINE = 64 * 1024 * 1024  # bytes; a variable may be large


def encode(row: Row) -> bytes:
    """Return the line of `row`; the same row is the same bytes everywhere."""
    return json.dumps(row, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def of_table(
    connection: Connection,
    schema: str,
    table: Table,
    columns: tuple[str, ...],
    keys: Callable[[], Keys],
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `table` in their order, with `columns`, decrypted.

    `keys` is only called where something is encrypted.

    Raises:
        ConfigurationError: A value cannot be decrypted; names its row, and never the value.
    """
    flags = tuple(flag for flag in table.secrets.values())
    asked = (*columns, *flags)
    query = sql.SQL('SELECT {} FROM {} ORDER BY {} COLLATE "C"').format(
        sql.SQL(", ").join(map(sql.Identifier, asked)),
        identifier(schema, table),
        sql.Identifier(table.key),
    )
    with connection.cursor(name=f"neuroca_{table.word}") as cursor:
        cursor.itersize = _BATCH
        cursor.execute(query)
        for values in cursor:
            found = dict(zip(asked, values, strict=True))
            for column, flag in table.secrets.items():
                if found.pop(flag, None) and found[column]:
                    name = f"{column} of the {table.word} {found[table.key]}"
                    found[column] = keys().decrypt(found[column], of=name)
            yield found


def of_member(open_member: OpenMember, table: Table, columns: list[str]) -> Iterator[Row]:
    """Yield the rows of a member.

    Raises:
        DamagedError: A line is no row of these columns, or out of order.
    """
    last: bytes | None = None
    with open_member(table.member) as stream:
        while line := stream.readline(_LONGEST_LINE):
            try:
                row = json.loads(line)
            except ValueError:
                raise damaged(table, "a line is not JSON") from None
            if not isinstance(row, dict) or sorted(row) != sorted(columns):
                raise damaged(table, "a line is no row of its columns")
            key = str(row[table.key]).encode()
            if (last is not None and key <= last) or encode(row) != line:
                raise damaged(table, "its rows are not in order, or changed")
            last = key
            yield row


def check(facts: Mapping[str, Any], open_member: OpenMember, table: Table) -> None:
    """Read a member to its end; raise `DamagedError` where it is not what was counted."""
    running, count = hashlib.sha256(), 0
    for row in of_member(open_member, table, facts["columns"]):
        running.update(encode(row))
        count += 1
    if (count, running.hexdigest()) != (facts["rows"], facts["sha256"]):
        raise damaged(table, f"it holds {count} rows, not the {facts['rows']} that were backed up")


def damaged(table: Table, problem: str) -> DamagedError:
    """Return the error of a member."""
    return DamagedError(
        f"{table.member} is damaged: {problem}",
        remedy="Restore from another store, or an older backup; then take a new one.",
        key=table.member,
    )
