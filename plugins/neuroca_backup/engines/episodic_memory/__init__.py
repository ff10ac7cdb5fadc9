"""Episodic memory: the collections of a tier in MongoDB as canonical Extended JSON Lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import Field, field_validator

from neuroca_backup.engines import (
    Answer,
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.errors import ChainBrokenError
from neuroca_backup.memory import tiers
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# ruff: noqa: PLC0415 - the driver is imported when a server is talked to, not with the registry


class Options(tiers.TierOptions):
    """`options` of a source of this engine, beside those of every tier.

    `collections`: patterns of `database.collection`, with `*` and `?`.
    """

    tier: tiers.Tier = tiers.EPISODIC
    backend: str = "mongodb"
    collections: tuple[str, ...] = Field(default=("neuroca_episodic.*",), min_length=1)

    @field_validator("collections")
    @classmethod
    def _of_databases(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            database, _, collection = pattern.partition(".")
            if not database or not collection:
                raise ValueError("write database.collection, such as neuroca_episodic.*")
        return patterns


class EpisodicMemoryEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "episodic_memory"
    default_port: ClassVar[int] = 27017
    sandbox: ClassVar[str] = "mongodb_twin"
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        tiers.require_backend(given, kind=self.kind, known=("mongodb",))
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `6.0.5`."""
        from neuroca_backup import mongodb_session

        with mongodb_session.connect(endpoint) as client:
            return mongodb_session.version(client)

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Export every collection of the tier as it was at one moment."""
        if parent is not None:
            raise ChainBrokenError(
                "An export of episodic memory does not continue another one",
                remedy="Schedule full backups of this source; the engine mongodb has incremental "
                "ones.",
            )
        from neuroca_backup.engines.episodic_memory import dump

        return dump.dump(endpoint, sink, Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every document and definition and count again."""
        from neuroca_backup.engines.episodic_memory import members

        members.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many documents the backup holds."""
        collections = manifest.dump.facts["collections"].values()
        documents = sum(one["documents"] for one in collections)
        tier = manifest.dump.facts["tier"]
        return f"{tier} memory: {len(collections)} collections, {documents:,} documents"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse words that select nothing known, and documents that would be replaced."""
        from neuroca_backup.engines.episodic_memory import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load the chosen documents into collections of their own beside what is there."""
        from neuroca_backup.engines.episodic_memory import restore

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare documents, byte for byte, and definitions."""
        from neuroca_backup.engines.episodic_memory import compare

        return compare.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rename whole collections into place; merge chosen documents into theirs."""
        from neuroca_backup.engines.episodic_memory import restore

        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read through every index of the tier's collections; see the protocol."""
        from neuroca_backup.engines.episodic_memory import examine

        return examine.examine(endpoint, facts, only=only)

    def values(self, backup: Restorable, *, place: str, field: str) -> Iterator[str]:
        """Yield the values of a field of documents; see the protocol."""
        from neuroca_backup.engines.episodic_memory import values

        return values.values(backup, place=place, field=field)


ENGINE: Engine = EpisodicMemoryEngine()
