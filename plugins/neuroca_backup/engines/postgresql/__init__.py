"""PostgreSQL, logical: every database by `pg_dump`, roles and other globals by `pg_dumpall`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from neuroca_backup import postgres_questions
from neuroca_backup.engines import (
    Answer,
    Difference,
    Engine,
    Parent,
    Question,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.engines.postgresql import dump, parse, restore
from neuroca_backup.errors import ChainBrokenError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest


class Options(BaseModel):
    """`options` of a source of this engine.

    `databases`: all of them, or a list. `jobs`: connections of one parallel dump.
    `checksums`: whether a checksum of every table's rows is taken beside their number; it reads
    every table once more. `allow_empty`: whether databases without any table are a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    databases: str | tuple[str, ...] = Field(default="all")
    jobs: int = Field(default=4, ge=1, le=64)
    checksums: bool = True
    allow_empty: bool = False


class PostgresqlEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "postgresql"
    default_port: ClassVar[int] = 5432
    sandbox: ClassVar[str] = "postgres_twin"
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = True
    question_suffix: ClassVar[str] = ".sql"

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        options = checked_options(Options, given, kind=self.kind)
        if isinstance(options.databases, str) and options.databases != "all":
            raise ConfigurationError(
                f"options.databases of a postgresql source is {options.databases!r}",
                remedy="Write `all`, or a list of names such as [neuroca].",
                path="options.databases",
                value=options.databases,
            )
        return options.model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `18.6`."""
        return dump.server_version(endpoint)

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Dump globals and every chosen database; each database is one snapshot."""
        if parent is not None:
            raise ChainBrokenError(
                "A logical dump cannot continue another one",
                remedy="Use `method: physical` or `both` for incremental backups of PostgreSQL.",
            )
        return dump.dump(endpoint, sink, Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every table of contents and every table's data."""
        parse.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many databases, tables and rows the backup holds."""
        databases = manifest.dump.facts["databases"].values()
        tables = [table for database in databases for table in database["tables"].values()]
        rows = sum(table["rows"] for table in tables)
        return f"{len(databases)} databases, {len(tables)} tables, {rows:,} rows"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse versions that cannot work and databases that would be overwritten."""
        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load every database under a name of its own beside what is there."""
        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare rows, checksums, definitions and large objects with the manifest."""
        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Swap all databases into place in one transaction, keeping what they replace."""
        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read every table's beginning, and ask what `include/sql/checks/questions` holds."""
        return postgres_questions.examine(endpoint, facts, only=only)

    def ask(
        self,
        endpoint: Endpoint,
        facts: Mapping[str, Any],
        questions: Sequence[Question],
        *,
        only: Sequence[str] = (),
    ) -> Sequence[Answer]:
        """Ask `questions`: SQL of which every row is a problem."""
        return postgres_questions.ask(endpoint, facts, questions, only=only)


ENGINE: Engine = PostgresqlEngine()
