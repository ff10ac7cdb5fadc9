"""MongoDB: raw BSON in mongodump's own layout, made one moment by the oplog; oplog slices after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, Field

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
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# ruff: noqa: PLC0415 - the driver is imported when a server is talked to, not with the registry


class Options(BaseModel):
    """`options` of a source of this engine.

    `databases`: all of them, or a list; users and roles come along either way. `jobs`: collections
    that are read at once. `checksums`: whether a digest of every collection's documents is taken
    beside their number; it reads what has changed once more. `allow_empty`: whether a server
    without any document is a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    databases: str | tuple[str, ...] = Field(default="all")
    jobs: int = Field(default=4, ge=1, le=64)
    checksums: bool = True
    allow_empty: bool = False


class MongodbEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "mongodb"
    default_port: ClassVar[int] = 27017
    sandbox: ClassVar[str] = "mongodb_twin"
    incremental: ClassVar[bool] = True
    keeps: ClassVar[bool] = True
    question_suffix: ClassVar[str] = ".json"

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        options = checked_options(Options, given, kind=self.kind)
        if isinstance(options.databases, str) and options.databases != "all":
            raise ConfigurationError(
                f"options.databases of a mongodb source is {options.databases!r}",
                remedy="Write `all`, or a list of names such as [neuroca_episodic].",
                path="options.databases",
                value=options.databases,
            )
        return options.model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `6.0.5`."""
        from neuroca_backup import mongodb_session as session

        with session.connect(endpoint) as client:
            return session.version(client)

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Dump every chosen database, or the oplog since `parent`."""
        from neuroca_backup.engines.mongodb import capture, dump

        chosen = Options.model_validate(options)
        if parent is not None:
            return capture.incremental(endpoint, sink, chosen, parent)
        return dump.dump(endpoint, sink, chosen)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every document, definition and oplog entry."""
        from neuroca_backup.engines.mongodb import check

        check.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many databases, collections and documents there were at its end."""
        collections = manifest.dump.facts["collections"]
        databases = {name.partition(".")[0] for name in collections} - {"admin"}
        documents = sum(one["documents"] or 0 for one in collections.values())
        return (
            f"{len(databases)} databases, {len(collections)} collections, {documents:,} documents"
        )

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse versions that cannot work and collections that would be replaced."""
        from neuroca_backup.engines.mongodb import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load every collection under a name of its own beside what is there."""
        from neuroca_backup.engines.mongodb import restore

        return restore.load_all(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare documents and definitions with the manifests' facts."""
        from neuroca_backup.engines.mongodb import restore

        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rename everything into place, keeping what it replaces."""
        from neuroca_backup.engines.mongodb import restore

        return restore.publish_all(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read through every index of every collection."""
        from neuroca_backup.engines.mongodb import examine

        return examine.examine(endpoint, facts, only=only)

    def ask(
        self,
        endpoint: Endpoint,
        facts: Mapping[str, Any],  # noqa: ARG002 - the protocol's
        questions: Sequence[Question],
        *,
        only: Sequence[str] = (),
    ) -> Sequence[Answer]:
        """Ask `questions`: JSON with a pipeline of which every document is a problem."""
        from neuroca_backup.engines.mongodb import examine

        return examine.ask(endpoint, questions, only=only)


ENGINE: Engine = MongodbEngine()
