"""Semantic memory: embeddings with their metadata, in any vector store that there is an engine for.

The store's own engine dumps and restores whole collections; single items are this one's.
"""

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

# ruff: noqa: PLC0415 - pyarrow and the stores' clients take seconds to import


class Options(tiers.TierOptions):
    """`options` of a source of this engine, beside those of every tier.

    `collections`: a list of names (`collection` or `database.collection`), or `all`.
    `embedding_model`: the name of the model whose vectors these are, "" where nobody knows it.
    `dimension`: how long all vectors have to be, 0 for any length. `id_fields`: fields that name
    an item beside its key.
    """

    tier: tiers.Tier = tiers.SEMANTIC
    backend: str = "vector"
    collections: str | tuple[str, ...] = ("neuroca_semantic",)
    embedding_model: str = ""
    dimension: int = Field(default=0, ge=0, le=65_536)
    id_fields: tuple[str, ...] = ("memory_id",)

    @field_validator("collections")
    @classmethod
    def _all_or_a_list(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str) and value != "all":
            raise ValueError("write `all`, or a list of names such as [neuroca_semantic]")
        return value


class SemanticMemoryEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "semantic_memory"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = "milvus"
    incremental: ClassVar[bool] = False
    # A whole tier is kept beside by most stores, what single items replace by none.
    keeps: ClassVar[bool] = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        tiers.require_backend(given, kind=self.kind, known=("vector",))
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `2.3.5`."""
        from neuroca_backup.engines.semantic_memory import store

        return store.of(endpoint).probe(store.plain(endpoint))

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Export the collections of the tier by the engine of their store."""
        if parent is not None:
            raise ChainBrokenError(
                "An export of semantic memory cannot continue another one",
                remedy="Schedule full backups of this source only.",
            )
        from neuroca_backup.engines.semantic_memory import store

        return store.dump(endpoint, sink, Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every row of every part."""
        from neuroca_backup.engines.semantic_memory import store

        store.named(manifest.dump.facts["store"]).check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many vectors of which model the backup holds."""
        facts = manifest.dump.facts
        vectors = sum(one["count"] for one in facts["collections"].values())
        model = facts["embedding_model"] or "a model that is not named"
        return (
            f"{facts['tier']} memory: {len(facts['collections'])} collections, {vectors:,} vectors "
            f"of {model}"
        )

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse another store, model or dimension, and data that stands against the restore."""
        from neuroca_backup.engines.semantic_memory import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load whole collections, or the chosen rows into others beside them."""
        from neuroca_backup.engines.semantic_memory import restore

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare whole collections with the manifest, chosen rows each with the backup's."""
        from neuroca_backup.engines.semantic_memory import restore

        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Put whole collections in their place, chosen rows in the place of theirs."""
        from neuroca_backup.engines.semantic_memory import restore

        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Search the tier's collections; see the protocol."""
        from neuroca_backup.engines.semantic_memory import examine

        return examine.examine(endpoint, facts, only=only)

    def values(self, backup: Restorable, *, place: str, field: str) -> Iterator[str]:
        """Yield the values of a field of rows; see the protocol."""
        from neuroca_backup.engines.semantic_memory import values

        return values.values(backup, place=place, field=field)


ENGINE: Engine = SemanticMemoryEngine()
