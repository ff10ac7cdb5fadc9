"""The structure of a dump, read without a server: level PARSED."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from bson import InvalidBSON, Timestamp, json_util
from bson.raw_bson import RawBSONDocument

from neuroca_backup.engines.mongodb import frames, layout, oplog
from neuroca_backup.errors import DamagedError
from neuroca_backup.model.manifest import Manifest

_REMEDY = "Restore from another store or another backup."
_METADATA_BYTES = 64 * 1024 * 1024


def check(manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
    """Walk through every member to its end.

    Raises:
        DamagedError: A member is missing, is not what it should be, or holds another number of
            documents than the manifest says; or the oplog does not reach from where it should to
            where it should.
    """
    names = {member.name for member in manifest.members}
    counted: Mapping[str, Any] = manifest.dump.facts["members"]
    consistency = manifest.dump.consistency
    needed = {*counted, *manifest.dump.facts["definitions"]}
    if "ts" in consistency:
        needed.add(layout.OPLOG)
    for name in sorted(needed - names):
        raise _damaged(name, "is not in the backup")
    for name in sorted(names):
        with open_member(name) as stream:
            if name == layout.OPLOG:
                _check_oplog(stream, consistency, full=manifest.kind == "full")
            elif name.endswith(".metadata.json"):
                _check_metadata(stream, name)
            else:
                _check_documents(stream, name, counted)


def _check_documents(stream: BinaryIO, name: str, counted: Mapping[str, Any]) -> None:
    if name not in counted:
        raise _damaged(name, "is not one of the members that the manifest counts")
    found = sum(_readable(document, name) for document in frames.documents(stream, name=name))
    if found != counted[name]["documents"]:
        raise _damaged(name, f"holds {found} documents instead of {counted[name]['documents']}")


def _readable(document: bytes, name: str) -> int:
    try:
        if "_id" not in RawBSONDocument(document):
            raise _damaged(name, "holds a document without _id")
    except InvalidBSON as error:
        raise _damaged(name, f"holds a document that is not BSON ({error})") from None
    return 1


def _check_metadata(stream: BinaryIO, name: str) -> None:
    data = stream.read(_METADATA_BYTES)
    while more := stream.read(_METADATA_BYTES - len(data)):
        data += more
    try:
        found = json_util.loads(data.decode())
        whole = isinstance(found["options"], dict) and isinstance(found["indexes"], list)
        named = isinstance(found["collectionName"], str)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(name, f"is not the metadata of a collection ({error})") from None
    if not (whole and named):
        raise _damaged(name, "is not the metadata of a collection")


def _check_oplog(stream: BinaryIO, consistency: Mapping[str, str], *, full: bool) -> None:
    begin, end = oplog.parsed(consistency["from"]), oplog.parsed(consistency["ts"])
    first: Timestamp | None = None
    entry: RawBSONDocument | None = None
    last = Timestamp(0, 0)
    for document in frames.documents(stream, name=layout.OPLOG):
        entry = RawBSONDocument(document)
        try:
            ts = entry["ts"]
            complete = {"op", "ns", "o", "wall"} <= entry.keys()
        except (InvalidBSON, KeyError) as error:
            raise _damaged(layout.OPLOG, f"holds an entry that is not one ({error})") from None
        if not complete:
            raise _damaged(layout.OPLOG, f"holds an incomplete entry at {oplog.text(ts)}")
        if ts <= last:
            raise _damaged(layout.OPLOG, f"is out of order at {oplog.text(ts)}")
        first, last = first or ts, ts
    if first is None or entry is None:
        raise _damaged(layout.OPLOG, "holds no entry")
    if first > begin or (not full and first != begin):
        raise _damaged(layout.OPLOG, f"begins at {oplog.text(first)}, not at {oplog.text(begin)}")
    if last != end or oplog.point(entry).entry != consistency["entry"]:
        raise _damaged(layout.OPLOG, f"ends at {oplog.text(last)}, not with {oplog.text(end)}")


def _damaged(name: str, what: str) -> DamagedError:
    return DamagedError(f"{name} {what}", remedy=_REMEDY, key=name)
