"""The end of a dump: the oplog up to one moment, and the facts of that very moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO

import pymongo
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Parent, Sink
from neuroca_backup.engines.mongodb import catalog, facts, layout, operations, oplog
from neuroca_backup.engines.mongodb.catalog import VIEW, Definition
from neuroca_backup.engines.mongodb.operations import Operation, Transactions
from neuroca_backup.engines.mongodb.oplog import Point
from neuroca_backup.errors import ChainBrokenError, TransientError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump

if TYPE_CHECKING:
    from neuroca_backup.engines.mongodb import Options
    from neuroca_backup.mongodb_session import Client

_ATTEMPTS = 5
_GROWTH = {operations.INSERT: 1, operations.DELETE: -1}
_INEXACT = (
    "Not counted at the end of this backup, and so not compared after a restore, because the "
    "server cannot show them as they were at that moment (capped, redefined, or written to while "
    "there is no history): "
)


def incremental(endpoint: Endpoint, sink: Sink, options: Options, parent: Parent) -> Dump:
    """Write what came after `parent` as one member, and the facts of its end.

    Raises:
        ChainBrokenError: The oplog no longer begins where the parent ended, or there is none.
    """
    before = parent.manifest.dump
    with session.connect(endpoint) as client:
        version = session.version(client)
        if "setName" not in client.admin.command("hello") or "ts" not in before.consistency:
            raise ChainBrokenError(
                f"{endpoint.label} is, or was at the parent, a standalone server: without an oplog "
                "nothing says what has changed",
                remedy="Make it a replica set of one member, then take a full backup.",
            )
        if before.facts["databases"] != plain(options.databases):
            raise ChainBrokenError(
                "The source's `databases` option has changed since the parent",
                remedy="Take a full backup; the next incremental ones continue that.",
                value=options.databases,
            )
        begun = oplog.require_continued(client, before.consistency)
        capture = Capture(client, version, options, before=before.facts["collections"])
        with sink.member(layout.OPLOG) as out:
            return capture.slice(out, begun)


class Capture:
    """Writes the oplog from a moment on and takes the facts of where it ends.

    With `before`, the facts of the parent, only what has changed since is read again.
    """

    def __init__(
        self,
        client: Client,
        version: str,
        options: Options,
        *,
        before: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = client
        self._version = version
        self._options = options
        self._before = {
            one["uuid"]: one for one in (before or {}).values() if one["uuid"] and one["exact"]
        }
        self._changed: dict[str, int] = {}  # by UUID, how many documents more there are
        self._transactions = Transactions()
        self._notes: list[str] = []

    def full(self, out: BinaryIO, begun: Timestamp) -> Dump:
        """Write the window of a full dump that began at `begun`."""
        return self._finish(out, begun)

    def slice(self, out: BinaryIO, begun: Timestamp) -> Dump:
        """Write what came after a parent that ended at `begun`, that entry included."""
        made = self._finish(out, begun)
        return made.model_copy(update={"empty": not self._changed})

    def _finish(self, out: BinaryIO, begun: Timestamp) -> Dump:
        """Write entries until there is a moment whose definitions are known for certain.

        Definitions can only be read as they are now. They are those of the end if nothing was
        defined between the end and the reading.
        """
        written, inclusive = begun, True
        for _ in range(_ATTEMPTS):
            end = oplog.settled(self._client)
            oplog.write(
                self._client,
                out,
                after=written,
                until=end.ts,
                inclusive=inclusive,
                seen=lambda entry: self._see(entry, begun),
            )
            written, inclusive = end.ts, False
            found = catalog.read(self._client, self._options.databases)
            measured = self._measured(found, end)
            later = list(self._later(end))
            if any(_defines(one) for one in later):
                continue
            return self._dump(begun, end, found, measured, {one.uuid for one in later})
        raise TransientError(
            f"Collections were created, dropped or changed {_ATTEMPTS} times while facts were read",
            remedy="It is tried again; choose an hour without such changes.",
        )

    def _see(self, entry: RawBSONDocument, begun: Timestamp) -> None:
        for operation in self._transactions.feed(entry):
            if entry["ts"] == begun or not operations.touches_data(operation):
                continue
            change = _GROWTH.get(operation.kind, 0)
            self._changed[operation.uuid] = self._changed.get(operation.uuid, 0) + change
            self._refuse_restored(operation)

    def _refuse_restored(self, operation: Operation) -> None:
        if operation.command != "renameCollection":
            return
        database, source = layout.split(str(operation.body["renameCollection"]))
        listed = self._options.databases
        if not isinstance(listed, str) and database not in listed:
            return
        note = (
            f"{operation.body['renameCollection']} was renamed to {operation.body['to']}: only "
            "this program, not mongorestore, can repeat that."
        )
        self._notes.append(note)
        if layout.STAGING.fullmatch(source):
            kind = ChainBrokenError if self._before else TransientError
            raise kind(
                f"{operation.body['to']} was restored in place meanwhile",
                remedy="Take a full backup; the next incremental ones continue that.",
                namespace=str(operation.body["to"]),
            )

    def _measured(self, found: list[Definition], end: Point) -> dict[str, dict[str, Any] | None]:
        """Return figures by namespace; None where there are none of that moment."""
        snapshots = session.release(self._version) >= facts.SNAPSHOT_SINCE
        at = end.ts if snapshots else None

        def one(definition: Definition) -> dict[str, Any] | None:
            known = self._before.get(definition.uuid)
            if known is not None and definition.uuid not in self._changed:
                return {"documents": known["documents"], "digest": known["digest"]}
            if known is not None and not (self._options.checksums or definition.capped):
                # Each of these entries is one document more or less: nothing has to be read.
                documents = known["documents"] + self._changed[definition.uuid]
                return {"documents": documents, "digest": None}
            moment = None if definition.capped else at
            try:
                return facts.measure(
                    self._client,
                    definition.database,
                    definition.stored_in,
                    at=moment,
                    checksums=self._options.checksums,
                )
            except OperationFailure as error:
                if error.code not in facts.NO_SNAPSHOT:
                    raise
                return None

        stored = [one for one in found if one.kind != VIEW]
        with ThreadPoolExecutor(self._options.jobs) as pool:
            return dict(zip((one.namespace for one in stored), pool.map(one, stored), strict=True))

    def _later(self, end: Point) -> Iterator[Operation]:
        transactions = Transactions()
        for entry in oplog.later(self._client, end.ts):
            for operation in transactions.feed(entry):
                if operations.touches_data(operation):
                    yield operation

    def _dump(
        self,
        begun: Timestamp,
        end: Point,
        found: list[Definition],
        measured: dict[str, dict[str, Any] | None],
        later: set[str],
    ) -> Dump:
        snapshots = session.release(self._version) >= facts.SNAPSHOT_SINCE
        collections: dict[str, Any] = {}
        for one in found:
            figures = measured.get(one.namespace)
            of_the_end = one.uuid not in later or (snapshots and not one.capped)
            collections[one.namespace] = {
                **one.facts(),
                **(figures or {"documents": None, "digest": None}),
                "exact": figures is not None and of_the_end,
            }
        notes = list(self._notes)
        inexact = [
            name for name, one in collections.items() if one["type"] != VIEW and not one["exact"]
        ]
        if inexact:
            notes.append(f"{_INEXACT}{', '.join(inexact)}.")
        return Dump(
            server_version=self._version,
            tools={"pymongo": pymongo.version},
            consistency={**end.consistency(), "from": oplog.text(begun)},
            facts={
                "collections": collections,
                "members": {},
                "definitions": [],
                "checksums": self._options.checksums,
                "databases": plain(self._options.databases),
                "feature_version": session.feature_version(self._client),
            },
            notes=tuple(notes),
        )


def _defines(operation: Operation) -> bool:
    return operation.kind == operations.COMMAND or operation.namespace.endswith(f".{layout.VIEWS}")


def plain(databases: str | tuple[str, ...]) -> str | list[str]:
    """Return the option `databases` as a manifest's JSON holds it."""
    return databases if isinstance(databases, str) else list(databases)
