"""Milvus: every collection as Parquet parts, restored by the server's own import where it can."""

# ruff: noqa: PLC0415 - pymilvus and pyarrow take seconds to import

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

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
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.vectors import engine

if TYPE_CHECKING:
    from neuroca_backup.vectors.database import VectorDatabase


class Options(engine.Options):
    """`options` of a source of this engine, beside those of every vector store.

    `databases`: all of them, or a list of Milvus databases; only without one in the connection.
    """

    databases: str | tuple[str, ...] = Field(default="all")

    @field_validator("databases")
    @classmethod
    def _all_or_databases(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str) and value != "all":
            raise ValueError("write `all`, or a list of names such as [default]")
        return value


class MilvusEngine(engine.VectorEngine):
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "milvus"
    default_port: ClassVar[int] = 19530
    sandbox: ClassVar[str] = "milvus"
    keeps: ClassVar[bool] = True

    @contextmanager
    def connect(
        self, endpoint: Endpoint, options: engine.Options | None = None
    ) -> Iterator[VectorDatabase]:
        """Log in for the length of the block."""
        from neuroca_backup.engines.milvus.database import MilvusDatabase
        from neuroca_backup.engines.milvus.session import Session

        databases = options.databases if isinstance(options, Options) else None
        with Session(endpoint) as session:
            yield MilvusDatabase(session, databases=databases)

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
        """Export every chosen collection with strong consistency."""
        return self.dump_with(endpoint, sink, Options.model_validate(options), parent)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare definitions, counts, sampled rows and neighbours with the manifest."""
        return [Difference(*found) for found in self.differences(backup, target)]

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Search every collection."""
        return [Answer(*asked) for asked in self.examined(endpoint, facts, only)]


ENGINE: Engine = MilvusEngine()
