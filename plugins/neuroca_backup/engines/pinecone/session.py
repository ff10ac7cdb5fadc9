"""What a session asks of Pinecone, patiently: indexes, counts, listings, vectors."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from neuroca_backup.engines.pinecone import client as pinecone
from neuroca_backup.engines.pinecone import rows
from neuroca_backup.engines.pinecone.schema import DEFAULT
from neuroca_backup.errors import (
    AlreadyExistsError,
    InterruptedToolError,
    NotFoundError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import http_service
from neuroca_backup.vectors.model import Name

if TYPE_CHECKING:
    from pinecone import Index, Pinecone

Result = TypeVar("Result")

PAGE = 100
_FETCHES = 4
# An answer holds the counts of all namespaces, of which there may be many thousands, and each one
# is asked for.
_SAME_SECONDS = 0.4


class Session:
    """The client of the control plane and those of the indexes; closes the latter."""

    # How long reads and counts of an index at rest may differ before that is an error.
    fresh_seconds: ClassVar[float] = 30.0

    def __init__(self, endpoint: Endpoint, client: Pinecone) -> None:
        self.endpoint = endpoint
        self.client = client
        self._indexes: dict[Name, Index] = {}
        self._counted: dict[Name, tuple[float, Mapping[str, int]]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for index in self._indexes.values():
            index.close()

    def ask(self, call: Callable[[], Result]) -> Result:
        """Return what `call`, safe to repeat, returns; its errors become ours."""

        def translated() -> Result:
            with pinecone.translated(self.endpoint):
                return call()

        return http_service.patiently(translated)

    def names(self) -> list[str]:
        """Return the names of all indexes, those included that the client does not understand."""
        # Its public listing leaves those out, and says so in a log line only.
        answer = self.client._http.get("/indexes")  # noqa: SLF001 - as said
        return [one["name"] for one in answer.json()["indexes"]]

    def model(self, at: Name) -> Mapping[str, Any]:
        """Return what the control plane says of an index, as plain JSON."""
        import msgspec  # noqa: PLC0415 - comes with the client

        found: Mapping[str, Any] = self.ask(
            lambda: msgspec.to_builtins(self.client.indexes.describe(at.collection))
        )
        return found

    def index(self, at: Name) -> Index:
        """Return the client of one index."""
        with self._lock:
            if at not in self._indexes:
                host = self.model(at)["host"]
                if not host:
                    raise UnreachableError(
                        f"The index {at.label} has no host yet",
                        remedy="It is tried again; look at its state in Pinecone's console.",
                        collection=at.label,
                    )
                self._indexes[at] = pinecone.index(host, self.endpoint)
            return self._indexes[at]

    def counts(self, at: Name) -> Mapping[str, int]:
        """Return how many vectors each namespace has, by the service's own count."""
        asked, known = self._counted.get(at, (0.0, {}))
        if time.monotonic() - asked > _SAME_SECONDS:
            index, asked = self.index(at), time.monotonic()
            stats = self.ask(index.describe_index_stats)
            # Older indexes call the namespace without a name "".
            known = {name or DEFAULT: one.vector_count for name, one in stats.namespaces.items()}
            self._counted[at] = asked, known
        return known

    def forget_counts(self, at: Name) -> None:
        """Have the next count asked for anew, whatever little time has passed."""
        self._counted.pop(at, None)

    def namespaces(self, at: Name) -> list[str]:
        """Return the names of all namespaces, sorted."""
        index = self.index(at)
        names: set[str] = set()
        token: str | None = None
        while True:
            page = self.ask(
                lambda: index.list_namespaces_paginated(limit=PAGE, pagination_token=token)  # noqa: B023 - called at once
            )
            names |= {one.name or DEFAULT for one in page.namespaces}
            token = page.pagination.next if page.pagination else None
            if not token:
                return sorted(names)

    def _pages(self, at: Name, namespace: str) -> Iterator[list[str]]:
        """Yield all ids of a namespace, page by page."""
        index = self.index(at)
        token: str | None = None
        while True:
            page = self.ask(
                lambda: index.list_paginated(
                    limit=PAGE,
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

    def listed(self, at: Name, namespace: str, *, most: int) -> int:
        """Return how many vectors a listing has, `most` or a little more at the most."""
        found = 0
        for ids in self._pages(at, namespace):
            found += len(ids)
            if found >= most:
                break
        return found

    def rows(self, at: Name, namespace: str) -> Iterator[dict[str, Any]]:
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
            InterruptedToolError: One is still listed and cannot be read, after `fresh_seconds`.
        """
        found = self.fetch(at, namespace, ids)
        deadline = time.monotonic() + self.fresh_seconds
        while lacking := [one for one in ids if one not in found]:
            time.sleep(0.5)
            found |= self.fetch(at, namespace, lacking)
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
        index = self.index(at)
        page = self.ask(lambda: index.list_paginated(prefix=one, limit=1, namespace=namespace))
        return any(item.id == one for item in page.vectors)

    def fetch(self, at: Name, namespace: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return those of the vectors that there are, as rows by their ids; for one request."""
        index = self.index(at)
        answer = self.ask(lambda: index.fetch(ids=list(ids), namespace=namespace))
        return {one: rows.row_of(vector) for one, vector in answer.vectors.items()}

    def upsert(self, at: Name, namespace: str, vectors: list[dict[str, Any]]) -> Any:
        """Write vectors, of one request."""
        index = self.index(at)
        return self.ask(lambda: index.upsert(vectors=vectors, namespace=namespace))

    def create_namespace(self, at: Name, namespace: str) -> None:
        """Create a namespace; that it is there is no error."""
        index = self.index(at)
        with suppress(AlreadyExistsError):
            self.ask(lambda: index.create_namespace(name=namespace))

    def empty(self, at: Name, namespace: str) -> None:
        """Delete a namespace, of the one without a name its vectors; none there is no error."""
        index = self.index(at)
        with suppress(NotFoundError):
            if namespace == DEFAULT:
                self.ask(lambda: index.delete(delete_all=True, namespace=DEFAULT))
            else:
                self.ask(lambda: index.delete_namespace(name=namespace))
