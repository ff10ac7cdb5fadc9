"""The engine of any vector store, over its `VectorDatabase`.

A store's own engine names itself, says how to connect (`connect`), checks its options, and turns
`differences` into its layer's own; engines/milvus/__init__.py shows it.
"""

# ruff: noqa: PLC0415 - pyarrow and the stores' clients take seconds to import

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from neuroca_backup.errors import ChainBrokenError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

if TYPE_CHECKING:
    from neuroca_backup.vectors.compare import Found
    from neuroca_backup.vectors.database import VectorDatabase
    from neuroca_backup.vectors.examine import Asked
    from neuroca_backup.vectors.parts import Sink
    from neuroca_backup.vectors.restore import Backup, Target


class Options(BaseModel):
    """`options` of a source of these engines.

    `collections`: all of them, or a list of names (`collection` or `database.collection`).
    `allow_empty`: whether a store without any row is a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    collections: str | tuple[str, ...] = Field(default="all")
    allow_empty: bool = False

    @field_validator("collections")
    @classmethod
    def _all_or_a_list(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str) and value != "all":
            raise ValueError("write `all`, or a list of names such as [neuroca_semantic]")
        return value


class VectorEngine(ABC):
    """What `engines.Engine` asks for, but for the words of one store."""

    kind: ClassVar[str]
    default_port: ClassVar[int]
    sandbox: ClassVar[str]
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool]

    @abstractmethod
    def connect(
        self, endpoint: Endpoint, options: Options | None = None
    ) -> AbstractContextManager[VectorDatabase]:
        """Log in for the length of the block; `options` are those of a source, None elsewhere."""

    @abstractmethod
    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options of a source, checked and filled."""

    def probe(self, endpoint: Endpoint) -> str:
        """Log in and return the server's version."""
        with self.connect(endpoint) as database:
            return database.version()

    def dump_with(
        self, endpoint: Endpoint, sink: Sink, options: Options, parent: object | None
    ) -> Dump:
        """Dump the collections; see `vectors.dump`."""
        from neuroca_backup.vectors import dump

        if parent is not None:
            raise ChainBrokenError(
                f"A dump of {self.kind} cannot continue another one",
                remedy="Schedule full backups of this source only.",
            )
        with self.connect(endpoint, options) as database:
            return dump.dump(database, endpoint, sink, options)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every row of every part."""
        from neuroca_backup.vectors import check

        check.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many collections and vectors the backup holds."""
        found: Mapping[str, Any] = manifest.dump.facts["collections"]
        vectors = sum(one["count"] for one in found.values())
        return f"{len(found)} collections, {vectors:,} vectors"

    def preflight(self, backup: Backup, target: Target) -> Sequence[str]:
        """Refuse dimensions, types and data that stand against the restore."""
        from neuroca_backup.vectors import restore

        with self.connect(target.endpoint) as database:
            return restore.preflight(backup, target, database)

    def load(self, backup: Backup, target: Target) -> Sequence[str]:
        """Load every collection and build its indexes."""
        from neuroca_backup.vectors import restore

        with self.connect(target.endpoint) as database:
            return restore.load(backup, target, database)

    def differences(self, backup: Backup, target: Target) -> Sequence[Found]:
        """Return every difference between the loaded collections and the manifest's facts."""
        from neuroca_backup.vectors import compare

        with self.connect(target.endpoint) as database:
            return list(compare.differences(backup, database))

    def publish(self, backup: Backup, target: Target) -> Sequence[str]:
        """Put the compared collections in their place."""
        from neuroca_backup.vectors import restore

        with self.connect(target.endpoint) as database:
            return restore.publish(backup, target, database)

    def examined(
        self, endpoint: Endpoint, facts: Mapping[str, Any], only: Sequence[str]
    ) -> Sequence[Asked]:
        """Search every collection by each of its vectors; see `vectors.examine`."""
        from neuroca_backup.vectors import examine

        with self.connect(endpoint) as database:
            return list(examine.examine(database, facts, only=only))
