"""A session with Pinecone; see `vectors.database.VectorDatabase`. An index is a collection.

Pinecone is eventually consistent: what was written shows in reads, and in counts, some time
later. Wherever two numbers have to agree we wait for it, with a deadline.
"""

# ruff: noqa: ARG002 - the protocol has arguments for stores that need them

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from neuroca_backup.engines.pinecone import client as pinecone
from neuroca_backup.engines.pinecone import rows, schema
from neuroca_backup.engines.pinecone.schema import DEFAULT, MARK
from neuroca_backup.engines.pinecone.session import PAGE, Session
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    InterruptedToolError,
    NotFoundError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import columns, http_service
from neuroca_backup.vectors.database import Key
from neuroca_backup.vectors.model import Collection, Name

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

# Up to how many requests it may cost to compare a listing with the counts before an export, so that
# a late listing is no lost export.
_LISTED_FIRST = 1000
_READY_SECONDS = 900.0
_BUILD_SECONDS = 3600.0


class PineconeDatabase:
    """An open session."""

    beside: ClassVar[bool] = False
    threads: ClassVar[int] = 8

    def __init__(self, session: Session, *, namespaces: str | Sequence[str]) -> None:
        self._session = session
        self._endpoint = session.endpoint
        self._chosen = namespaces
        # Vectors by namespace: exported in this session, and inserted.
        self._exported: dict[tuple[Name, str], int] = {}
        self._inserted: dict[tuple[Name, str], int] = {}
        self._created: set[Name] = set()
        self._last: tuple[Name, str, str] | None = None
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def opened(
        cls, endpoint: Endpoint, *, namespaces: str | Sequence[str]
    ) -> Iterator[PineconeDatabase]:
        """Log in for the length of the block."""
        with pinecone.opened(endpoint) as client, Session(endpoint, client) as session:
            yield cls(session, namespaces=namespaces)

    def version(self) -> str:
        """Return the API's version, once the key has been accepted."""
        with pinecone.translated(self._endpoint):
            self._session.names()
        return pinecone.API_VERSION

    def tools(self) -> Mapping[str, str]:
        """Return our client's version."""
        return {"pinecone": pinecone.version()}

    def collections(self) -> Sequence[Name]:
        """Return all indexes of the key's project."""
        return sorted(Name("", name) for name in self._session.ask(self._session.names))

    def describe(self, at: Name) -> Collection:
        """Return one index and its namespaces as they can be created again."""
        model = self._session.model(at)
        schema.require_listable(at, model)
        found = schema.described(at, model, self._partitions(at))
        if self._chosen != "all":
            found = found.model_copy(
                update={"transient": {**found.transient, "chosen": list(self._chosen)}}
            )
        return found

    @contextmanager
    def reading(self, at: Name) -> Iterator[None]:
        """Wait until a listing has what is counted, where that is soon seen."""
        deadline = time.monotonic() + self._session.fresh_seconds
        counts = self._session.counts(at)
        while sum(1 + count // PAGE for count in counts.values()) <= _LISTED_FIRST and any(
            self._session.listed(at, namespace, most=count) < count
            for namespace, count in counts.items()
        ):
            if time.monotonic() > deadline:
                log.warning("%s lists fewer vectors than it counts", at.label)
                break
            time.sleep(0.5)
            counts = self._session.counts(at)
        yield

    def count(self, at: Name, *, partition: str = "") -> int:
        """Return Pinecone's own count; one that lags behind what was exported is waited for."""
        deadline = time.monotonic() + self._session.fresh_seconds
        while True:
            counts = self._session.counts(at)
            found = counts.get(partition, 0) if partition else sum(counts.values())
            expected = self._exported.get((at, partition), 0)
            if found >= expected:
                return found
            if time.monotonic() > deadline:
                # It is no lag: vectors have been deleted, and the others are not waited for.
                self._exported.clear()
                return found
            time.sleep(0.5)

    def export(
        self, at: Name, collection: Collection, *, partition: str, batch_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield all vectors of a namespace by ascending id: listed, then fetched, some at once."""
        held: list[dict[str, Any]] = []
        size = exported = 0
        for row in self._session.rows(at, partition):
            held.append(row)
            size += rows.size_of(row)
            if size >= batch_bytes:
                yield columns.from_rows(collection, held)
                exported += len(held)
                held, size = [], 0
        if held:
            yield columns.from_rows(collection, held)
        self._exported[at, partition] = exported + len(held)
        # What was counted before says nothing of what was deleted meanwhile.
        self._session.forget_counts(at)

    def refuse(self, collection: Collection, at: Name) -> None:
        """Refuse an index that takes other vectors, or holds what this backup does not."""
        if at not in self.collections():
            return
        there = self.describe(at)
        for field in collection.vectors:
            ours, theirs = collection.metric(field.name), there.metric(field.name)
            if field.name not in {one.name for one in there.vectors} or ours != theirs:
                raise IncompatibleVersionError(
                    f"The index {at.label} is for {_vectors(there)}, the backup holds "
                    f"{_vectors(collection)}",
                    remedy="Delete that index if it is obsolete, or restore to another project.",
                    collection=at.label,
                    field=field.name,
                )
        more = sorted(set(there.partitions) - set(collection.partitions) - {DEFAULT})
        if more and "chosen" in collection.transient:
            raise TargetRefusedError(
                f"The index {at.label} has namespaces that the backup was told to leave out: "
                f"{', '.join(more)}",
                remedy="A restore replaces a whole index. Restore to another project, and copy "
                "the namespaces from there.",
                namespaces=more,
            )

    def create(self, collection: Collection, at: Name, *, mark: str) -> None:
        """Create an index, or take the one that `drop` has emptied, and its namespaces."""
        if at in self.collections():
            self._session.ask(
                lambda: self._session.client.indexes.configure(at.collection, tags={MARK: mark})
            )
        else:
            arguments = schema.creation(collection, self._endpoint, mark=mark)
            with pinecone.translated(self._endpoint):
                # The client would look every five seconds.
                self._session.client.indexes.create(**arguments, timeout=-1)

        def missing() -> str:
            status = self._session.model(at)["status"]
            return "" if status["ready"] else f"it is {status['state']}"

        http_service.until(
            missing, seconds=_READY_SECONDS, what=f"The index {at.label} was not ready"
        )
        self._created.add(at)
        self._last = None
        for namespace in collection.partitions:
            self._inserted[at, namespace] = 0
            if namespace != DEFAULT:
                self._session.create_namespace(at, namespace)

    def made_by(self, at: Name) -> str:
        """Return the index's tag."""
        return str((self._session.model(at).get("tags") or {}).get(MARK, ""))

    def insert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Upsert vectors, in as many requests as they need."""
        namespace = partition or DEFAULT
        with self._lock:
            if (at, namespace) not in self._inserted:
                self._inserted[at, namespace] = self._session.counts(at).get(namespace, 0)
        for body in rows.upserts(collection, batch):
            done = self._session.upsert(at, namespace, body)
            if done.upserted_count != len(body):
                raise InterruptedToolError(
                    f"Pinecone took {done.upserted_count} of {len(body)} vectors of {at.label}",
                    remedy="Run the load again: it starts clean.",
                    collection=at.label,
                )
            with self._lock:
                self._inserted[at, namespace] += len(body)
                self._last = at, namespace, body[-1]["id"]

    def upsert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Insert vectors: one with the same id is replaced by its nature."""
        self.insert(at, collection, batch, partition=partition)

    def bulk_import(
        self,
        at: Name,
        collection: Collection,
        parts: Sequence[Path],
        *,
        partition: str,
        on_rows: Callable[[int], None],
    ) -> bool:
        """Return False: it imports from buckets that it was given access to, in clear."""
        return False

    def build(self, at: Name, collection: Collection) -> None:
        """Wait until everything that was inserted is counted and can be read."""

        def missing() -> str:
            counts = self._session.counts(at)
            for (where, namespace), expected in self._inserted.items():
                if where == at and counts.get(namespace, 0) != expected:
                    return f"namespace {namespace} counts {counts.get(namespace, 0)} of {expected}"
            if self._last is not None and self._last[0] == at:
                _, namespace, last = self._last
                if not self._session.fetch(at, namespace, [last]):
                    return f"the last vectors of namespace {namespace} cannot be read"
            more = sorted(set(self._partitions(at)) ^ set(collection.partitions))
            return f"namespaces {', '.join(more)} are there or missing" if more else ""

        what = f"{at.label} did not show what was inserted"
        if at in self._created:
            http_service.until(missing, seconds=_BUILD_SECONDS, what=what)
        else:
            # What was there before is not known well enough to insist.
            with suppress(UnreachableError):
                http_service.until(missing, seconds=self._session.fresh_seconds, what=what)

    def fetch(
        self, at: Name, collection: Collection, keys: Sequence[Key], *, partition: str
    ) -> pa.RecordBatch:
        """Return the vectors with these ids that there are."""
        found = [
            row
            for asked in rows.fetches([str(key) for key in keys])
            for row in self._session.fetch(at, partition, asked).values()
        ]
        return columns.from_rows(collection, found)

    def nearest(
        self,
        at: Name,
        collection: Collection,
        vector: Any,
        *,
        field: str,
        partition: str,
        limit: int,
    ) -> Sequence[Key]:
        """Return the ids of the nearest vectors."""
        index = self._session.index(at)
        found = self._session.ask(
            lambda: index.query(vector=vector.tolist(), top_k=limit, namespace=partition)
        )
        return [one.id for one in found.matches]

    def drop(self, at: Name) -> None:
        """Empty an index; it stays, as another would have another host."""
        if at not in self.collections():
            return
        for namespace in self._session.namespaces(at):
            self._session.empty(at, namespace)

        def missing() -> str:
            counts = {name: count for name, count in self._session.counts(at).items() if count}
            left = [name for name in self._session.namespaces(at) if name != DEFAULT]
            return f"{counts or left} are left" if counts or left else ""

        http_service.until(missing, seconds=_BUILD_SECONDS, what=f"{at.label} was not emptied")

    def swap(
        self,
        collection: Collection,
        at: Name,
        *,
        loaded: Name,
        kept: Name,
    ) -> Sequence[str]:
        """Take the restore's tag away, and protect the index as the original was."""
        if not self.made_by(at):
            return []
        protection = collection.transient.get("deletion_protection", "disabled")
        self._session.ask(
            lambda: self._session.client.indexes.configure(
                at.collection, tags={MARK: ""}, deletion_protection=protection
            )
        )
        return [f"{at.label} is complete, at {self._session.model(at)['host']}"]

    def place(self, at: Name) -> Name:
        """Return the same name: a project has no databases."""
        if self._endpoint.database:
            raise ConfigurationError(
                f"The connection names a database, {self._endpoint.database}",
                remedy="Pinecone has none: leave the connection's schema empty.",
                path="schema",
                value=self._endpoint.database,
            )
        return at

    def _partitions(self, at: Name) -> list[str]:
        """Return the namespaces that were chosen; the default one is always there, often empty."""
        present = self._session.namespaces(at)
        if self._chosen != "all":
            missing = sorted(set(self._chosen) - set(present))
            if missing:
                raise NotFoundError(
                    f"The index {at.label} has no namespace {', '.join(missing)}; it has "
                    f"{', '.join(present)}",
                    remedy="Correct the source's `namespaces` option in backup.yaml.",
                    namespaces=missing,
                )
            present = sorted(self._chosen)
        empty = not self._session.counts(at).get(DEFAULT) and not self._session.listed(
            at, DEFAULT, most=1
        )
        return [name for name in present if name != DEFAULT or not empty] or [DEFAULT]


def _vectors(collection: Collection) -> str:
    return " and ".join(
        f"{field.name} ({field.dimension} dimensions, {collection.metric(field.name)})"
        if field.dimension
        else field.name
        for field in collection.vectors
    )
