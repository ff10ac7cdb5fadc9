"""Facts of a MongoDB server: what is counted at the dump and compared after a restore.

On a replica set they are read in the snapshot of the dump's end, so they are exact however busy
the server is: https://www.mongodb.com/docs/manual/reference/read-concern-snapshot/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bson import CodecOptions, Timestamp
from bson.raw_bson import RawBSONDocument

from neuroca_backup.engines import Difference
from neuroca_backup.engines.mongodb import catalog, frames
from neuroca_backup.engines.mongodb.catalog import VIEW, Definition

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client, Database

SNAPSHOT_SINCE = (5, 0)
# What the server answers when it cannot give that moment: the collection did not exist then, was
# redefined since, is capped, or the history has been thrown away (five minutes, as a rule).
NO_SNAPSHOT = frozenset({26, 239, 246})
_RAW = CodecOptions(document_class=RawBSONDocument)
_BATCH = 5_000


def measure(
    client: Client,
    database: str,
    name: str,
    *,
    at: Timestamp | None,
    checksums: bool,
) -> dict[str, Any]:
    """Return `documents` and `digest` (None without `checksums`) of one collection.

    `at` is the moment on a replica set; None reads what is there now.

    Raises:
        pymongo.errors.OperationFailure: With a code of `NO_SNAPSHOT` where `at` cannot be had.
    """
    concern: dict[str, Any] = (
        {} if at is None else {"readConcern": {"level": "snapshot", "atClusterTime": at}}
    )
    if not checksums:
        answer = client[database].command(
            {
                "aggregate": name,
                "pipeline": [{"$group": {"_id": None, "n": {"$sum": 1}}}],
                "cursor": {},
                **concern,
            }
        )
        batch = answer["cursor"]["firstBatch"]
        return {"documents": int(batch[0]["n"]) if batch else 0, "digest": None}
    tally = frames.Tally(digests=True)
    for document in _documents(client, client[database], name, concern):
        tally.add(document.raw)
    return {"documents": tally.documents, "digest": tally.digest}


def _documents(
    client: Client, database: Database, name: str, concern: Mapping[str, Any]
) -> Iterator[RawBSONDocument]:
    # The driver's snapshot sessions choose the moment themselves, so the commands are sent here.
    with client.start_session(causal_consistency=False) as session:
        command: dict[str, Any] = {"find": name, "batchSize": _BATCH, "noCursorTimeout": True}
        answer = database.command({**command, **concern}, session=session, codec_options=_RAW)
        cursor = answer["cursor"]
        number, left = cursor["id"], cursor["firstBatch"]
        try:
            while True:
                yield from left
                if not number:
                    return
                answer = database.command(
                    {"getMore": number, "collection": name, "batchSize": _BATCH},
                    session=session,
                    codec_options=_RAW,
                )
                number, left = answer["cursor"]["id"], answer["cursor"]["nextBatch"]
        finally:
            if number:
                database.command({"killCursors": name, "cursors": [number]}, session=session)


def differences(
    expected: Mapping[str, Any], found: Mapping[str, Any] | None, definition: Definition
) -> Iterator[Difference]:
    """Yield every way in which `found` is not `expected`, the facts of one collection."""
    what = definition.namespace
    if found is None:
        yield Difference(what, f"a {definition.kind}", "nothing of that name")
        return
    theirs = Definition.of(what, found)
    if theirs.kind != definition.kind:
        yield Difference(f"{what}: type", definition.kind, theirs.kind)
    if catalog.words(definition) != catalog.words(theirs):
        yield Difference(f"{what}: definition", catalog.words(definition), catalog.words(theirs))
    if definition.kind == VIEW or not expected["exact"]:
        return
    if expected["documents"] != found["documents"]:
        yield Difference(f"{what}: documents", str(expected["documents"]), str(found["documents"]))
    elif expected["digest"] is not None and expected["digest"] != found["digest"]:
        yield Difference(f"{what}: digest", str(expected["digest"]), str(found["digest"]))
