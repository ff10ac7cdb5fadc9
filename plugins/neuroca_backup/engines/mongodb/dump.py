"""Dumping: the collections one after the other, and the oplog that makes them one moment.

Documents are read while applications write, each collection at another time. The oplog from before
the first read to after the last, repeated over them, makes all of them what they were at its end.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pymongo
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Sink
from neuroca_backup.engines.mongodb import capture, catalog, frames, layout, oplog
from neuroca_backup.engines.mongodb.catalog import TIMESERIES, VIEW, Definition
from neuroca_backup.errors import EmptySourceError, TransientError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump

if TYPE_CHECKING:
    from neuroca_backup.engines.mongodb import Options
    from neuroca_backup.mongodb_session import Client

log = logging.getLogger(__name__)

# About this much is asked for at once: larger answers only delay each other.
_ANSWER_BYTES = 1024 * 1024
_REFRESH_SECONDS = 300  # the server ends a session after 30 minutes without a sign of life
_GONE = frozenset({26, 43, 175})

_STANDALONE = (
    "The server is a standalone one, which has no oplog: collections were read one after the "
    "other, so the dump is not consistent across collections if anything was written meanwhile. "
    "Make it a replica set of one member to have consistent and incremental backups."
)


def dump(endpoint: Endpoint, sink: Sink, options: Options) -> Dump:
    """Dump every chosen database to `sink`.

    Raises:
        NotFoundError: A listed database does not exist.
        EmptySourceError: There is no document at all.
        TransientError: The primary changed, or the oplog rolled over, while it was read.
    """
    with session.connect(endpoint) as client:
        version = session.version(client)
        replicated = "setName" in client.admin.command("hello")
        begun = oplog.start(client) if replicated else None
        found = catalog.read(client, options.databases)
        counted = _write_collections(client, sink, found, options, replicated=replicated)
        if begun is None:
            made = _standalone(client, version, found, counted, options)
        else:
            ending = capture.Capture(client, version, options)
            with sink.member(layout.OPLOG) as out:
                made = ending.full(out, begun)
            made.facts.update(members=_members(counted), definitions=_metadata_members(found))
        # Every server has users, and the document of its version.
        documents = sum(
            one["documents"]
            for name, one in counted.items()
            if not name.startswith("admin/system.")
        )
        if not documents:
            if not options.allow_empty:
                raise EmptySourceError(
                    f"MongoDB at {endpoint.label} has no collection with documents",
                    remedy="Look whether the source has lost its data. If it is new and still "
                    "empty, set `allow_empty: true` in the source's options until it is not.",
                    server=endpoint.label,
                )
            made = made.model_copy(update={"empty": True})
        return made


def _standalone(
    client: Client,
    version: str,
    found: list[Definition],
    counted: dict[str, dict[str, Any]],
    options: Options,
) -> Dump:
    """Return the facts of a dump without an oplog: they are those of the members themselves."""
    collections: dict[str, Any] = {}
    for one in found:
        collections[one.namespace] = {**one.facts(), "documents": None, "digest": None}
        if one.kind != VIEW:
            figures = counted[layout.data_member(one.database, one.stored_in)]
            collections[one.namespace] |= {w: figures[w] for w in ("documents", "digest")}
        collections[one.namespace]["exact"] = one.kind != VIEW
    time = client.admin.command("hello")["localTime"].replace(tzinfo=UTC)
    return Dump(
        server_version=version,
        tools={"pymongo": pymongo.version},
        consistency={"time": time.isoformat()},
        facts={
            "collections": collections,
            "members": _members(counted),
            "definitions": _metadata_members(found),
            "checksums": options.checksums,
            "databases": capture.plain(options.databases),
            "feature_version": session.feature_version(client),
        },
        notes=(_STANDALONE,),
    )


def _members(counted: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return for each member of documents whose they are, and how many."""
    return {
        name: {"uuid": one["uuid"], "documents": one["documents"]}
        for name, one in sorted(counted.items())
    }


def _metadata_members(found: list[Definition]) -> list[str]:
    return sorted(layout.metadata_member(one.database, one.name) for one in found)


def _write_collections(
    client: Client, sink: Sink, found: list[Definition], options: Options, *, replicated: bool
) -> dict[str, dict[str, Any]]:
    """Write every collection's members, several at once; return what each data member holds."""
    digests = options.checksums and not replicated
    stored = [one for one in found if one.kind != VIEW]
    with _kept_session(client) as kept, ThreadPoolExecutor(options.jobs) as pool:

        def one(definition: Definition) -> tuple[str, dict[str, Any]]:
            _write_metadata(client, sink, definition)
            name = layout.data_member(definition.database, definition.stored_in)
            tally = frames.Tally(digests=digests)
            with sink.member(name) as out:
                _write_documents(client, kept, definition, out, tally)
            return name, {
                "uuid": definition.uuid,
                "documents": tally.documents,
                "digest": tally.digest,
            }

        futures = [pool.submit(one, definition) for definition in stored]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
        for view in (one for one in found if one.kind == VIEW):
            _write_metadata(client, sink, view)
        return dict(future.result() for future in futures)


def _write_metadata(client: Client, sink: Sink, definition: Definition) -> None:
    indexes = (
        []
        if definition.kind == VIEW
        else catalog.all_indexes(client[definition.database], definition.name)
    )
    name = layout.metadata_member(definition.database, definition.name)
    with sink.member(name) as out:
        out.write(catalog.metadata(definition, indexes))


def _write_documents(
    client: Client,
    kept: pymongo.client_session.ClientSession,
    definition: Definition,
    out: BinaryIO,
    tally: frames.Tally,
) -> None:
    """Write every document; one that goes away meanwhile is what the oplog says, too.

    Raises:
        TransientError: Its name became another collection's, so what was read is not known.
    """
    database, name = client[definition.database], _name_now(client, definition)
    if not name:
        log.info("%s was dropped before it was read", definition.namespace)
        return
    member = layout.data_member(definition.database, definition.stored_in)
    size = _average_size(client, definition)
    reading = database.get_collection(name, read_concern=ReadConcern("majority"))
    try:
        with reading.find_raw_batches(
            batch_size=max(2, _ANSWER_BYTES // size),
            cursor_type=pymongo.CursorType.EXHAUST,
            no_cursor_timeout=True,
            session=kept,
        ) as cursor:
            for batch in cast("Iterator[bytes]", cursor):
                for document in frames.split(batch, name=member):
                    tally.add(document)
                out.write(batch)
    except OperationFailure as error:
        if error.code not in _GONE or _name_now(client, definition):
            raise
        log.info("%s was dropped while it was read", definition.namespace)
    if _name_now(client, definition) not in {name, ""}:
        raise TransientError(
            f"{definition.namespace} was renamed while it was read",
            remedy="It is tried again.",
            namespace=definition.namespace,
        )


def _average_size(client: Client, definition: Definition) -> int:
    try:
        stats = client[definition.database].command("collStats", definition.name)
    except OperationFailure:
        # A right that the backup can do without; or the collection has just gone.
        return 1024
    if definition.kind == TIMESERIES:
        stats = stats.get("timeseries", {})
    return int(stats.get("avgObjSize") or stats.get("avgBucketSize") or 1024)


def _name_now(client: Client, definition: Definition) -> str:
    """Return the name of the collection that holds these documents now, "" once it is dropped."""
    for one in client[definition.database].list_collections():
        uuid = one.get("info", {}).get("uuid")
        if uuid is not None and bytes(uuid).hex() == definition.uuid:
            return str(one["name"])
    return ""


@contextmanager
def _kept_session(client: Client) -> Iterator[pymongo.client_session.ClientSession]:
    """Give a session that lives as long as the block, however slowly a sink takes its bytes."""
    ended = threading.Event()
    with client.start_session(causal_consistency=False) as kept:

        def refresh() -> None:
            while not ended.wait(_REFRESH_SECONDS):
                client.admin.command({"refreshSessions": [kept.session_id]})

        thread = threading.Thread(target=refresh, name="refresh-session", daemon=True)
        thread.start()
        try:
            yield kept
        finally:
            ended.set()
            thread.join()
