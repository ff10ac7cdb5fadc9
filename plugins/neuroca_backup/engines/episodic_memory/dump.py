"""Exporting the collections of a tier, all of them as they were at one moment.

That moment is a snapshot of the server's own (5.0 and newer, in a replica set), so nothing has to
be repeated over the documents afterwards, and no right to read the oplog is needed. The server
keeps what such a read needs for `minSnapshotHistoryWindowInSeconds`, five minutes by default.
https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pymongo
from pymongo.errors import OperationFailure

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Sink
from neuroca_backup.engines.episodic_memory import definitions, documents, members
from neuroca_backup.engines.episodic_memory.definitions import VIEW, Definition
from neuroca_backup.errors import (
    ConfigurationError,
    EmptySourceError,
    NotFoundError,
    TransientError,
)
from neuroca_backup.memory import tiers
from neuroca_backup.memory.digests import Tally
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.streams import write_all

if TYPE_CHECKING:
    from pymongo.client_session import ClientSession

    from neuroca_backup.engines.episodic_memory import Options
    from neuroca_backup.mongodb_session import Client

log = logging.getLogger(__name__)

_BATCH = 1000  # documents an answer
_SNAPSHOTS_SINCE = (5, 0)
_TOO_OLD = 239
_WAIT_SECONDS = 60.0
_ONE_BY_ONE = (
    "The server is {why}, which has no snapshot reads: collections were read one after the other, "
    "so what was written meanwhile may be in one and not in another, or be missing."
)


def dump(endpoint: Endpoint, sink: Sink, options: Options) -> Dump:
    """Export every collection of the tier to `sink`.

    Raises:
        NotFoundError: No collection matches.
        EmptySourceError: There is no document.
        TransientError: A collection was created, dropped or redefined meanwhile.
        ConfigurationError: The export took longer than the server keeps its snapshots.
    """
    with session.connect(endpoint) as client:
        version = session.version(client)
        hello = client.admin.command("hello")
        why = _without_snapshots(version, hello)
        before = definitions.read(client, options.collections)
        if not before and not options.allow_empty:
            raise NotFoundError(
                f"MongoDB at {endpoint.label} has no collection like "
                f"{', '.join(options.collections)}",
                remedy="Correct the source's `collections`. If the tier is new and still empty, "
                "set `allow_empty: true` until it is not.",
                server=endpoint.label,
            )
        moment: datetime = hello["localTime"].replace(tzinfo=UTC)
        consistency: dict[str, str] = {}
        with _reading(client, before, snapshot=not why) as (reading, taken):
            try:
                found = {
                    one.namespace: _export(client, sink, one, options, reading) for one in before
                }
            except OperationFailure as error:
                if error.code != _TOO_OLD:
                    raise
                raise _took_too_long(client, endpoint) from None
            if taken:
                consistency["ts"] = f"{taken[0].time}:{taken[0].inc}"
                moment = taken[0].as_datetime()
        # A snapshot of a collection that has been dropped reads as an empty one.
        if definitions.read(client, options.collections) != before:
            raise TransientError(
                "Collections of the tier were created, dropped or redefined while it was exported",
                remedy="It is tried again; choose an hour without such changes.",
            )
    total = sum(one["documents"] for one in found.values())
    if not total and not options.allow_empty:
        raise EmptySourceError(
            f"The collections {', '.join(found)} of {endpoint.label} have no document",
            remedy="Look whether the tier has lost its data. If it is new and still empty, set "
            "`allow_empty: true` in the source's options until it is not.",
            server=endpoint.label,
        )
    return Dump(
        server_version=version,
        tools={"pymongo": pymongo.version},
        consistency={"time": moment.isoformat(), **consistency},
        facts={
            "form": tiers.FORM,
            "tier": options.tier,
            "patterns": list(options.collections),
            "fields": options.fields.model_dump(mode="json"),
            "snapshot": not why,
            "collections": found,
        },
        empty=not total,
        notes=(_ONE_BY_ONE.format(why=why),) if why else (),
    )


def _without_snapshots(version: str, hello: Mapping[str, Any]) -> str:
    """Return why the server has no snapshot reads, "" where it has."""
    if "setName" not in hello:
        return "a standalone one"
    if session.release(version) < _SNAPSHOTS_SINCE:
        return f"of version {version}"
    return ""


@contextmanager
def _reading(
    client: Client, found: Sequence[Definition], *, snapshot: bool
) -> Iterator[tuple[ClientSession, list[Any]]]:
    """Give a session whose reads are of one moment, and a list that has its timestamp.

    That moment is not before the block's beginning: what was `found` by then is seen.
    """
    stored = [one for one in found if one.kind != VIEW]
    snapshot = snapshot and bool(stored)
    with client.start_session(snapshot=snapshot, causal_consistency=False) as opened:
        taken: list[Any] = []
        if snapshot:
            _settle(client)
            # The session's first read decides on the moment.
            client[stored[0].database][stored[0].name].find_one({}, {"_id": 1}, session=opened)
            # The driver keeps it for the next reads; it has no public name for it.
            taken.append(opened._snapshot_time)  # noqa: SLF001 - see above
        yield opened, taken


def _settle(client: Client) -> None:
    """Wait until what the server has done so far is what a majority of its set has done."""
    now = client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    deadline = time.monotonic() + _WAIT_SECONDS
    while client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"] < now:
        if time.monotonic() > deadline:
            raise TransientError(
                f"After {_WAIT_SECONDS:.0f} s a majority of the replica set is still behind",
                remedy="It is tried again; look at the replication lag of the members.",
            )
        time.sleep(0.02)


def _export(
    client: Client, sink: Sink, definition: Definition, options: Options, reading: ClientSession
) -> dict[str, Any]:
    """Write one collection's members; return its facts."""
    namespace, tally = definition.namespace, Tally()
    with sink.member(members.definition_of(namespace)) as out:
        write_all(out, members.definition_bytes(options.tier, definition))
    if definition.kind != VIEW:
        collection = client[definition.database][definition.name]
        with (
            sink.member(members.documents_of(namespace)) as out,
            collection.find_raw_batches(
                batch_size=_BATCH, session=reading, no_cursor_timeout=True
            ) as cursor,
        ):
            for batch in cast("Iterator[bytes]", cursor):
                raws = documents.split(batch)
                for raw in raws:
                    tally.add(raw)
                write_all(out, b"".join(documents.line(raw, namespace=namespace) for raw in raws))
        log.info("%s: %d documents exported", namespace, tally.count)
    return {
        "documents": tally.count,
        "digest": tally.digest,
        # As text: a manifest sorts its keys, and the order of an index's keys is its meaning.
        "definition": json.dumps(definition.document()),
    }


def _took_too_long(client: Client, endpoint: Endpoint) -> ConfigurationError:
    try:
        answer = client.admin.command("getParameter", 1, minSnapshotHistoryWindowInSeconds=1)
        kept = f"{answer['minSnapshotHistoryWindowInSeconds']} s"
    except OperationFailure:
        kept = "time"  # which this user may not ask
    return ConfigurationError(
        f"The export took longer than the {kept} for which {endpoint.label} keeps its snapshots",
        remedy="Have it keep them longer than an export takes: db.adminCommand({setParameter: 1, "
        "minSnapshotHistoryWindowInSeconds: 3600}); its cache holds what changes meanwhile. Or "
        "divide the tier into several sources.",
        server=endpoint.label,
    )
