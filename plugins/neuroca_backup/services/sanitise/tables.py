"""Sanitising tables of PostgreSQL: one UPDATE a table within the server, then a rewrite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow, dict_row

from neuroca_backup import sql as texts
from neuroca_backup.errors import NotFoundError, PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.postgres_session import connect, translated
from neuroca_backup.services.sanitise import columns
from neuroca_backup.services.sanitise.columns import Column
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker
from neuroca_backup.settings import RuleSettings

_PIECE = 1 << 18  # bytes that are searched at once
# Foreign keys are checked afterwards, and what triggers would copy is personal.
_SESSION = "SET session_replication_role = replica; SET row_security = off; SET jit = off"

Session = psycopg.Connection[TupleRow]


@contextmanager
def opened(endpoint: Endpoint, databases: Sequence[str]) -> Iterator[Tables]:
    """Open the copy of `databases`."""
    yield Tables(endpoint, databases)


@dataclass(frozen=True, slots=True)
class _Site:
    """A rule and the column that it found in one database; no column for a whole table."""

    rule: RuleSettings
    database: str
    column: Column


@dataclass
class Tables:
    """See `neuroca_backup.services.sanitise.copies.Copy`."""

    endpoint: Endpoint
    databases: Sequence[str]
    _sites: list[_Site] = field(default_factory=list)

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Find the column of every rule, and refuse what the table does not allow."""
        self._sites = []
        for database in self.databases:
            wanted = [rule for rule in rules if rule.database in (None, database)]
            with connect(self.endpoint, database=database, autocommit=True) as session:
                found = [
                    _Site(rule, database, column)
                    for rule in wanted
                    if (column := _column(session, rule)) is not None
                ]
                _refuse_torn_keys(session, found)
            self._sites += found
        there = [rule for rule in rules if any(site.rule is rule for site in self._sites)]
        for rule in rules:
            if rule not in there and not rule.optional:
                raise NotFoundError(
                    f"{rule.place} is not in the copy: none of {', '.join(self.databases)} has it",
                    remedy="Correct that rule of `sanitise`, or say `optional: true` where it may "
                    "be absent. Nothing was changed.",
                    place=rule.place,
                )
        return there

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Keep values from all over each table, then from its beginning."""
        for site in self._sites:
            if site.rule not in rules or not columns.searchable(site.column):
                continue
            value = columns.text_of(site.column, site.rule)
            # Of a small table the sample is likely to be empty.
            for sampled in (sql.SQL(" TABLESAMPLE SYSTEM (1)"), sql.SQL("")):
                query = sql.SQL(
                    "SELECT DISTINCT value FROM (SELECT {} AS value FROM {}{} LIMIT {}) AS looked "
                    "WHERE value IS NOT NULL LIMIT {}"
                ).format(
                    *(value, sql.SQL(site.column.table), sampled),
                    *(sql.Literal(50 * evidence.most), sql.Literal(evidence.most // 2)),
                )
                with connect(self.endpoint, database=site.database) as session:
                    for (found,) in session.execute(query):
                        evidence.add(site.rule.place, found)

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Change every table in one statement, then rewrite it with all that is made from it."""
        del rules  # as in `capture`
        changes: list[Change] = []
        for database, sites in groupby(self._sites, key=lambda site: site.database):
            with connect(self.endpoint, database=database, autocommit=True) as session:
                session.execute(_SESSION)
                _give_keys(session, masker)
                changes += _changed(session, list(sites))
                _require_whole_keys(session)
        return changes

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield the rows of every table as COPY writes them, large objects and statistics."""
        for database in self.databases:
            with connect(self.endpoint, database=database, autocommit=True) as session:
                names = [row[0] for row in session.execute(_text("relations"))]
                limit = sql.SQL("") if most is None else sql.SQL(" LIMIT {}").format(most)
                for name in names:
                    query = sql.SQL("COPY (SELECT * FROM {}{}) TO STDOUT").format(
                        sql.SQL(name),
                        limit,
                    )
                    yield from _copied(self.endpoint, session, query, joined=most is None)
                if most is None:
                    for one in ("large_objects", "statistics"):
                        yield from _copied(self.endpoint, session, sql.SQL(_text(one)))


def _text(name: str) -> Any:
    return texts.read(f"sanitise/{name}.sql")


def _column(session: Session, rule: RuleSettings) -> Column | None:
    schema, _, table = str(rule.table).partition(".")
    words = {"schema": schema, "table": table, "column": rule.column}
    with session.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_text("column"), words).fetchone()
    if row is None or (rule.column is not None and row["attname"] is None):
        return None
    column = Column(
        table=row["name"],
        name=rule.column or "",
        type=row["type"] or "",
        length=row["length"] if (row["length"] or 0) > 0 else None,
        not_null=bool(row["not_null"]),
    )
    columns.refuse(column, rule, row)
    if rule.path and not _holds(session, column, rule):
        return None
    return column


def _holds(session: Session, column: Column, rule: RuleSettings) -> bool:
    """Return whether any row has the path of `rule`; an empty table has nothing in clear."""
    query = sql.SQL(
        "SELECT EXISTS (SELECT FROM {table} WHERE {value} IS NOT NULL) "
        "OR NOT EXISTS (SELECT FROM {table})"
    ).format(table=sql.SQL(column.table), value=columns.text_of(column, rule))
    found = session.execute(query).fetchone()
    return bool(found and found[0])


def _refuse_torn_keys(session: Session, sites: Sequence[_Site]) -> None:
    """Refuse rules after which a foreign key would refer to nothing."""
    actions = {(site.column.table, site.column.name): site.rule.action for site in sites}
    for name, child, child_column, parent, parent_column in session.execute(_text("foreign_keys")):
        ours = actions.get((child, child_column))
        theirs = actions.get((parent, parent_column))
        if ours in {"null", "drop"} and theirs is None:
            continue
        if ours != theirs or ours == "fake":
            raise PermanentError(
                f"The foreign key {name} leads from {child}.{child_column} to "
                f"{parent}.{parent_column}, and the rules of `sanitise` would change "
                f"{'both in another way' if ours and theirs else 'one of them alone'}",
                remedy="Write `action: hash` for both columns, or for neither. Nothing was "
                "changed.",
                constraint=name,
            )


def _give_keys(session: Session, masker: Masker) -> None:
    for name, key in zip(("inner", "outer"), masker.pads, strict=True):
        session.execute("SELECT set_config(%s, %s, false)", [f"neuroca.{name}", key.hex()])
    session.execute(_text("functions"))


def _changed(session: Session, sites: Sequence[_Site]) -> Iterator[Change]:
    emptied = [site for site in sites if not site.column.name]
    if emptied:
        names = sql.SQL(", ").join(sql.SQL(site.column.table) for site in emptied)
        for site in emptied:
            yield Change(site.rule.place, "drop", _count(session, site.column.table))
        session.execute(sql.SQL("TRUNCATE {}").format(names))
    rest = sorted((s for s in sites if s.column.name), key=lambda site: site.column.table)
    rewritten: list[str] = []
    for table, found in groupby(rest, key=lambda site: site.column.table):
        of_table = list(found)
        yield from _updated(session, table, of_table)
        gone = dict.fromkeys(
            s.column.name for s in of_table if s.rule.action == "drop" and not s.rule.path
        )
        for name in gone:
            session.execute(
                sql.SQL("ALTER TABLE {} DROP COLUMN {}").format(
                    sql.SQL(table),
                    sql.Identifier(name),
                )
            )
        rewritten += [row[0] for row in session.execute(_text("heirs"), {"name": table})]
    _rewrite(session, rewritten)


def _updated(session: Session, table: str, sites: Sequence[_Site]) -> Iterator[Change]:
    """Change all columns of a table at once, and say of how many rows each was."""
    sets = columns.assignments([(site.column, site.rule) for site in sites])
    counted = sql.SQL(", ").join(
        sql.SQL("count({})").format(columns.text_of(site.column, site.rule)) for site in sites
    )
    counts = session.execute(
        sql.SQL("SELECT {} FROM {}").format(counted, sql.SQL(table))
    ).fetchone()
    if sets:
        session.execute(
            sql.SQL("UPDATE {} SET {}").format(sql.SQL(table), sql.SQL(", ").join(sets))
        )
    for site, count in zip(sites, counts or (), strict=True):
        yield Change(site.rule.place, site.rule.action, count)


def _rewrite(session: Session, tables: Sequence[str]) -> None:
    """Leave no old row on any page, no old value in the statistics, none in materialised views."""
    for table in tables:
        session.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.SQL(table)))
    for name, kind, populated in session.execute(_text("relations")).fetchall():
        if kind == "m" and populated:
            view = sql.SQL(name)
            session.execute(sql.SQL("REFRESH MATERIALIZED VIEW {}").format(view))
            session.execute(sql.SQL("ANALYZE {}").format(view))
    for catalog in ("pg_statistic", "pg_statistic_ext_data"):
        session.execute(sql.SQL("VACUUM FULL pg_catalog.{}").format(sql.Identifier(catalog)))


def _require_whole_keys(session: Session) -> None:
    """Check the foreign keys, as they were not while the rows were changed."""
    rows = session.execute(_text("foreign_keys")).fetchall()
    for (name, child, parent), found in groupby(rows, key=lambda row: (row[0], row[1], row[3])):
        pairs = [(row[2], row[4]) for row in found]
        query = sql.SQL(
            "SELECT count(*) FROM {child} AS c WHERE {given} AND NOT EXISTS "
            "(SELECT FROM {parent} AS p WHERE {same})"
        ).format(
            child=sql.SQL(child),
            parent=sql.SQL(parent),
            given=sql.SQL(" AND ").join(
                sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(ours)) for ours, _ in pairs
            ),
            same=sql.SQL(" AND ").join(
                sql.SQL("p.{} = c.{}").format(sql.Identifier(theirs), sql.Identifier(ours))
                for ours, theirs in pairs
            ),
        )
        broken = (session.execute(query).fetchone() or (0,))[0]
        if broken:
            raise PermanentError(
                f"After sanitising {broken} rows of {child} refer to nothing by {name}",
                remedy="Write the same rule of `sanitise` for both of its columns, and see that "
                "they are of the same type.",
                constraint=name,
            )


def _count(session: Session, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM {}").format(sql.SQL(table))
    return int((session.execute(query).fetchone() or (0,))[0])


def _copied(
    endpoint: Endpoint, session: Session, query: sql.SQL | sql.Composed, *, joined: bool = True
) -> Iterator[bytes]:
    """Yield rows, many at once where they are to be searched, or one by one."""
    rows = bytearray()
    with translated(endpoint), session.cursor() as cursor, cursor.copy(query) as copy:
        for row in copy:
            if not joined:
                yield bytes(row)
                continue
            rows += row
            if len(rows) >= _PIECE:
                yield bytes(rows)
                rows.clear()
    if rows:
        yield bytes(rows)
