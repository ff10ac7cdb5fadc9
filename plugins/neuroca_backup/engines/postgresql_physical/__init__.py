"""PostgreSQL, physical: the whole cluster, block by block, restorable to any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import BaseModel, ByteSize, ConfigDict, Field

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
from neuroca_backup.engines.postgresql_physical import (
    compare,
    dump,
    parse,
    place,
    restore,
    source,
)
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest


class Options(BaseModel):
    """`options` of a source of this engine.

    `incremental`: how a backup continues another: `summaries` (changed blocks, PostgreSQL 17 and
    later with `summarize_wal`), `wal` (WAL alone), or `auto`, the first where it is possible.
    `point_in_time`: whether an incremental carries all WAL since its parent, so that a restore can
    stop at any moment between them; a replication slot called `slot` keeps it on the source.
    `max_retained_wal`: bytes, or words such as `10GB`, that the slot may hold there.
    `checksums`: whether a checksum of every table's rows is taken beside their number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    incremental: Literal["auto", "summaries", "wal"] = "auto"
    point_in_time: bool = True
    slot: str = Field(default="neuroca_backup", pattern=r"^[a-z0-9_]{1,63}$")
    max_retained_wal: ByteSize = Field(default=ByteSize(10_000_000_000), gt=0)
    checksums: bool = True


class PhysicalEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "postgresql_physical"
    default_port: ClassVar[int] = 5432
    sandbox: ClassVar[str] = "postgres_directory"
    incremental: ClassVar[bool] = True
    keeps: ClassVar[bool] = True
    question_suffix: ClassVar[str] = ".sql"

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        options = checked_options(Options, given, kind=self.kind)
        if options.incremental == "wal" and not options.point_in_time:
            raise ConfigurationError(
                "options.incremental of a postgresql_physical source is 'wal' while "
                "options.point_in_time is false",
                remedy="Incremental backups by WAL need the slot: leave `point_in_time` true, or "
                "set `incremental: summaries`.",
                path="options.point_in_time",
                value=False,
            )
        return options.model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `18.6`."""
        return source.server_version(source.login(endpoint))

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Write a base backup and the WAL up to a marker; with `parent`, what came after it."""
        return dump.dump(source.login(endpoint), sink, Options.model_validate(options), parent)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Compare every file with the server's own manifest, and every WAL page with its place."""
        parse.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return what the backup holds, e.g. `2 databases, 11 tables, 9 rows, up to 0/3000060`."""
        facts = manifest.dump.facts
        tables = [table for one in facts["databases"].values() for table in one["tables"].values()]
        rows = f", {sum(table['rows'] for table in tables):,} rows" if facts["exact"] else ""
        return (
            f"{len(facts['databases'])} databases, {len(tables)} tables{rows}, up to "
            f"{manifest.dump.consistency['lsn']}"
        )

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse a directory that is in use, another major version, a moment out of reach."""
        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rebuild the cluster beside the directory, and let a throwaway server recover it."""
        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare the cluster, its tables and rows, and the structure of tables and indexes."""
        return compare.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Move the directory into its place, keeping what was there; a sandbox then serves it."""
        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read every table's beginning, and ask what `include/sql/checks/questions` holds."""
        if _unserved(endpoint):
            return [_UNASKED]
        return postgres_questions.examine(source.login(endpoint), facts, only=only)

    def ask(
        self,
        endpoint: Endpoint,
        facts: Mapping[str, Any],
        questions: Sequence[Question],
        *,
        only: Sequence[str] = (),
    ) -> Sequence[Answer]:
        """Ask `questions`: SQL of which every row is a problem."""
        if _unserved(endpoint):
            return [replace(_UNASKED, question=one.name) for one in questions]
        return postgres_questions.ask(source.login(endpoint), facts, questions, only=only)


_UNASKED = Answer("the server answers", unasked="no server runs on the restored directory yet")


def _unserved(endpoint: Endpoint) -> bool:
    return not endpoint.host and place.WORD in endpoint.extra


ENGINE: Engine = PhysicalEngine()
