"""SQL that a dump carries beside the tables: globals of the server, properties of a database."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from neuroca_backup import commands, postgres_session
from neuroca_backup import postgres_tools as tools
from neuroca_backup.errors import ToolFailedError
from neuroca_backup.model.endpoint import Endpoint

_CREATE_ROLE = re.compile(r'^CREATE ROLE ("(?:[^"]|"")+"|[^\s;]+);$')
# Lines of `pg_restore --list` about the database itself.
_PROPERTY = re.compile(r"^\d+; \d+ \d+ (?:ACL|COMMENT|SECURITY LABEL) - DATABASE ")
_GRANTED_BY = re.compile(r'^(GRANT .* TO .*) GRANTED BY ("(?:[^"]|"")+"|[^\s;]+);$')
_ON_TABLESPACE = re.compile(r"^(?:ALTER|COMMENT ON|(?:GRANT|REVOKE) .* ON) TABLESPACE ")
_ALTER_ROLE = re.compile(r'^ALTER ROLE ("(?:[^"]|"")+"|[^\s;]+) ')


def load_properties(archive: Path, endpoint: Endpoint) -> None:
    """Apply what belongs to the database as a whole: its settings, privileges and comment.

    Only `--create` makes pg_restore apply them, and it begins with a CREATE DATABASE that fails
    here, because the database is in place: that must be the only error.
    """
    pg_restore = tools.find("pg_restore")
    contents = commands.run([pg_restore, "--create", "--list", archive]).decode()
    wanted = [line for line in contents.splitlines() if _PROPERTY.match(line)]
    with tempfile.NamedTemporaryFile("w", suffix=".list") as chosen, tools.translated(endpoint):
        chosen.write("\n".join([*wanted, ""]))
        chosen.flush()
        argv: list[str | Path] = [
            pg_restore,
            "--no-password",
            "--create",
            "--no-tablespaces",
            f"--use-list={chosen.name}",
            "--dbname=template1",
            archive,
        ]
        try:
            commands.run(argv, env=tools.environment(endpoint), secrets=[endpoint.password])
        except ToolFailedError as error:
            words = error.facts["stderr"]
            only_one = words.endswith("errors ignored on restore: 1")
            if not (only_one and re.search(r'database ".*" already exists', words, re.DOTALL)):
                raise


def load_globals(endpoint: Endpoint, path: Path, *, superuser: str) -> list[str]:
    """Run the globals, but neither create roles that exist nor alter the one we work as."""
    with postgres_session.connect(endpoint) as connection:
        rows = connection.execute("SELECT rolname FROM pg_catalog.pg_roles").fetchall()
    existing = {str(row[0]) for row in rows}
    skipped: list[str] = []
    with path.open(encoding="utf-8") as lines:
        _run_sql(endpoint, _applicable(lines, existing, endpoint.user, superuser, skipped))
    return skipped


def _run_sql(endpoint: Endpoint, lines: Iterable[str]) -> None:
    """Run a script of pg_dumpall in one transaction; its first error fails it."""
    argv: list[str | Path] = [
        tools.find("psql"),
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--single-transaction",
        "--dbname=template1",
        "--file=-",
    ]
    with (
        tools.translated(endpoint),
        commands.started(
            argv,
            env=tools.environment(endpoint),
            stdin=subprocess.PIPE,
            secrets=[endpoint.password],
        ) as process,
    ):
        assert process.stdin is not None  # noqa: S101 - asked for above
        for line in lines:
            process.stdin.write(line.encode())
        process.stdin.close()


def _applicable(
    lines: Iterable[str], existing: set[str], own: str, superuser: str, skipped: list[str]
) -> Iterator[str]:
    """Yield the lines that can run on this server; `superuser` is the source's first role."""
    for line in lines:
        created, altered = _CREATE_ROLE.match(line.rstrip()), _ALTER_ROLE.match(line)
        granted = _GRANTED_BY.match(line.rstrip())
        if granted and _unquoted(granted[2]) == superuser:
            # Only a server's own first role may grant what it has no ADMIN OPTION on.
            yield f"{granted[1]};\n"
            continue
        if created and _unquoted(created[1]) in existing:
            continue
        if altered and _unquoted(altered[1]) == own:
            skipped.append(f"Role {own} was left as it is: this restore works as it.")
            continue
        if _ON_TABLESPACE.match(line):
            continue
        if line.startswith("CREATE TABLESPACE "):
            skipped.append(f"Not created, its folder belongs to the old host: {line.strip()}")
            continue
        yield line


def _unquoted(identifier: str) -> str:
    if identifier.startswith('"'):
        return identifier[1:-1].replace('""', '"')
    return identifier
