"""A session with Pinecone; see `vectors.database.VectorDatabase`. An index is a collection.

Pinecone is eventually consistent: what was written shows in reads, and in counts, some time
later. Wherever two numbers have to agree we wait for it, with a deadline.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from neuroca_backup.engines.pinecone import client as pinecone
from neuroca_backup.engines.pinecone import rows, schema
from neuroca_backup.engines.pinecone.schema import DEFAULT, MARK
from neuroca_backup.errors import (
    AlreadyExistsError,
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
    from pinecone import Index, Pinecone

Result = TypeVar("Result")

log = logging.getLogger(__name__)

# How long reads and counts of an index that is at rest may differ before that is an error.
FRESH_SECONDS = 30.0
# Up to how many vectors a listing is compared with the counts before an export, as a late listing
# is then no lost export: a thousand requests.
_LISTED_FIRST = 100_000
_READY_SECONDS = 900.0
_BUILD_SECONDS = 3600.0
_PAGE = 100
_FETCHES = 4


class PineconeDatabase:
    """An open session."""

    beside: ClassVar[bool] = False
    threads: ClassVar[int] = 8

    def __init__(
        self, endpoint: Endpoint, client: Pinecone, *, namespaces: str | Sequence[str]
    ) -> None:
        self._endpoint = endpoint
        self._client = client
        self._chosen = namespaces
        self._indexes: dict[Name, Index] = {}
        # Vectors by namespace: exported in this session, and inserted.
        self._exported: dict[tuple[Name, str], int] = {}
        self._inserted: dict[tuple[Name, str], int] = {}
        self._last: dict[tuple[Name, str], str] = {}
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def opened(
        cls, endpoint: Endpoint, *, namespaces: str | Sequence[str]
    ) -> Iterator[PineconeDatabase]:
        """Log in for the length of the block."""
        with pinecone.opened(endpoint) as client:
            database = cls(endpoint, client, namespaces=namespaces)
            try:
                yield database
            finally:
                for index in database._indexes.values():
                    index.close()

    def version(self) -> str:
        """Return the API's version, once the key has been accepted."""
        with pinecone.translated(self._endpoint):
            list(self._client.indexes.list())
        return pinecone.API_VERSION

    def tools(self) -> Mapping[str, str]:
        """Return our client's version."""
        return {"pinecone": pinecone.version()}

    def collections(self) -> Sequence[Name]:
        """Return all indexes of the key's project."""
        found = self._ask(lambda: [one.name for one in self._client.indexes.list()])
        return sorted(Name("", name) for name in found)

    def describe(self, at: Name) -> Collection:
        """Return one index and its namespaces as they can be created again."""
        model = self._model(at)
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
        deadline = time.monotonic() + FRESH_SECONDS
        counts = self._counts(at)
        while sum(counts.values()) <= _LISTED_FIRST and any(
            self._listed(at, namespace, most=count) < count for namespace, count in counts.items()
        ):
            if time.monotonic() > deadline:
                log.warning("%s lists fewer vectors than it counts", at.label)
                break
            time.sleep(0.5)
            counts = self._counts(at)
        yield

    def count(self, at: Name, *, partition: str = "") -> int:
        """Return Pinecone's own count; one that lags behind what was exported is waited for."""
        deadline = time.monotonic() + FRESH_SECONDS
        while True:
            counts = self._counts(at)
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
        for row in self._rows(at, partition):
            held.append(row)
            size += rows.size_of(row)
            if size >= batch_bytes:
                yield columns.from_rows(collection, held)
                exported += len(held)
                held, size = [], 0
        if held:
            yield columns.from_rows(collection, held)
        self._exported[at, partition] = exported + len(held)

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
            self._ask(lambda: self._client.indexes.configure(at.collection, tags={MARK: mark}))
        else:
            arguments = schema.creation(collection, self._endpoint, mark=mark)
            with pinecone.translated(self._endpoint):
                # The client would look every five seconds.
                self._client.indexes.create(**arguments, timeout=-1)

        def missing() -> str:
            status = self._model(at)["status"]
            return "" if status["ready"] else f"it is {status['state']}"

        http_service.until(
            missing, seconds=_READY_SECONDS, what=f"The index {at.label} was not ready"
        )
        self._last.clear()
        for namespace in collection.partitions:
            self._inserted[at, namespace] = 0
            if namespace != DEFAULT:
                self._create_namespace(at, namespace)

    def made_by(self, at: Name) -> str:
        """Return the index's tag."""
        return str((self._model(at).get("tags") or {}).get(MARK, ""))

    def insert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Upsert vectors, in as many requests as they need."""
        index = self._index(at)
        for body in rows.upserts(collection, batch):
            done = self._ask(lambda: index.upsert(vectors=body, namespace=partition))  # noqa: B023 - called at once
            if done.upserted_count != len(body):
                raise InterruptedToolError(
                    f"Pinecone took {done.upserted_count} of {len(body)} vectors of {at.label}",
                    remedy="Run the load again: it starts clean.",
                    collection=at.label,
                )
            with self._lock:
                self._inserted[at, partition] += len(body)
                self._last[at, partition] = body[-1]["id"]

    def bulk_import(
        self,
        at: Name,  # noqa: ARG002 - the protocol's
        collection: Collection,  # noqa: ARG002 - as above
        parts: Sequence[Path],  # noqa: ARG002 - as above
        *,
        partition: str,  # noqa: ARG002 - as above
        on_rows: Callable[[int], None],  # noqa: ARG002 - as above
    ) -> bool:
        """Return False: it imports from buckets that it was given access to, in clear."""
        return False

    def build(self, at: Name, collection: Collection) -> None:
        """Wait until everything that was inserted is counted and can be read."""

        def missing() -> str:
            counts = self._counts(at)
            for namespace in collection.partitions:
                expected = self._inserted[at, namespace]
                if counts.get(namespace, 0) != expected:
                    return f"namespace {namespace} counts {counts.get(namespace, 0)} of {expected}"
                last = self._last.get((at, namespace))
                if last and not self._fetch(at, namespace, [last]):
                    return f"the last vectors of namespace {namespace} cannot be read"
            more = sorted(set(self._partitions(at)) ^ set(collection.partitions))
            return f"namespaces {', '.join(more)} are there or missing" if more else ""

        http_service.until(
            missing, seconds=_BUILD_SECONDS, what=f"{at.label} did not show what was inserted"
        )

    def fetch(
        self, at: Name, collection: Collection, keys: Sequence[Key], *, partition: str
    ) -> pa.RecordBatch:
        """Return the vectors with these ids that there are."""
        found = [
            row
            for asked in rows.fetches([str(key) for key in keys])
            for row in self._fetch(at, partition, asked).values()
        ]
        return columns.from_rows(collection, found)

    def nearest(
        self,
        at: Name,
        collection: Collection,  # noqa: ARG002 - an index has one dense vector
        vector: Any,
        *,
        field: str,  # noqa: ARG002 - as above
        partition: str,
        limit: int,
    ) -> Sequence[Key]:
        """Return the ids of the nearest vectors."""
        index = self._index(at)
        found = self._ask(
            lambda: index.query(vector=vector.tolist(), top_k=limit, namespace=partition)
        )
        return [one.id for one in found.matches]

    def drop(self, at: Name) -> None:
        """Empty an index; it stays, as another would have another host."""
        if at not in self.collections():
            return
        index = self._index(at)
        for namespace in self._namespaces(at):
            with suppress(NotFoundError):
                if namespace == DEFAULT:
                    self._ask(lambda: index.delete(delete_all=True, namespace=DEFAULT))
                else:
                    self._ask(lambda: index.delete_namespace(name=namespace))  # noqa: B023 - called at once

        def missing() -> str:
            counts = {name: count for name, count in self._counts(at).items() if count}
            left = [name for name in self._namespaces(at) if name != DEFAULT]
            return f"{counts or left} are left" if counts or left else ""

        http_service.until(missing, seconds=_BUILD_SECONDS, what=f"{at.label} was not emptied")

    def swap(
        self,
        collection: Collection,
        at: Name,
        *,
        loaded: Name,  # noqa: ARG002 - is `at`
        kept: Name,  # noqa: ARG002 - nothing is
    ) -> Sequence[str]:
        """Take the restore's tag away, and protect the index as the original was."""
        if not self.made_by(at):
            return []
        protection = collection.transient.get("deletion_protection", "disabled")
        self._ask(
            lambda: self._client.indexes.configure(
                at.collection, tags={MARK: ""}, deletion_protection=protection
            )
        )
        return [f"{at.label} is complete, at {self._model(at)['host']}"]

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

    def _ask(self, call: Callable[[], Result]) -> Result:
        def translated() -> Result:
            with pinecone.translated(self._endpoint):
                return call()

        return http_service.patiently(translated)

    def _model(self, at: Name) -> Mapping[str, Any]:
        """Return what the control plane says of an index, as plain JSON."""
        import msgspec  # noqa: PLC0415 - comes with the client

        found: Mapping[str, Any] = self._ask(
            lambda: msgspec.to_builtins(self._client.indexes.describe(at.collection))
        )
        return found

    def _index(self, at: Name) -> Index:
        with self._lock:
            if at not in self._indexes:
                host = self._model(at)["host"]
                if not host:
                    raise UnreachableError(
                        f"The index {at.label} has no host yet",
                        remedy="It is tried again; look at its state in Pinecone's console.",
                        collection=at.label,
                    )
                self._indexes[at] = pinecone.index(host, self._endpoint)
            return self._indexes[at]

    def _counts(self, at: Name) -> Mapping[str, int]:
        index = self._index(at)
        stats = self._ask(index.describe_index_stats)
        # Older indexes call the namespace without a name "".
        return {name or DEFAULT: one.vector_count for name, one in stats.namespaces.items()}

    def _namespaces(self, at: Name) -> list[str]:
        index = self._index(at)
        names: set[str] = set()
        token: str | None = None
        while True:
            page = self._ask(
                lambda: index.list_namespaces_paginated(limit=_PAGE, pagination_token=token)  # noqa: B023 - called at once
            )
            names |= {one.name or DEFAULT for one in page.namespaces}
            token = page.pagination.next if page.pagination else None
            if not token:
                return sorted(names)

    def _partitions(self, at: Name) -> list[str]:
        """Return the namespaces that were chosen; the default one is always there, often empty."""
        present = self._namespaces(at)
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
        empty = not self._counts(at).get(DEFAULT) and not self._listed(at, DEFAULT, most=1)
        return [name for name in present if name != DEFAULT or not empty] or [DEFAULT]

    def _create_namespace(self, at: Name, namespace: str) -> None:
        index = self._index(at)
        with suppress(AlreadyExistsError):
            self._ask(lambda: index.create_namespace(name=namespace))

    def _pages(self, at: Name, namespace: str) -> Iterator[list[str]]:
        """Yield all ids of a namespace, page by page."""
        index = self._index(at)
        token: str | None = None
        while True:
            page = self._ask(
                lambda: index.list_paginated(
                    limit=_PAGE,
                    pagination_token=token,  # noqa: B023 - called at once
                    namespace=namespace,
                )
            )
            yield [one.id for one in page.vectors if one.id is not None]
            following = page.pagination.next if page.pagination else None
            if not following:
                return
            if following == token:
                raise InterruptedToolError(
                    f"The listing of {at.label}, namespace {namespace}, does not go on",
                    remedy="It is tried again; if it stays so, ask Pinecone's support.",
                    collection=at.label,
                )
            token = following

    def _listed(self, at: Name, namespace: str, *, most: int) -> int:
        """Return how many vectors a listing has, `most` or a little more at the most."""
        found = 0
        for ids in self._pages(at, namespace):
            found += len(ids)
            if found >= most:
                break
        return found

    def _rows(self, at: Name, namespace: str) -> Iterator[dict[str, Any]]:
        """Yield every vector that is listed, fetching some pages at once, in their order."""
        with ThreadPoolExecutor(max_workers=_FETCHES) as pool:
            waiting: deque[Future[list[dict[str, Any]]]] = deque()
            try:
                for ids in self._pages(at, namespace):
                    for asked in rows.fetches(ids):
                        waiting.append(pool.submit(self._fetch_listed, at, namespace, asked))
                    while len(waiting) > 2 * _FETCHES:
                        yield from waiting.popleft().result()
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_listed(self, at: Name, namespace: str, ids: list[str]) -> list[dict[str, Any]]:
        """Return the vectors of `ids` but for those that have been deleted since they were listed.

        Raises:
            InterruptedToolError: One is still listed and cannot be read, after FRESH_SECONDS.
        """
        found = self._fetch(at, namespace, ids)
        deadline = time.monotonic() + FRESH_SECONDS
        while lacking := [one for one in ids if one not in found]:
            time.sleep(0.5)
            found |= self._fetch(at, namespace, lacking)
            listed = [one for one in lacking if one not in found]
            if not any(self._still_listed(at, namespace, one) for one in listed):
                break
            if time.monotonic() > deadline:
                raise InterruptedToolError(
                    f"{len(listed)} vectors of {at.label}, namespace {namespace}, are listed but "
                    f"cannot be read, for example {listed[0]}",
                    remedy="It is tried again; if it stays so, ask Pinecone's support.",
                    collection=at.label,
                )
        return [found[one] for one in ids if one in found]

    def _still_listed(self, at: Name, namespace: str, one: str) -> bool:
        index = self._index(at)
        page = self._ask(lambda: index.list_paginated(prefix=one, limit=1, namespace=namespace))
        return any(item.id == one for item in page.vectors)

    def _fetch(self, at: Name, namespace: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        index = self._index(at)
        answer = self._ask(lambda: index.fetch(ids=list(ids), namespace=namespace))
        return {one: rows.row_of(vector) for one, vector in answer.vectors.items()}


def _vectors(collection: Collection) -> str:
    return " and ".join(
        f"{field.name} ({field.dimension} dimensions, {collection.metric(field.name)})"
        if field.dimension
        else field.name
        for field in collection.vectors
    )
