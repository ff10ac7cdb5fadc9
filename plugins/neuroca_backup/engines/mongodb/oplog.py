"""The oplog of the source: moments in it, and the entries between two of them.

Only what a majority of the replica set has is captured: nothing of it can be rolled back.
https://www.mongodb.com/docs/manual/core/replica-set-oplog/
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import pymongo
from bson import Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern

from neuroca_backup.engines.mongodb import frames, layout
from neuroca_backup.errors import ChainBrokenError, TransientError

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client

_MAJORITY_SECONDS = 60
_CUT_OFF_SECONDS = 20
_CAPPED_POSITION_LOST = 136
Found = TypeVar("Found")
_FULL_REMEDY = "Take a full backup; the next incremental ones continue that."


@dataclass(frozen=True, slots=True)
class Point:
    """One entry of an oplog: its timestamp, a SHA-256 of its bytes, and a time.

    The time is its own, or a later one by which nothing more had been acknowledged.
    """

    ts: Timestamp
    time: datetime
    entry: str

    def consistency(self) -> dict[str, str]:
        """Return the words of a manifest for a dump that ends here."""
        return {"time": self.time.isoformat(), "ts": text(self.ts), "entry": self.entry}


def text(ts: Timestamp) -> str:
    """Return a timestamp as `seconds.increment`."""
    return f"{ts.time}.{ts.inc}"


def parsed(words: str) -> Timestamp:
    """Return the timestamp that `text` wrote."""
    seconds, increment = words.split(".")
    return Timestamp(int(seconds), int(increment))


def start(client: Client) -> Timestamp:
    """Return the entry at which the window of a full dump has to begin.

    A transaction that is open now may have written its first entries already.
    """
    now: Timestamp = client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"]
    oldest = client["config"]["transactions"].find_one(
        {"state": {"$in": ["prepared", "inProgress"]}}, sort=[("startOpTime.ts", 1)]
    )
    if oldest and oldest.get("startOpTime"):
        begun: Timestamp = oldest["startOpTime"]["ts"]
        return min(now, begun)
    return now


def settled(client: Client) -> Point:
    """Return the newest entry, once a majority has it: all that was acknowledged is before it.

    Raises:
        TransientError: The majority did not follow in a minute.
    """
    # Asked for first: whatever was acknowledged by this time is not after the newest entry.
    asked = client.admin.command("hello")["localTime"].replace(tzinfo=UTC)
    newest = client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    deadline = time.monotonic() + _MAJORITY_SECONDS
    while client.admin.command("hello")["lastWrite"]["majorityOpTime"]["ts"] < newest:
        if time.monotonic() > deadline:
            raise TransientError(
                f"The majority of the replica set is more than {_MAJORITY_SECONDS} s behind",
                remedy="It is tried again; look at the replication lag of the members.",
            )
        time.sleep(0.02)
    found = _entry(client, newest)
    if found is None:
        raise TransientError(
            f"The entry {text(newest)} is no longer in the oplog: a primary was replaced",
            remedy="It is tried again.",
        )
    end = point(found)
    return dataclasses.replace(end, time=max(end.time, asked))


def point(entry: RawBSONDocument) -> Point:
    """Return the moment of one entry."""
    return Point(
        ts=entry["ts"],
        time=_wall(entry),
        entry=hashlib.sha256(entry.raw).hexdigest(),
    )


def require_continued(client: Client, consistency: Mapping[str, str]) -> Timestamp:
    """Return the timestamp at which a parent ended, if its last entry is still in this oplog.

    Raises:
        ChainBrokenError: It has rolled over, was rolled back, or is the oplog of another set.
    """
    ended = parsed(consistency["ts"])
    found = _entry(client, ended)
    if found is not None and point(found).entry == consistency["entry"]:
        return ended
    oldest = _steady(lambda: client.local["oplog.rs"].find_one(sort=[("$natural", 1)]))
    if oldest is not None and oldest["ts"] > ended:
        raise ChainBrokenError(
            f"The oplog begins at {oldest['ts'].as_datetime().isoformat()}, after the parent's end "
            f"({consistency['time']}): it has rolled over",
            remedy=f"{_FULL_REMEDY} Enlarge the oplog (replSetResizeOplog) or shorten the interval "
            "between incremental backups.",
            oldest=text(oldest["ts"]),
            parent_end=consistency["ts"],
        )
    raise ChainBrokenError(
        f"The parent's last entry, {consistency['ts']}, is not in this oplog: it was rolled back "
        "after a failover, or this is another replica set",
        remedy=f"Check the connection. {_FULL_REMEDY}",
        parent_end=consistency["ts"],
    )


def write(
    client: Client,
    out: BinaryIO,
    *,
    after: Timestamp,
    until: Timestamp,
    inclusive: bool,
    seen: Callable[[RawBSONDocument], None],
) -> None:
    """Write the entries from `after` (with it if `inclusive`) up to and with `until`.

    `seen` is told of each one.

    Raises:
        TransientError: The first or the last of them is not there: the oplog has rolled over
            meanwhile, or the primary was replaced.
    """
    first = last = None
    for entry in _between(client, after, until, inclusive=inclusive):
        first = first or entry["ts"]
        last = entry["ts"]
        seen(entry)
        out.write(entry.raw)
    if (inclusive and first != after) or until not in {last, after}:
        raise TransientError(
            f"The oplog no longer holds all entries from {text(after)} to {text(until)}",
            remedy="It is tried again. If it repeats, enlarge the oplog (replSetResizeOplog): it "
            "has to hold more than is written during a dump.",
        )


def later(client: Client, ts: Timestamp) -> Iterator[RawBSONDocument]:
    """Yield what the oplog holds after `ts` by now."""
    newest = client.admin.command("hello")["lastWrite"]["opTime"]["ts"]
    return _between(client, ts, newest, inclusive=False)


def _between(
    client: Client, low: Timestamp, high: Timestamp, *, inclusive: bool
) -> Iterator[RawBSONDocument]:
    oplog = client.local.get_collection("oplog.rs", read_concern=ReadConcern("local"))
    with oplog.find_raw_batches(
        {"ts": {"$gte" if inclusive else "$gt": low, "$lte": high}},
        cursor_type=pymongo.CursorType.EXHAUST,
        no_cursor_timeout=True,
    ) as cursor:
        for batch in cast("Iterator[bytes]", cursor):
            for document in frames.split(batch, name=layout.OPLOG):
                yield RawBSONDocument(bytes(document))


def _entry(client: Client, ts: Timestamp) -> RawBSONDocument | None:
    return _steady(lambda: next(_between(client, ts, ts, inclusive=True), None))


def _steady(look: Callable[[], Found]) -> Found:
    """Return what a look into the oplog finds, looking again when the place was cut off meanwhile.

    A busy server removes the oldest entries under a reader that has not moved on yet.
    """
    deadline = time.monotonic() + _CUT_OFF_SECONDS
    while True:
        try:
            return look()
        except OperationFailure as error:
            if error.code != _CAPPED_POSITION_LOST or time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _wall(entry: Mapping[str, Any]) -> datetime:
    wall: datetime = entry["wall"]
    return wall.replace(tzinfo=UTC)
