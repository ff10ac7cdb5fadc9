"""Qdrant: every collection through its REST API, as Parquet; see vectors/engine.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

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
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.vectors.engine import Options, VectorEngine

if TYPE_CHECKING:
    from neuroca_backup.vectors.database import VectorDatabase
    from neuroca_backup.vectors.restore import Backup, Target


class QdrantEngine(VectorEngine):
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "qdrant"
    default_port: ClassVar[int] = 6333
    sandbox: ClassVar[str] = ""
    # A collection cannot be renamed, so its name is free for another only when it is deleted.
    keeps: ClassVar[bool] = False

    @contextmanager
    def connect(
        self,
        endpoint: Endpoint,
        options: Options | None = None,  # noqa: ARG002 - none of them is about the session
    ) -> Iterator[VectorDatabase]:
        """Log in for the length of the block."""
        # The client takes most of a second to import.
        from neuroca_backup.engines.qdrant.database import QdrantDatabase  # noqa: PLC0415 - as said

        with QdrantDatabase.opened(endpoint) as database:
            yield database

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        return checked_options(Options, given, kind=self.kind).model_dump()

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Dump every chosen collection, point by point."""
        return self.dump_with(endpoint, sink, Options.model_validate(options), parent)

    def preflight(self, backup: Backup, target: Target) -> Sequence[str]:
        """Refuse what stands against the restore; say what will be lost, as nothing is kept."""
        taken = super().preflight(backup, target)
        return (
            [f"{len(taken)} collections with data will be deleted once their copies are compared"]
            if taken
            else []
        )

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare definition, counts, samples and neighbours with the manifest."""
        return [Difference(*found) for found in self.differences(backup, target)]

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Search every collection."""
        return [Answer(*asked) for asked in self.examined(endpoint, facts, only)]


ENGINE: Engine = QdrantEngine()
