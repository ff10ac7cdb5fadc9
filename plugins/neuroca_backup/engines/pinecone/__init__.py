"""Pinecone: every namespace of every serverless index, as Parquet; see vectors/engine.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

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


class Options(BaseModel):
    """`options` of a source of this engine.

    `indexes`: all of them, or a list of names. `namespaces`: of each index all, or those listed
    (`__default__` is the one without a name). `allow_empty`: whether indexes without any vector
    are a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    indexes: str | tuple[str, ...] = Field(default="all")
    namespaces: str | tuple[str, ...] = Field(default="all")
    allow_empty: bool = False

    @field_validator("indexes", "namespaces")
    @classmethod
    def _all_or_a_list(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if value != "all" and (isinstance(value, str) or not all(value) or not value):
            raise ValueError("write `all`, or a list of names such as [neuroca-semantic]")
        return value


class _Chosen(engine.Options):
    """The options as every vector store has them, and the namespaces."""

    namespaces: str | tuple[str, ...] = "all"


class PineconeEngine(engine.VectorEngine):
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "pinecone"
    default_port: ClassVar[int] = 443
    sandbox: ClassVar[str] = ""
    # Neither an index nor a namespace can be renamed, so nothing can stay beside.
    keeps: ClassVar[bool] = False

    @contextmanager
    def connect(
        self, endpoint: Endpoint, options: engine.Options | None = None
    ) -> Iterator[VectorDatabase]:
        """Log in for the length of the block."""
        # The client takes half a second to import.
        from neuroca_backup.engines.pinecone.database import (  # noqa: PLC0415 - as said
            PineconeDatabase,
        )

        chosen = options.namespaces if isinstance(options, _Chosen) else "all"
        with PineconeDatabase.opened(endpoint, namespaces=chosen) as database:
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
        """Dump every chosen index, namespace by namespace."""
        given = Options.model_validate(options)
        chosen = _Chosen(
            collections=given.indexes, namespaces=given.namespaces, allow_empty=given.allow_empty
        )
        return self.dump_with(endpoint, sink, chosen, parent)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare definition, counts, samples and neighbours with the manifest."""
        return [Difference(*found) for found in self.differences(backup, target)]

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Search every collection."""
        return [Answer(*asked) for asked in self.examined(endpoint, facts, only)]


ENGINE: Engine = PineconeEngine()
