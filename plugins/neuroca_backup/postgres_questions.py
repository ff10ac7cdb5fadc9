"""Questions asked of a PostgreSQL server: does what was restored work, and how quickly?

A question is a query of which every row is a problem; no row means that all is well. Comment lines
at its beginning may say where it is asked: `-- database: NAME[, NAME]` (without it in every
database), `-- requires: SCHEMA.TABLE` (only where there is such a table).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg.sql import SQL, Identifier

from neuroca_backup import postgres_session, sql
from neuroca_backup.engines import Answer, Question
from neuroca_backup.model.endpoint import Endpoint

Connection = psycopg.Connection[TupleRow]

_FOLDER = "checks/questions"
_TIMEOUT = "60s"
_TOLD = 5  # problems of one question
_CHARACTERS = 200  # of each: it goes into logs
_WORD = re.compile(r"^--\s*(database|requires):\s*(.+?)\s*$", re.MULTILINE)


def shipped() -> tuple[Question, ...]:
    """Return the questions of `include/sql`."""
    return tuple(
        Question(name.rpartition("/")[2].removesuffix(".sql"), sql.read(name))
        for name in sql.names(_FOLDER)
    )


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Read the beginning of every table of every database, and ask the shipped questions."""

    def of(connection: Connection, database: str) -> Iterator[Answer]:
        yield from _tables(connection, database)
        for one in shipped():
            yield from _ask(connection, database, one)

    return _in_each(endpoint, _chosen(facts, only), of)


def ask(
    endpoint: Endpoint,
    facts: Mapping[str, Any],
    questions: Sequence[Question],
    *,
    only: Sequence[str] = (),
) -> list[Answer]:
    """Ask `questions` where they say; one of a database that is not in the copy is not asked."""
    databases = _chosen(facts, only)

    def of(connection: Connection, database: str) -> Iterator[Answer]:
        for one in questions:
            yield from _ask(connection, database, one)

    found = _in_each(endpoint, databases, of)
    for one in questions:
        missing = sorted(set(_words(one).get("database", [])) - set(databases))
        if missing:
            found.append(Answer(one.name, unasked=f"{', '.join(missing)} is not in this copy"))
    return found


def _chosen(facts: Mapping[str, Any], only: Sequence[str]) -> list[str]:
    return [database for database in facts["databases"] if not only or database in only]


def _in_each(
    endpoint: Endpoint,
    databases: Sequence[str],
    of: Callable[[Connection, str], Iterator[Answer]],
) -> list[Answer]:
    found: list[Answer] = []
    for database in databases:
        with postgres_session.connect(endpoint, database=database, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = on")
            connection.execute("SELECT set_config('statement_timeout', %s, false)", [_TIMEOUT])
            found += of(connection, database)
    return found


def _tables(connection: Connection, database: str) -> Iterator[Answer]:
    """Read the first row of every table: a file that is missing or damaged shows there."""
    begun = time.monotonic()
    problems = []
    tables = connection.execute(sql.read("checks/postgresql_tables.sql")).fetchall()
    for schema, table, _ in tables:
        try:
            connection.execute(SQL("SELECT FROM {} LIMIT 1").format(Identifier(schema, table)))
        except psycopg.Error as error:
            problems.append(f"{schema}.{table}: {_primary(error)}")
    yield Answer(f"{database}: every table can be read", _since(begun), _bounded(problems))


def _ask(connection: Connection, database: str, one: Question) -> Iterator[Answer]:
    words = _words(one)
    if "database" in words and database not in words["database"]:
        return
    name = f"{database}: {one.name}"
    begun = time.monotonic()
    try:
        for table in words.get("requires", []):
            row = connection.execute("SELECT pg_catalog.to_regclass(%s)", [table]).fetchone()
            if row is None or row[0] is None:
                return
        # The text is a file of this project or of the user's own, as trusted as backup.yaml.
        rows = connection.execute(one.text.encode()).fetchmany(_TOLD + 1)
    except psycopg.Error as error:
        yield Answer(name, _since(begun), (f"it could not be answered: {_primary(error)}",))
        return
    yield Answer(name, _since(begun), _bounded([str(row[0])[:_CHARACTERS] for row in rows]))


def _words(one: Question) -> dict[str, list[str]]:
    return {
        word: [name.strip() for name in names.split(",")] for word, names in _WORD.findall(one.text)
    }


def _bounded(problems: Sequence[str]) -> tuple[str, ...]:
    more = ("and more of the kind",) if len(problems) > _TOLD else ()
    return (*problems[:_TOLD], *more)


def _primary(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 4)
