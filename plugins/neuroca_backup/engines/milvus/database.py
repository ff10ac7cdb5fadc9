"""Milvus behind the interface of every vector store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from neuroca_backup.engines.milvus import bulk, schema
from neuroca_backup.engines.milvus.session import CALL_SECONDS, DEFAULT, Session, pymilvus
from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    PermanentError,
    TargetRefusedError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.vectors import columns
from neuroca_backup.vectors.database import Key
from neuroca_backup.vectors.model import Collection, Index, Name

if TYPE_CHECKING:
    import pyarrow as pa

_STRONG = "Strong"
# Milvus gives at most this many rows to one query: https://milvus.io/docs/limitations.md
_MOST_ROWS = 16_384
_FIRST_ROWS = 64  # of an export, to learn how large its rows are
_MOST_INSERT_BYTES = 16 * 1024 * 1024  # the server takes 64 MiB a request
_TRIES = 5
_PAUSE_SECONDS = 2.0
_LOAD_SECONDS = 3600
_BUILD_SECONDS = 6 * 3600
_SINCE_2_4 = {"float16_vector", "bfloat16_vector", "sparse_vector", "int8_vector"}
_SMALLEST = -(2**63) + 1  # its parser knows no smaller integer


class MilvusDatabase:
    """See `vectors.database.VectorDatabase`."""

    beside: ClassVar[bool] = True
    threads: ClassVar[int] = 4

    def __init__(self, session: Session, *, databases: str | Sequence[str] | None = None) -> None:
        """Begin; `databases` are those of a source, `all` or a list; a target has None."""
        self._session = session
        self._is_source = databases is not None
        self._databases = databases or "all"
        self._moments: dict[Name, int] = {}

    def version(self) -> str:
        """Return the server's version, e.g. `2.3.5`."""
        with self._session.translated("asking its version"):
            found: str = self._session.client().get_server_version(timeout=CALL_SECONDS)
        return found.removeprefix("v").partition("-")[0]

    def tools(self) -> Mapping[str, str]:
        """Return the version of pymilvus."""
        return {"pymilvus": str(pymilvus.__version__)}

    def collections(self) -> Sequence[Name]:
        """Return the collections of the connection's database, or of all (chosen) ones."""
        found = []
        for database in self._chosen_databases():
            with self._session.translated("listing collections"):
                names = self._session.client(database).list_collections(timeout=CALL_SECONDS)
            found += [Name(database, name) for name in names]
        return sorted(found)

    def _chosen_databases(self) -> Sequence[str]:
        if self._session.endpoint.database:
            if self._databases != "all":
                raise ConfigurationError(
                    f"The connection names the database {self._session.endpoint.database}, and "
                    "the source has the option `databases`, too",
                    remedy="Remove the connection's schema, or the option.",
                    path="options.databases",
                )
            # That of a target may be made by the restore; that of a source has to be there.
            return [""] if self._is_source or self._database_exists(Name("", "")) else []
        with self._session.translated("listing databases"):
            present = list(self._session.client().list_databases(timeout=CALL_SECONDS))
        if isinstance(self._databases, str):
            return present
        missing = sorted(set(self._databases) - set(present))
        if missing:
            raise NotFoundError(
                f"Milvus at {self._session.endpoint.label} has no database {', '.join(missing)}; "
                f"it has {', '.join(present)}",
                remedy="Correct the source's `databases` option in backup.yaml.",
                databases=missing,
            )
        return self._databases

    def describe(self, at: Name) -> Collection:
        """Return a collection as it is now."""
        client, name = self._client(at), at.collection
        with self._session.translated(f"describing {at.label}"):
            found = client.describe_collection(name, timeout=CALL_SECONDS)
            indexes = [
                client.describe_index(name, index, timeout=CALL_SECONDS)
                for index in client.list_indexes(name)
                if index != schema.TEMPORARY
            ]
            partitions = client.list_partitions(name, timeout=CALL_SECONDS)
        return schema.described(
            at, found, indexes=indexes, partitions=partitions, loaded=self._is_loaded(at)
        )

    @contextmanager
    def reading(self, at: Name) -> Iterator[None]:
        """Load a collection that is not loaded, with an index of ours where it has none.

        What is asked within the block is answered from a moment of the server's own clock at or
        after its beginning, so that all acknowledged rows are seen, flushed or not; nothing is
        flushed.
        """
        with self._session.translated("asking for its clock"):
            self._moments[at] = self._session.handler(at.database).alloc_timestamp(
                timeout=CALL_SECONDS
            )
        try:
            with self._loaded(at):
                yield
        finally:
            del self._moments[at]

    @contextmanager
    def _loaded(self, at: Name) -> Iterator[None]:
        if self._is_loaded(at):
            yield
            return
        client, name = self._client(at), at.collection
        lacking = self._without_index(at)
        try:
            with self._session.translated(f"loading {at.label}"):
                if lacking:
                    client.create_index(
                        name, schema.index_parameters(lacking), timeout=_LOAD_SECONDS
                    )
                client.load_collection(name, timeout=_LOAD_SECONDS)
            yield
        finally:
            with self._session.translated(f"releasing {at.label}"):
                if client.has_collection(name, timeout=CALL_SECONDS):
                    client.release_collection(name, timeout=CALL_SECONDS)
                    for index in client.list_indexes(name):
                        if index == schema.TEMPORARY:
                            client.drop_index(name, index, timeout=CALL_SECONDS)

    def count(self, at: Name, *, partition: str = "") -> int:
        """Return what Milvus itself counts, with strong consistency."""
        # Of this very moment: after an export it has to show what came meanwhile.
        rows = self._query(
            at, "", partition=partition, output_fields=["count(*)"], consistency_level=_STRONG
        )
        return int(rows[0]["count(*)"])

    def export(
        self, at: Name, collection: Collection, *, partition: str, batch_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows by ascending key: each query begins after the last key of the one before.

        A query that fails for a moment is asked again; it has no state on the server.
        """
        last: Key | None = None
        limit = _FIRST_ROWS
        while True:
            rows = self._query_again(at, collection, last, partition=partition, limit=limit)
            if not rows:
                return
            batch = _batch(collection, rows)
            last = rows[-1][collection.key]
            row_bytes = max(batch.nbytes // batch.num_rows, 1)
            yield batch
            if len(rows) < limit:
                return
            limit = max(1, min(batch_bytes // row_bytes, limit * 16, _MOST_ROWS))

    def _query_again(
        self,
        at: Name,
        collection: Collection,
        last: Key | None,
        *,
        partition: str,
        limit: int,
    ) -> list[Any]:
        for attempt in range(1, _TRIES + 1):
            try:
                found = self._query(
                    at,
                    _after(collection, last),
                    partition=partition,
                    output_fields=["*"],
                    limit=limit,
                )
            except TransientError:
                if attempt == _TRIES:
                    raise
                time.sleep(_PAUSE_SECONDS * attempt)
            else:
                return sorted(found, key=lambda row: row[collection.key])
        raise AssertionError  # the last try has raised

    def refuse(self, collection: Collection, at: Name) -> None:
        """Raise where the target's version lacks something the collection has."""
        version = self.version()
        numbers = tuple(int(part) for part in version.split(".")[:2])
        new = sorted(
            {one.kind for one in collection.fields if one.kind in _SINCE_2_4}
            | ({"nullable fields"} if any(one.nullable for one in collection.fields) else set())
            | ({"several vector fields"} if len(collection.vectors) > 1 else set())
        )
        if new and numbers < (2, 4):
            raise IncompatibleVersionError(
                f"Milvus {version} at {self._session.endpoint.label} has no {', '.join(new)}, "
                f"which {collection.at.label} needs",
                remedy="Restore into Milvus 2.4 or newer.",
                target=version,
                needs=new,
            )
        aliases = self._aliases(at) if self._database_exists(at) else {}
        if at.collection in aliases:
            raise TargetRefusedError(
                f"{at.label} is an alias there, of {aliases[at.collection]}",
                remedy="Drop that alias, or restore elsewhere.",
                alias=at.label,
            )

    def create(self, collection: Collection, at: Name, *, mark: str) -> None:
        """Create the collection, its partitions and its indexes.

        Milvus indexes each segment when it is full, beside the loading; and imported ones at once
        only if the index is there before them, else up to a minute later.
        """
        del mark  # the name tells
        if not self._database_exists(at):
            database = at.database or self._session.endpoint.database
            with self._session.translated(f"creating database {database}"):
                self._session.client(DEFAULT).create_database(database, timeout=CALL_SECONDS)
        native = collection.native
        words: dict[str, Any] = {}
        if native["properties"]:
            words["properties"] = native["properties"]
        if "partitions" in native:
            words["num_partitions"] = native["partitions"]
        client, name = self._client(at), at.collection
        with self._session.translated(f"creating {at.label}"):
            client.create_collection(
                name,
                schema=schema.created(collection),
                consistency_level=native["consistency_level"],
                num_shards=native["shards"],
                timeout=CALL_SECONDS,
                **words,
            )
            for partition in collection.partitions:
                if partition and not client.has_partition(name, partition, timeout=CALL_SECONDS):
                    client.create_partition(name, partition, timeout=CALL_SECONDS)
            if collection.indexes:
                client.create_index(
                    name,
                    schema.index_parameters(collection.indexes),
                    timeout=CALL_SECONDS,
                    sync=False,
                )

    def made_by(self, at: Name) -> str:  # noqa: ARG002 - the name of a copy tells
        """Return ""."""
        return ""

    def insert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Insert rows in requests of at most 16 MB."""
        self._send("insert", at, collection, batch, partition=partition)

    def upsert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Replace rows in requests of at most 16 MB."""
        self._send("upsert", at, collection, batch, partition=partition)

    def _send(
        self,
        how: Literal["insert", "upsert"],
        at: Name,
        collection: Collection,
        batch: pa.RecordBatch,
        *,
        partition: str,
    ) -> None:
        pieces = -(-batch.nbytes // _MOST_INSERT_BYTES) or 1
        size = -(-batch.num_rows // pieces)
        for first in range(0, batch.num_rows, size):
            piece = batch.slice(first, size)
            rows = [_row(collection, row) for row in columns.to_rows(collection, piece)]
            with self._session.translated(f"writing to {at.label}"):
                answer = getattr(self._client(at), how)(
                    at.collection, rows, partition_name=partition, timeout=CALL_SECONDS
                )
            taken = answer[f"{how}_count"]
            if taken != piece.num_rows:
                raise UnreachableError(
                    f"Milvus took {taken} of {piece.num_rows} rows of {at.label}",
                    remedy="Run the load again: it starts clean.",
                    collection=at.label,
                )

    def bulk_import(
        self,
        at: Name,
        collection: Collection,
        parts: Sequence[Path],
        *,
        partition: str,
        on_rows: Callable[[int], None],
    ) -> bool:
        """Let Milvus read the parts where the connection says how it reaches them."""
        return bulk.imported(
            self._session, at, collection, parts, partition=partition, on_rows=on_rows
        )

    def build(self, at: Name, collection: Collection) -> None:
        """Flush, wait for the indexes, load if it was loaded."""
        client, name = self._client(at), at.collection
        with self._session.translated(f"building the indexes of {at.label}"):
            client.flush(name, timeout=_LOAD_SECONDS)
        deadline = time.monotonic() + _BUILD_SECONDS
        pause = 0.1
        while behind := self._unfinished(at):
            if time.monotonic() > deadline:
                raise UnreachableError(
                    f"Milvus has not finished after {_BUILD_SECONDS} s: {behind}",
                    remedy="Look at the index node's log; then run the load again.",
                    collection=at.label,
                )
            time.sleep(pause)
            pause = min(pause * 2, 10)
        if collection.transient.get("loaded"):
            with self._session.translated(f"loading {at.label}"):
                client.load_collection(name, timeout=_LOAD_SECONDS)

    def fetch(
        self, at: Name, collection: Collection, keys: Sequence[Key], *, partition: str
    ) -> pa.RecordBatch:
        """Return the rows with these keys."""
        wanted = f"{collection.key} in {json.dumps(list(keys), ensure_ascii=False)}"
        rows = self._query(at, wanted, partition=partition, output_fields=["*"])
        return _batch(collection, rows)

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
        """Search with parameters that leave nothing out if they can."""
        index = next((one for one in collection.indexes if one.field == field), None)
        binary = collection.field(field).kind == "binary_vector"
        with self._session.translated(f"searching {at.label}"):
            found = self._client(at).search(
                at.collection,
                data=[vector.tobytes() if binary else vector],
                anns_field=field,
                limit=limit,
                search_params={"params": schema.search_parameters(index)},
                partition_names=[partition] if partition else None,
                timeout=CALL_SECONDS,
                **self._from_moment(at),
            )
        return [hit[collection.key] for hit in found[0]]

    def drop(self, at: Name) -> None:
        """Drop a collection."""
        with self._session.translated(f"dropping {at.label}"):
            self._client(at).drop_collection(at.collection, timeout=CALL_SECONDS)

    def swap(self, collection: Collection, at: Name, *, loaded: Name, kept: Name) -> Sequence[str]:
        """Move aliases to the copy, then rename; the last rename is what ends it.

        Milvus has no transaction for two renames: between them the name is not there, for some
        milliseconds. A kill in between leaves the copy under its loading name for the repeat.
        """
        present = set(self.collections())
        if loaded not in present:
            return []
        client = self._client(at)
        notes = []
        aliases = self._aliases(at)
        followed = {name for name, of in aliases.items() if of == at.collection}
        with self._session.translated(f"putting {at.label} in its place"):
            for alias in sorted({*collection.transient.get("aliases", ()), *followed}):
                owner = aliases.get(alias)
                if owner is None:
                    client.create_alias(loaded.collection, alias, timeout=CALL_SECONDS)
                elif owner in {at.collection, loaded.collection}:
                    client.alter_alias(loaded.collection, alias, timeout=CALL_SECONDS)
                else:
                    notes.append(f"The alias {alias} was left with {owner}")
            if at in present:
                client.rename_collection(at.collection, kept.collection, timeout=CALL_SECONDS)
                notes.append(
                    f"What was in {at.label} is kept as {kept.collection}; drop it when it is not "
                    "needed"
                )
            client.rename_collection(loaded.collection, at.collection, timeout=CALL_SECONDS)
        return notes

    def place(self, at: Name) -> Name:
        """Return the same name, in the connection's database if it names one.

        What a connection's own database held goes to the default one where the target's connection
        names none; `collections` calls that one by its name, too.
        """
        own = self._session.endpoint.database
        if not own:
            return at._replace(database=at.database or DEFAULT)
        if not at.database:
            return at
        if at.database != own:
            raise ConfigurationError(
                f"{at.label} was in another database than the connection's, {own}",
                remedy=f"Leave the connection's schema empty or set it to {at.database}.",
                value=own,
            )
        return Name("", at.collection)

    def _client(self, at: Name) -> Any:
        return self._session.client(at.database)

    def _query(self, at: Name, expression: str, *, partition: str, **words: Any) -> list[Any]:
        with self._session.translated(f"reading {at.label}"):
            found: list[Any] = self._client(at).query(
                at.collection,
                filter=expression,
                partition_names=[partition] if partition else None,
                timeout=CALL_SECONDS,
                **(self._from_moment(at) | words),
            )
        return found

    def _from_moment(self, at: Name) -> dict[str, Any]:
        """Return the consistency of a query: strong, but waiting for the block's beginning only.

        https://milvus.io/docs/v2.3.x/timestamp.md
        """
        if at not in self._moments:
            return {"consistency_level": _STRONG}
        return {"consistency_level": "Customized", "guarantee_timestamp": self._moments[at]}

    def _is_loaded(self, at: Name) -> bool:
        with self._session.translated(f"asking the state of {at.label}"):
            state = self._client(at).get_load_state(at.collection, timeout=CALL_SECONDS)["state"]
        return str(getattr(state, "name", state)) == "Loaded"

    def _without_index(self, at: Name) -> list[Index]:
        """Return a temporary index for every vector field that has none: it cannot be loaded."""
        collection = self.describe(at)
        indexed = {index.field for index in collection.indexes}
        return [
            schema.temporary_index(field)
            for field in collection.vectors
            if field.name not in indexed
        ]

    def _unfinished(self, at: Name) -> str:
        """Return which indexes are not built yet, and how far they are; "" when all are."""
        client, behind = self._client(at), []
        with self._session.translated(f"asking for the indexes of {at.label}"):
            for name in client.list_indexes(at.collection):
                found = client.describe_index(at.collection, name, timeout=CALL_SECONDS)
                if found.get("state") == "Failed":
                    raise PermanentError(
                        f"Milvus could not build the index {name} of {at.label}",
                        remedy="Look at the index node's log, for memory and disk above all.",
                        index=name,
                    )
                if found.get("state") != "Finished" or found.get("pending_index_rows"):
                    rows = f"{found.get('indexed_rows')} of {found.get('total_rows')} rows"
                    behind.append(f"{name} ({rows})")
        return ", ".join(behind)

    def _aliases(self, at: Name) -> dict[str, str]:
        """Return all aliases of a database, and the collection of each."""
        client, found = self._client(at), {}
        with self._session.translated("listing aliases"):
            for name in client.list_collections(timeout=CALL_SECONDS):
                # `list_aliases` of version 2.3 looks into the database `default` only.
                told = client.describe_collection(name, timeout=CALL_SECONDS)
                found.update(dict.fromkeys(told.get("aliases") or (), name))
        return found

    def _database_exists(self, at: Name) -> bool:
        name = at.database or self._session.endpoint.database or DEFAULT
        with self._session.translated("listing databases"):
            return name in self._session.client(DEFAULT).list_databases(timeout=CALL_SECONDS)


def _after(collection: Collection, last: Key | None) -> str:
    """Return the expression for all rows behind a key, in the order of keys."""
    key = collection.key
    if collection.field(key).kind == "string":
        return (
            f"{key} > {json.dumps(last, ensure_ascii=False)}"
            if last is not None
            else f'{key} >= ""'
        )
    return f"{key} > {last}" if last is not None else f"{key} >= {_SMALLEST}"


def _batch(collection: Collection, rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return rows as Milvus gives them as a batch; its dynamic fields are one JSON column."""
    # It gives a vector of bytes as a list of one.
    of_bytes = [
        field.name
        for field in collection.vectors
        if field.kind not in {"float_vector", "sparse_vector"}
    ]
    if of_bytes:
        rows = [{**row, **{name: _bytes(row[name]) for name in of_bytes}} for row in rows]
    if not collection.native["dynamic"]:
        return columns.from_rows(collection, rows)
    declared = {field.name for field in collection.fields}
    return columns.from_rows(
        collection,
        [
            {**row, schema.DYNAMIC: {name: row[name] for name in row if name not in declared}}
            for row in rows
        ],
    )


def _bytes(value: Any) -> bytes | None:
    return b"".join(value) if isinstance(value, list) else value


def _row(collection: Collection, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as Milvus takes it."""
    extra = row.pop(schema.DYNAMIC, None) or {}
    if collection.new_keys:
        del row[collection.key]
    return {**extra, **row}
