"""A session with a Qdrant server; see `vectors.database.VectorDatabase`.

Qdrant can neither rename nor copy a collection, it can point an alias at one. So a copy that is
being loaded has its final name from the beginning where that is free, and otherwise the name
`<collection>_restored_<mark>`; either way it is called `restoring_<mark>` by an alias until it is
compared. Publishing takes that alias away, and where the name was taken deletes what had it and
lets an alias of that name point to the copy.
"""

# ruff: noqa: ARG002 - the protocol has arguments for stores that need them

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from neuroca_backup.engines.qdrant import client as qdrant
from neuroca_backup.engines.qdrant import rows, schema
from neuroca_backup.engines.qdrant.session import Session, copy_name, is_copy
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    InterruptedToolError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import http_service
from neuroca_backup.vectors.database import Key
from neuroca_backup.vectors.model import Collection, Name
from neuroca_backup.vectors.naming import STAGING

_LONGEST = 255
# Points of the first page, by which the size of a point is judged.
_FIRST_PAGE = 64
_LARGEST_PAGE = 10_000
# Of vectors and payloads. A request is JSON, with up to 23 characters for 4 bytes, and a reply
# becomes objects that are as large again; the server takes 32 MB.
_PAGE_BYTES = 1024 * 1024
_INSERT_BYTES = 1024 * 1024
_BUILD_SECONDS = 6 * 3600.0
# How many candidates a search looks at: more than the default 128 is more thorough.
_SEARCHED = 512


class QdrantDatabase:
    """An open session."""

    beside: ClassVar[bool] = True
    threads: ClassVar[int] = 4

    def __init__(self, session: Session) -> None:
        self._session = session
        self._endpoint = session.endpoint
        self._created: set[Name] = set()

    @classmethod
    @contextmanager
    def opened(cls, endpoint: Endpoint) -> Iterator[QdrantDatabase]:
        """Log in for the length of the block."""
        with qdrant.opened(endpoint) as client:
            yield cls(Session(endpoint, client))

    def version(self) -> str:
        """Return the server's version; this asks once, so that a wrong address shows at once."""
        with qdrant.translated(self._endpoint):
            # The version is told to anybody, the collections only to whoever has a key.
            self._session.client.get_collections()
            return str(self._session.client.info().version)

    def tools(self) -> Mapping[str, str]:
        """Return our client's version."""
        return {"qdrant-client": qdrant.version()}

    def collections(self) -> Sequence[Name]:
        """Return all collections, those that a restore is loading under their alias."""
        shown = {one.name: one.name for one in self._session.physical()}
        aliases = self._session.aliases()
        shown |= {of: alias for alias, of in aliases.items() if is_copy(of, alias)}
        shown |= {of: alias for alias, of in aliases.items() if STAGING.fullmatch(alias)}
        return sorted(Name("", name) for name in shown.values())

    def describe(self, at: Name) -> Collection:
        """Return one collection as it can be created again."""
        info = self._session.ask(lambda: self._session.client.get_collection(at.collection))
        aliases = self._session.aliases()
        physical = aliases.get(at.collection, at.collection)
        return schema.described(
            at,
            info.config.model_dump(mode="json", exclude_none=True),
            {
                name: one.model_dump(mode="json", exclude_none=True, exclude={"points"})
                for name, one in info.payload_schema.items()
            },
            [
                alias
                for alias, of in aliases.items()
                if of == physical and alias != at.collection and not STAGING.fullmatch(alias)
            ],
        )

    @contextmanager
    def reading(self, at: Name) -> Iterator[None]:
        """Do nothing: a point that was acknowledged can be read."""
        yield

    def count(self, at: Name, *, partition: str = "") -> int:
        """Return the exact number of points."""
        return int(
            self._session.ask(lambda: self._session.client.count(at.collection, exact=True).count)
        )

    def export(
        self,
        at: Name,
        collection: Collection,
        *,
        partition: str,
        batch_bytes: int,
    ) -> Iterator[pa.RecordBatch]:
        """Yield all points in the server's order, numbers first; goes on after a failed page."""
        largest = _limit_of(collection, "max_query_limit", _LARGEST_PAGE)
        limit, offset = min(_FIRST_PAGE, largest), None
        held: list[pa.RecordBatch] = []
        while True:
            records, offset = self._session.page(at.collection, limit, offset)
            if records:
                batch = rows.batch_of(collection, records)
                held.append(batch)
                limit = max(1, min(largest, _PAGE_BYTES * batch.num_rows // batch.nbytes))
            if held and (offset is None or sum(one.nbytes for one in held) >= batch_bytes):
                for one in _joined(held):
                    yield from _slices(one, 2 * batch_bytes)
                held = []
            if offset is None:
                return

    def refuse(self, collection: Collection, at: Name) -> None:
        """Refuse names that the server could not give, and aliases that stand in the way."""
        aliases = self._session.aliases()
        of = aliases.get(at.collection)
        if of is not None and not is_copy(of, at.collection):
            raise IncompatibleVersionError(
                f"{at.label} is an alias of the collection {of} on {self._endpoint.label}, "
                "the backup has a collection of that name",
                remedy="Delete or rename that alias, or restore to another server.",
                alias=at.collection,
                collection=of,
            )
        if len(copy_name(at.collection, "0" * 12)) > _LONGEST:
            raise IncompatibleVersionError(
                f"The name {at.label} is too long to be restored beside what is there",
                remedy="Restore to another store, or rename the collection at its source.",
                collection=at.label,
            )
        self._refuse_aliases(collection, at)

    def _refuse_aliases(self, collection: Collection, at: Name) -> None:
        """Raise where an alias of the collection is somebody else's, or a collection's name."""
        aliases = self._session.aliases()
        physical = {one.name for one in self._session.physical()}
        ours = {at.collection, aliases.get(at.collection)}
        taken = [
            alias
            for alias in collection.transient.get("aliases", ())
            if alias in physical - ours or aliases.get(alias, at.collection) not in ours
        ]
        if taken:
            raise IncompatibleVersionError(
                f"{', '.join(taken)}, by which {at.label} was known too, belong to others on "
                f"{self._endpoint.label}",
                remedy="Delete these aliases or collections there, or restore to another server.",
                aliases=taken,
            )

    def create(self, collection: Collection, at: Name, *, mark: str) -> None:
        """Create an empty collection, under its own name if nothing holds it, and its alias."""
        place = self.place(collection.at).collection
        aliases = self._session.aliases()
        taken = place in aliases or (
            self._session.exists(place) and self.count(Name("", place)) > 0
        )
        physical = place
        if taken:
            # The same backup may be restored again over a copy of itself, which is still needed.
            marks = (mark, mark[1:] + mark[:1])
            names = (copy_name(place, one) for one in marks)
            physical = next(name for name in names if name != aliases.get(place))
        with qdrant.translated(self._endpoint):
            # What is left of a try that came no further than this; or an empty one.
            self._session.client.delete_collection(physical)
            self._session.client.create_collection(physical, **schema.creation(collection))
        self._session.point({at.collection: physical})
        self._created.add(at)

    def made_by(self, at: Name) -> str:
        """Return "": the alias tells."""
        return ""

    def insert(
        self,
        at: Name,
        collection: Collection,
        batch: pa.RecordBatch,
        *,
        partition: str,
    ) -> None:
        """Insert points; each request is answered when they are applied."""
        for piece in _slices(batch, _INSERT_BYTES):
            points = list(rows.points_of(collection, piece))
            done = self._session.upsert(at.collection, points)
            if done.status != "completed":
                raise InterruptedToolError(
                    f"Qdrant at {self._endpoint.label} only {done.status.value} a batch of points",
                    remedy="Run the load again: it starts clean.",
                    collection=at.label,
                )

    def upsert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Insert points: a point with the same id is replaced by its nature."""
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
        """Return False: the server reads nothing but its own snapshots."""
        return False

    def build(self, at: Name, collection: Collection) -> None:
        """Index payloads first, then vectors: their graph has links for filters only then."""
        name = at.collection
        if at in self._created:
            self._configure(name, collection)

        def missing() -> str:
            info = self._session.ask(lambda: self._session.client.get_collection(name))
            if info.status == "green":
                return ""
            if info.status == "red":
                raise InterruptedToolError(
                    f"Qdrant at {self._endpoint.label} gave up indexing {at.label}: "
                    f"{http_service.without_secret(info.optimizer_status, self._endpoint)}",
                    remedy="Look at the server's log, its memory and its disk; then run the load "
                    "again.",
                    collection=at.label,
                )
            return (
                f"its status is {info.status.value}, {info.indexed_vectors_count or 0:,} vectors "
                f"of {info.points_count or 0:,} points are indexed"
            )

        http_service.until(missing, seconds=_BUILD_SECONDS, what=f"{at.label} was not indexed")

    def _configure(self, name: str, collection: Collection) -> None:
        """Give a new collection its indexes, and its limits, which would hinder loading."""
        for field, index in collection.native["payload_indexes"].items():
            kind = index.get("params") or index["data_type"]
            self._session.ask(
                lambda: self._session.client.create_payload_index(
                    name,
                    field,  # noqa: B023 - called at once
                    field_schema=schema.payload_index(kind),  # noqa: B023 - as above
                    wait=True,
                )
            )
        strict = collection.transient["config"].get("strict_mode_config")
        changes = {} if strict is None else {"strict_mode_config": schema.strict_mode(strict)}
        self._session.ask(
            lambda: self._session.client.update_collection(
                name, optimizers_config=schema.optimizers(collection), **changes
            )
        )

    def fetch(
        self,
        at: Name,
        collection: Collection,
        keys: Sequence[Key],
        *,
        partition: str,
    ) -> pa.RecordBatch:
        """Return the points with these ids that there are."""
        ids = [rows.id_of(str(key)) for key in keys]
        records = self._session.ask(
            lambda: self._session.client.retrieve(
                at.collection, ids, with_payload=True, with_vectors=True
            )
        )
        return rows.batch_of(collection, records)

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
        """Return the ids of the nearest points, through the index."""
        from qdrant_client import models  # noqa: PLC0415 - an optional package

        name = collection.field(field).native["vector"]
        found = self._session.ask(
            lambda: self._session.client.query_points(
                at.collection,
                query=vector.tolist(),
                using=name or None,
                limit=limit,
                with_payload=False,
                search_params=models.SearchParams(
                    hnsw_ef=_SEARCHED,
                    quantization=models.QuantizationSearchParams(rescore=True, oversampling=4.0),
                ),
            )
        )
        return [rows.key_of(point.id) for point in found.points]

    def drop(self, at: Name) -> None:
        """Drop a collection; of one that a restore is loading, the copy and its alias."""
        name = at.collection
        if STAGING.fullmatch(name):
            name = self._session.aliases().get(name, name)
        self._session.ask(lambda: self._session.client.delete_collection(name))

    def swap(
        self,
        collection: Collection,
        at: Name,
        *,
        loaded: Name,
        kept: Name,
    ) -> Sequence[str]:
        """Give the copy its name, deleting what had it; see the module's docstring."""
        aliases = self._session.aliases()
        physical = aliases.get(loaded.collection)
        if physical is None:
            return []
        # Nothing is deleted before it is sure that everything after it can be done.
        self._refuse_aliases(collection, at)
        place, old = at.collection, aliases.get(at.collection)
        wanted = dict.fromkeys(collection.transient.get("aliases", ()), physical)
        notes = []
        if physical != place:
            wanted[place] = physical
            notes.append(f"{place} is an alias now: its collection is called {physical}")
            if old is None and self._session.exists(place):
                # An alias cannot have the name of a collection, so that goes first.
                self._session.ask(lambda: self._session.client.delete_collection(place))
                notes.append(f"What was in {place} has been deleted")
        self._session.point(wanted, without=loaded.collection)
        if old is not None and old != physical:
            self._session.ask(lambda: self._session.client.delete_collection(old))
            notes.append(f"What was in {place}, {old}, has been deleted")
        return notes or [f"{place} is complete"]

    def place(self, at: Name) -> Name:
        """Return the same name: a server has no databases."""
        if self._endpoint.database:
            raise ConfigurationError(
                f"The connection names a database, {self._endpoint.database}",
                remedy="Qdrant has none: leave the connection's schema empty.",
                path="schema",
                value=self._endpoint.database,
            )
        return at


def _joined(batches: Sequence[pa.RecordBatch]) -> Sequence[pa.RecordBatch]:
    """Return batches as one; as several only where a column would be too long for one."""
    joined: Sequence[pa.RecordBatch] = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return joined


def _slices(batch: pa.RecordBatch, most: int) -> Iterator[pa.RecordBatch]:
    """Yield `batch` in pieces of at most about `most` bytes, at least a row each."""
    length = max(1, most * batch.num_rows // max(batch.nbytes, 1))
    for first in range(0, batch.num_rows, length):
        yield batch.slice(first, length)


def _limit_of(collection: Collection, word: str, most: int) -> int:
    """Return a limit of the collection's strict mode, or `most` where it has none."""
    strict = collection.transient["config"].get("strict_mode_config") or {}
    return min(most, strict.get(word) or most) if strict.get("enabled") else most
