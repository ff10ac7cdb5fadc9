"""Loading: documents into staged collections, the oplog over them, indexes last.

A staged collection stands for the source's collection of one UUID, whatever names that has had, so
renames and drops in the oplog change nothing but which name it gets in the end.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure
from pymongo.write_concern import WriteConcern

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.mongodb import chain, frames, layout, operations
from neuroca_backup.engines.mongodb.catalog import TIMESERIES, Definition
from neuroca_backup.engines.mongodb.operations import Operation, Transactions
from neuroca_backup.errors import DamagedError, PermanentError

if TYPE_CHECKING:
    from neuroca_backup.engines.mongodb.chain import Wanted
    from neuroca_backup.mongodb_session import Client

_WORKERS = 2  # more do not help: the server's side is the slower one
_INSERT_BYTES = 8 * 1024 * 1024
_LATE_BATCHES = _WORKERS  # one connection each
_EXISTS = 48
_APPLY_OPERATIONS = 500
_APPLY_BYTES = 8 * 1024 * 1024
# The server replaces an empty timestamp at the top of a new document by its own time:
# https://www.mongodb.com/docs/manual/reference/bson-types/#timestamps
_EMPTY_TIMESTAMP = re.compile(rb"\x11[^\x00]+\x00\x00{8}")


def create(client: Client, wanted: Wanted) -> None:
    """Create every staged collection, empty, as its original was at the end.

    What expires documents by itself is left out until they have been compared; see publish.py.

    The last batch of an earlier load whose process was killed may still be under way in the
    server, which creates the collection anew for it; such a one is dropped once more.
    """
    for one in wanted.stored.values():
        name = wanted.staging(one)
        for late in range(_LATE_BATCHES, -1, -1):
            try:
                make(client, one, name)
                break
            except OperationFailure as error:
                if error.code != _EXISTS or not late:
                    raise
                client[one.database].drop_collection(name)


def make(client: Client, definition: Definition, name: str) -> None:
    """Create one collection like `definition` under another name, with nothing that expires."""
    options: Mapping[str, Any] = {}
    if not definition.name.startswith("system."):
        options = {w: v for w, v in definition.options.items() if w != "expireAfterSeconds"}
    client[definition.database].command({"create": name, **options})


def documents(client: Client, backup: Restorable, wanted: Wanted) -> None:
    """Insert the documents of the full backup, several batches at once.

    Raises:
        DamagedError: A member holds another number of documents than its manifest says.
        pymongo.errors.BulkWriteError: Any document was refused.
    """
    members = chain.documents_of(backup)
    with ThreadPoolExecutor(_WORKERS) as pool:
        for uuid, one in wanted.stored.items():
            if uuid not in members:
                continue  # made after the full backup: the oplog has all of it
            member, path, expected = members[uuid]
            found = fill(client, one, wanted.staging(one), path, member, pool)
            if found != expected:
                raise DamagedError(
                    f"{member} holds {found} documents instead of {expected}",
                    remedy="Restore from another store or another backup.",
                    key=member,
                )


def fill(
    client: Client,
    definition: Definition,
    name: str,
    path: Path,
    member: str,
    pool: ThreadPoolExecutor,
) -> int:
    """Insert all documents of one file; return how many."""
    slots = threading.BoundedSemaphore(2 * _WORKERS)
    running: list[Future[int]] = []
    count = 0

    def insert(batch: bytes) -> int:
        try:
            return insert_batch(client, definition.database, stored_in(definition, name), batch)
        finally:
            slots.release()

    with path.open("rb") as stream:
        for batch in frames.batches(stream, name=member, size=_INSERT_BYTES):
            slots.acquire()
            running.append(pool.submit(insert, batch))
            if definition.capped:
                running[-1].result()  # its order is its meaning
            done = [future for future in running if future.done()]
            count += sum(future.result() for future in done)
            running = [future for future in running if future not in done]
    return count + sum(future.result() for future in running)


def stored_in(definition: Definition, name: str) -> str:
    """Return the collection that holds the documents of `definition` when it is called `name`."""
    return layout.BUCKETS + name if definition.kind == TIMESERIES else name


def insert_batch(client: Client, database: str, name: str, batch: bytes) -> int:
    """Insert the documents that `batch` consists of, in their order; return how many."""
    collection = client[database].get_collection(name, write_concern=WriteConcern(w=1))
    all_documents = [RawBSONDocument(bytes(one)) for one in frames.split(batch, name=name)]
    special = []
    if _EMPTY_TIMESTAMP.search(batch):
        special = [one for one in all_documents if Timestamp(0, 0) in one.values()]
    plain = [one for one in all_documents if one not in special] if special else all_documents
    if plain:
        collection.insert_many(plain, ordered=True, bypass_document_validation=True)
    for one in special:
        collection.update_one(
            {"_id": one["_id"]},
            [{"$replaceWith": {"$literal": one}}],
            upsert=True,
            bypass_document_validation=True,
        )
    return len(all_documents)


class Replay:
    """Repeats the operations of a chain over staged collections, in batches."""

    def __init__(self, client: Client, wanted: Wanted, covered: Mapping[str, Timestamp]) -> None:
        self._client = client
        self._wanted = wanted
        self._covered = covered
        self._names = {
            uuid: f"{one.database}.{stored_in(one, wanted.staging(one))}"
            for uuid, one in wanted.stored.items()
        }
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0
        self.applied = 0

    def run(self, backup: Restorable) -> None:
        """Repeat everything up to `wanted.stop`.

        Raises:
            PermanentError: The server refused an operation, or after the full backup changed a
                document that is not there.
        """
        transactions = Transactions()
        last = None
        for number, folder in enumerate(backup.folders[: self._wanted.links]):
            # Within the window of a full dump a document may be newer than an operation on it, or
            # gone already; what makes it right comes later in the window.
            for entry in chain.entries(folder, after=last):
                if self._wanted.stop is not None and entry["ts"] > self._wanted.stop:
                    break
                last = entry["ts"]
                for operation in transactions.feed(entry):
                    self._add(operation, strict=number > 0)
            self._flush(strict=number > 0)

    def _add(self, operation: Operation, *, strict: bool) -> None:
        name = self._names.get(operation.uuid)
        if name is None or operation.kind == operations.COMMAND:
            return
        covered = self._covered.get(operation.uuid)
        if covered is not None and operation.ts <= covered:
            return
        # Neither session nor transaction numbers: they are the source's clients'.
        found: dict[str, Any] = {"op": operation.kind, "ns": name, "o": operation.body}
        if operation.criteria is not None and operation.kind == operations.UPDATE:
            found["o2"] = operation.criteria
        self._waiting.append(found)
        self._bytes += len(operation.body.raw)  # type: ignore[attr-defined]
        if len(self._waiting) >= _APPLY_OPERATIONS or self._bytes >= _APPLY_BYTES:
            self._flush(strict=strict)

    def _flush(self, *, strict: bool) -> None:
        if not self._waiting:
            return
        answer = self._client.admin.command(
            {
                "applyOps": self._waiting,
                "alwaysUpsert": not strict,
                "bypassDocumentValidation": True,
                "writeConcern": {"w": 1},
            }
        )
        if answer["applied"] != len(self._waiting) or not all(answer["results"]):
            raise PermanentError(
                f"The target applied {answer['applied']} of {len(self._waiting)} operations",
                remedy="Run the restore from its load step on; if it repeats, restore another "
                "backup.",
            )
        self.applied += len(self._waiting)
        self._waiting, self._bytes = [], 0


def covered(backup: Restorable, wanted: Wanted) -> dict[str, Timestamp]:
    """Return for capped collections the entry up to which their documents are loaded already.

    Documents that the server itself had removed while the dump was running must not come back
    behind newer ones, so the entry that made the last loaded document is looked for.
    """
    members = chain.documents_of(backup)
    last = {
        uuid: _last_id(members[uuid][1], members[uuid][0])
        for uuid, one in wanted.stored.items()
        if one.capped and uuid in members and members[uuid][2]
    }
    found: dict[str, Timestamp] = {}
    if last:
        transactions = Transactions()
        for entry in chain.entries(backup.folders[0]):
            for operation in transactions.feed(entry):
                inserted = operation.kind == operations.INSERT and operation.uuid in last
                if inserted and operation.body.get("_id") == last[operation.uuid]:
                    found[operation.uuid] = operation.ts
    return found


def _last_id(path: Path, member: str) -> Any:
    document = b""
    with path.open("rb") as stream:
        for document in frames.documents(stream, name=member):  # noqa: B007 - the last one
            pass
    return RawBSONDocument(document)["_id"]


def indexes(client: Client, wanted: Wanted) -> None:
    """Build the indexes of every staged collection; none of them expires documents yet."""
    for one in wanted.stored.values():
        if f"admin.{one.name}" not in chain.ACCOUNTS or one.database != "admin":
            build(client, one, wanted.staging(one))


def build(client: Client, definition: Definition, name: str) -> None:
    """Build the indexes of one collection called `name`, without expiry."""
    specs = [without_expiry(spec) for spec in definition.indexes.values()]
    if specs:
        client[definition.database].command(
            {"createIndexes": stored_in(definition, name), "indexes": specs}
        )


def without_expiry(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return an index specification that does not expire documents."""
    return {word: value for word, value in spec.items() if word != "expireAfterSeconds"}
