"""How rows in a database differ from those of a backup: names of columns, never values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from neuroca_backup.engines.airflow_metadata import rows
from neuroca_backup.engines.airflow_metadata.fernet import Keys
from neuroca_backup.engines.airflow_metadata.selection import Selection
from neuroca_backup.engines.airflow_metadata.tables import TABLES, Connection, Table

_ABSENT, _THERE = "absent", "there"


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

    def words(self) -> tuple[str, str]:
        """Return what was expected and what was found."""
        if self.kind == "changed":
            return "as it was backed up", f"another {', '.join(self.columns)}"
        return (_THERE, _ABSENT) if self.wanted else (_ABSENT, _THERE)

    def __str__(self) -> str:
        return f"{self.table.word} {self.key}"


def changes(
    connection: Connection,
    schema: str,
    facts: Mapping[str, Any],
    open_member: rows.OpenMember,
    *,
    selection: Selection,
    keys: Keys,
) -> Iterator[Change]:
    """Yield the selected rows that differ between the tables in `schema` and the members.

    Both are read in the order of their keys, side by side; `facts` are the manifest's by member.
    """
    for table in TABLES:
        columns = list(facts[table.member]["columns"])
        members = (
            row
            for row in rows.of_member(open_member, table, columns)
            if selection.accepts(table, row[table.key])
        )
        # What a part of a restore does not name is none of its business.
        found = (
            row
            for row in rows.of_table(connection, schema, table, tuple(columns), lambda: keys)
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
