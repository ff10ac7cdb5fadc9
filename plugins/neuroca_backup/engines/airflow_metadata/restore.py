"""Restoring: rows are put beside in a schema of their own, compared, and swapped at one stroke."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from psycopg import sql

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.airflow_metadata import fernet, rows, tables
from neuroca_backup.engines.airflow_metadata.selection import Selection
from neuroca_backup.engines.airflow_metadata.tables import TABLES, Connection, Database, Table
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
)

_MOST_DIFFERENCES = 1000
_ABSENT, _THERE = "absent", "there"
# Every Airflow has this pool, so a new one with nothing else is empty.
_DEFAULT_POOL = "default_pool"


@dataclass(frozen=True, slots=True)
class Change:
    """A row that differs: of which `table`, by its `key`; `columns` are the names that differ.

    `found` and `wanted` say whether the row is there, in the database and in the backup. Values
    are secrets, and are in none of it.
    """

    table: Table
    key: str
    found: bool
    wanted: bool
    columns: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """`added`, `removed` or `changed`."""
        if not self.wanted:
            return "removed"
        return "changed" if self.found else "added"

    def __str__(self) -> str:
        return f"{self.table.word} {self.key}"


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    selection = Selection.parse(backup.only)
    with tables.session(target.endpoint) as connection:
        database = tables.find(connection, target.endpoint)
        _require_columns(backup, database)
        keys = _keys(backup, target)
        _require_opening(connection, database, keys)
        if not backup.folders:
            return [f"The secrets will be encrypted with the Fernet key of {keys.where}"]
        _require_chosen(backup, selection)
        found = list(_occupied(connection, database, selection))
        if found and not target.replace:
            raise TargetRefusedError(
                f"The Airflow at {target.endpoint.label} has {', '.join(found[:5])} already",
                remedy="Restore into a new Airflow or a sandbox, or in place with its "
                "confirmation.",
                server=target.endpoint.label,
            )
        counts = Counter(
            change.kind for change in _changes(connection, database, backup, selection, keys)
        )
        told = ", ".join(f"{counts[kind]:,} {kind}" for kind in ("added", "changed", "removed"))
    return [
        f"Connections, variables and pools: {told}",
        f"The secrets will be encrypted with the Fernet key of {keys.where}",
    ]


def preview(backup: Restorable, target: RestoreTarget) -> Iterator[Change]:
    """Yield every row that a restore would add, change or remove; it touches nothing."""
    with tables.session(target.endpoint) as connection:
        database = tables.find(connection, target.endpoint)
        _require_columns(backup, database)
        keys = _keys(backup, target)
        selection = Selection.parse(backup.only)
        yield from _changes(connection, database, backup, selection, keys)


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Put the rows into a schema beside, encrypted with the target's key; see the protocol."""
    selection, staging = Selection.parse(backup.only), _staging(backup)
    _require_chosen(backup, selection)
    count = 0
    with tables.session(target.endpoint, write=True) as connection:
        database = tables.find(connection, target.endpoint)
        _require_columns(backup, database)
        keys = _keys(backup, target)
        _require_opening(connection, database, keys)
        schema = sql.Identifier(staging)
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
        for table in TABLES:
            beside = tables.identifier(staging, table)
            connection.execute(
                sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING DEFAULTS)").format(
                    beside, tables.identifier(database.schema, table)
                )
            )
            connection.execute(sql.SQL("ALTER TABLE {} DROP COLUMN id").format(beside))
            count += _fill(connection, staging, table, backup, selection, keys)
    return [f"{count:,} rows wait beside in the schema {staging}"]


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Return how the rows beside, or what they have become, differ from the members."""
    for table in TABLES:
        rows.check(_facts(backup)[table.member], partial(_open, backup), table)
    selection = Selection.parse(backup.only)
    with tables.session(target.endpoint) as connection:
        database = tables.find(connection, target.endpoint)
        keys = _keys(backup, target)
        schema = _staging(backup) if _staged(connection, backup) else database.schema
        found = (
            Difference(str(change), *words)
            for change in _changes(connection, database, backup, selection, keys, schema=schema)
            for words in _words(change)
        )
        return list(islice(found, _MOST_DIFFERENCES))


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Make the tables what lies beside, in one transaction; a repeat changes nothing more."""
    selection, staging = Selection.parse(backup.only), _staging(backup)
    with tables.session(target.endpoint, write=True) as connection:
        if not _staged(connection, backup):
            return []
        database = tables.find(connection, target.endpoint)
        for table in TABLES:
            # Others may read on; who writes waits until all three are what they should be.
            connection.execute(
                sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(
                    tables.identifier(database.schema, table)
                )
            )
        occupied = list(_occupied(connection, database, selection))
        if occupied and not target.replace:
            raise TargetRefusedError(
                f"The Airflow at {target.endpoint.label} has got {', '.join(occupied[:5])} since "
                "the restore began",
                remedy="Restore in place with its confirmation, or remove them.",
                server=target.endpoint.label,
            )
        columns = {table.name: _facts(backup)[table.member]["columns"] for table in TABLES}
        notes = [
            _swap(connection, database, staging, table, columns[table.name], selection)
            for table in TABLES
        ]
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(staging)))
    return notes


def _fill(
    connection: Connection,
    staging: str,
    table: Table,
    backup: Restorable,
    selection: Selection,
    keys: fernet.Keys,
) -> int:
    """Copy the selected rows of a member into its table beside; COPY shows no value in a log."""
    columns = list(_facts(backup)[table.member]["columns"])
    flags = tuple(table.secrets.values())
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        tables.identifier(staging, table),
        sql.SQL(", ").join(map(sql.Identifier, (*columns, *flags))),
    )
    count = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows.of_member(partial(_open, backup), table, columns):
            if not selection.accepts(table, row[table.key]):
                continue
            values, encrypted = dict(row), []
            for column in table.secrets:
                if values[column]:
                    values[column] = keys.encrypt(values[column])
                encrypted.append(bool(values[column]))
            copy.write_row([*(values[column] for column in columns), *encrypted])
            count += 1
    return count


def _swap(
    connection: Connection,
    database: Database,
    staging: str,
    table: Table,
    held: list[str],
    selection: Selection,
) -> str:
    """Make the rows of a table those beside it; return a note with how many there were.

    `held` are the columns that the backup has; others of a newer Airflow are left alone.
    """
    live, beside = tables.identifier(database.schema, table), tables.identifier(staging, table)
    key = sql.Identifier(table.key)
    columns = [*held, *table.secrets.values()]
    removed = 0
    if selection.everything:
        removed = connection.execute(
            sql.SQL(
                "DELETE FROM {0} AS old WHERE NOT EXISTS"
                " (SELECT 1 FROM {1} AS new WHERE new.{2} = old.{2})"
            ).format(live, beside, key)
        ).rowcount
    written = connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} ON CONFLICT ({}) DO UPDATE SET {}").format(
            live,
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            sql.SQL(", ").join(map(sql.Identifier, columns)),
            beside,
            key,
            sql.SQL(", ").join(
                sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in columns
            ),
        )
    ).rowcount
    return f"{written:,} {table.word}s are as they were backed up, {removed:,} others are removed"


def _changes(
    connection: Connection,
    database: Database,
    backup: Restorable,
    selection: Selection,
    keys: fernet.Keys,
    *,
    schema: str | None = None,
) -> Iterator[Change]:
    """Yield the rows that differ between `schema` (default: Airflow's own) and the members.

    Both are read in the order of their keys, side by side.
    """
    for table in TABLES:
        columns = list(_facts(backup)[table.member]["columns"])
        members = (
            row
            for row in rows.of_member(partial(_open, backup), table, columns)
            if selection.accepts(table, row[table.key])
        )
        # What a part of a restore does not name is none of its business.
        found = (
            row
            for row in rows.of_table(
                connection, schema or database.schema, table, tuple(columns), lambda: keys
            )
            if selection.accepts(table, row[table.key])
        )
        yield from _merged(table, found, members)


def _merged(
    table: Table, found: Iterator[Mapping[str, Any]], wanted: Iterator[Mapping[str, Any]]
) -> Iterator[Change]:
    one, other = next(found, None), next(wanted, None)
    while one is not None or other is not None:
        has = None if one is None else str(one[table.key])
        needs = None if other is None else str(other[table.key])
        if needs is None or (has is not None and has < needs):
            yield Change(table, str(has), found=True, wanted=False)
            one = next(found, None)
        elif has is None or needs < has:
            yield Change(table, needs, found=False, wanted=True)
            other = next(wanted, None)
        else:
            assert one is not None  # noqa: S101 - both have the key
            assert other is not None  # noqa: S101 - as above
            differ = tuple(name for name in other if one[name] != other[name])
            if differ:
                yield Change(table, needs, found=True, wanted=True, columns=differ)
            one, other = next(found, None), next(wanted, None)


def _words(change: Change) -> Iterator[tuple[str, str]]:
    if change.kind == "changed":
        yield "as it was backed up", f"another {', '.join(change.columns)}"
    else:
        yield (_THERE, _ABSENT) if change.wanted else (_ABSENT, _THERE)


def _occupied(connection: Connection, database: Database, selection: Selection) -> Iterator[str]:
    """Yield what the target has that a restore would replace, as `connection my_db`."""
    for table in TABLES:
        query = sql.SQL('SELECT {0} FROM {1} ORDER BY {0} COLLATE "C"').format(
            sql.Identifier(table.key), tables.identifier(database.schema, table)
        )
        for (key,) in connection.execute(query):
            if key == _DEFAULT_POOL and table.word == "pool":
                continue
            if selection.accepts(table, key):
                yield f"the {table.word} {key}"


def _require_columns(backup: Restorable, database: Database) -> None:
    for table in TABLES:
        wanted = _facts(backup)[table.member]["columns"]
        missing = sorted(set(wanted) - set(tables.visible(database, table)))
        if missing:
            raise IncompatibleVersionError(
                f"The backup is of an Airflow at revision {_revision(backup)}, whose {table.name} "
                f"has {', '.join(missing)}; the target is at {database.revision or 'none'} and "
                "has not",
                remedy="Migrate the target to the version of the backup, or a newer one "
                "(`airflow db migrate`).",
                backup=_revision(backup),
                target=database.revision,
            )


def _require_opening(connection: Connection, database: Database, keys: fernet.Keys) -> None:
    """See that the key is the one of the target's Airflow, as far as it has encrypted anything.

    With another one Airflow could not read what was restored.
    """
    for table in TABLES:
        for column, flag in table.secrets.items():
            row = connection.execute(
                sql.SQL("SELECT {}, {} FROM {} WHERE {} AND {} <> '' LIMIT 1").format(
                    sql.Identifier(table.key),
                    sql.Identifier(column),
                    tables.identifier(database.schema, table),
                    sql.Identifier(flag),
                    sql.Identifier(column),
                )
            ).fetchone()
            if row is not None:
                keys.decrypt(row[1], of=f"{column} of the {table.word} {row[0]} of the target")


def _require_chosen(backup: Restorable, selection: Selection) -> None:
    for table in TABLES if selection.keys is not None else ():
        missing = set((selection.keys or {})[table.word])
        columns = list(_facts(backup)[table.member]["columns"])
        for row in rows.of_member(partial(_open, backup), table, columns):
            missing.discard(row[table.key])
        if missing:
            raise ConfigurationError(
                f"{backup.last.backup_id} has no {table.word} {min(missing)}",
                remedy="Choose an older backup, or another name.",
                value=min(missing),
            )


def _keys(backup: Restorable, target: RestoreTarget) -> fernet.Keys:
    """Return the keys of the target's Airflow; in place the source's own file is one of them."""
    named = backup.last.dump.facts["fernet_key_file"] if target.replace else ""
    return fernet.find(target.endpoint, Path(named) if named else None)


def _staged(connection: Connection, backup: Restorable) -> bool:
    row = connection.execute(
        "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", [_staging(backup)]
    ).fetchone()
    return row is not None


def _staging(backup: Restorable) -> str:
    words = "\n".join((backup.last.backup_id, *backup.only))
    return f"neuroca_restoring_{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def _facts(backup: Restorable) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = backup.last.dump.facts["tables"]
    return facts


def _revision(backup: Restorable) -> str:
    return str(backup.last.dump.facts["airflow_revision"]) or "none"


def _open(backup: Restorable, name: str) -> BinaryIO:
    try:
        return (backup.folders[-1] / name).open("rb")
    except FileNotFoundError:
        raise NotFoundError(
            f"The member {name} of {backup.last.backup_id} was not fetched",
            remedy="Run the restore from its fetch step on.",
            path=name,
        ) from None
