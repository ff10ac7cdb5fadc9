"""The parts of the MongoDB engine that need no server: names, framing, operations, definitions."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import json_util
from bson.raw_bson import RawBSONDocument
from hypothesis import given
from hypothesis import strategies as some

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines.mongodb import catalog, frames, layout
from neuroca_backup.engines.mongodb.catalog import COLLECTION, TIMESERIES, VIEW, Definition
from neuroca_backup.engines.mongodb.history import History
from neuroca_backup.engines.mongodb.operations import Operation, Transactions
from neuroca_backup.errors import (
    AccessDeniedError,
    ChainBrokenError,
    ConfigurationError,
    DamagedError,
    IncompatibleVersionError,
)
from neuroca_backup.model.endpoint import Endpoint

A, B = "aa" * 16, "bb" * 16
MARK = "0123456789ab"


def ui(uuid: str) -> bson.Binary:
    return bson.Binary(bytes.fromhex(uuid), 4)


def entry(kind: str, namespace: str, body: dict[str, Any], **words: Any) -> RawBSONDocument:
    found = {
        "op": kind,
        "ns": namespace,
        "o": body,
        "ts": bson.Timestamp(words.pop("at", 1), 1),
        "wall": datetime(2026, 1, 1, tzinfo=UTC),
        **words,
    }
    return RawBSONDocument(bson.encode(found))


def fed(*entries: RawBSONDocument) -> list[Operation]:
    transactions = Transactions()
    return [one for each in entries for one in transactions.feed(each)]


@pytest.mark.parametrize(
    ("database", "collection", "taken"),
    [
        ("db", "items", True),
        ("db", "system.js", True),
        ("db", "system.profile", False),
        ("db", "system.views", False),
        ("db", "system.buckets.series", True),
        ("db", f"restoring_{MARK}_{A}", False),
        ("db", f"system.buckets.restoring_{MARK}_{A}", False),
        ("db", f"before_{MARK}_items", True),
        ("admin", "system.users", True),
        ("admin", "system.roles", True),
        ("admin", "system.version", True),
        ("admin", "system.keys", False),
        ("admin", "items", True),
    ],
)
def test_what_is_backed_up(database: str, collection: str, *, taken: bool) -> None:
    assert layout.takes_collection(database, collection) is taken
    assert not any(layout.takes_database(name) for name in ("local", "config", layout.JOURNAL))


def test_file_names_are_those_of_mongodump() -> None:
    assert layout.data_member("db", "a/b c%d") == "db/a%2Fb%20c%25d.bson"
    assert layout.metadata_member("db", "é&+=:@") == "db/%C3%A9&+=:@.metadata.json"
    name = layout.data_member("db", "x" * 250).removeprefix("db/")
    # The first 208 bytes, an escaped dollar sign and the SHA-1 of the name in base64.
    assert name.startswith("x" * 208 + "%24")
    assert len(name) == len(".bson") + 238


def test_metadata_is_canonical_extended_json() -> None:
    definition = Definition("db", "items", COLLECTION, uuid=A, options={"max": bson.Int64(5)})
    words = catalog.metadata(definition, [{"v": 2, "key": {"_id": 1}, "name": "_id_"}]).decode()
    assert '"max": {"$numberLong": "5"}' in words
    found = json_util.loads(words)
    assert (found["uuid"], found["collectionName"], found["type"]) == (A, "items", "collection")
    view = Definition("db", "view", VIEW, options={"viewOn": "items", "pipeline": []})
    assert "uuid" not in json_util.loads(catalog.metadata(view, []))


@given(
    some.lists(some.binary(max_size=300), max_size=30),
    some.integers(min_value=1, max_value=2000),
)
def test_documents_come_out_of_a_stream_as_they_went_in(parts: list[bytes], size: int) -> None:
    documents = [bson.encode({"data": part}) for part in parts]
    stream = io.BytesIO(b"".join(documents))
    found = [
        bytes(one)
        for batch in frames.batches(stream, name="x", size=size)
        for one in frames.split(batch, name="x")
    ]
    assert found == documents


def test_a_stream_that_is_cut_or_not_bson_is_damage_that_names_the_member() -> None:
    document = bson.encode({"data": b"x" * 100})
    for data in (
        document[:-1],
        document + document[:3],
        document + b"\x01\x00\x00\x00",
        b"\xff\xff\xff\x7f" + document,
        document[:-1] + b"\x01",
    ):
        with pytest.raises(DamagedError, match=r"db/x\.bson"):
            list(frames.documents(io.BytesIO(data), name="db/x.bson"))


def test_a_digest_does_not_depend_on_the_order_but_on_every_byte() -> None:
    def digest(*documents: bytes) -> str | None:
        tally = frames.Tally(digests=True)
        for document in documents:
            tally.add(document)
        return tally.digest

    assert digest(b"a", b"b") == digest(b"b", b"a")
    assert len({digest(), digest(b"a"), digest(b"a", b"a"), digest(b"aa"), digest(b"b")}) == 5


def test_operations_of_a_transaction_take_effect_with_its_last_entry() -> None:
    session_id = {"lsid": {"id": ui(A)}, "txnNumber": bson.Int64(1)}

    def part(number: int, **words: Any) -> dict[str, Any]:
        inner = {"op": "i", "ns": "db.a", "ui": ui(A), "o": {"_id": number}}
        return {"applyOps": [inner], **words}

    found = fed(
        entry("c", "admin.$cmd", part(1, partialTxn=True), at=1, **session_id),
        entry("i", "db.a", {"_id": "other"}, at=2, ui=ui(A)),
        entry("c", "admin.$cmd", part(2), at=3, **session_id),
    )
    assert [(one.body["_id"], one.ts.time) for one in found] == [("other", 2), (1, 3), (2, 3)]
    prepared = entry("c", "admin.$cmd", part(3, prepare=True), at=4, **session_id)
    commit = entry("c", "admin.$cmd", {"commitTransaction": 1}, at=6, **session_id)
    abort = entry("c", "admin.$cmd", {"abortTransaction": 1}, at=6, **session_id)
    assert [one.ts.time for one in fed(prepared, commit)] == [6]
    assert fed(prepared, abort) == []
    assert len(fed(entry("c", "admin.$cmd", part(4), at=7))) == 1


def test_notes_and_index_builds_that_only_begin_are_no_operations() -> None:
    assert fed(entry("n", "", {"msg": "periodic noop"})) == []
    assert fed(entry("c", "db.$cmd", {"startIndexBuild": "a"}, ui=ui(A))) == []
    with pytest.raises(IncompatibleVersionError, match="importCollection"):
        fed(entry("c", "db.$cmd", {"importCollection": "db.a"}))


def after(*entries: RawBSONDocument, databases: frozenset[str] | None = None) -> dict[str, Any]:
    history = History(
        [
            Definition(
                "db", "a", COLLECTION, uuid=A, indexes={"x": {"key": {"x": 1}, "name": "x"}}
            ),
            Definition("db", "v", VIEW, options={"viewOn": "a", "pipeline": []}),
        ],
        databases=databases,
    )
    for operation in fed(*entries):
        history.apply(operation)
    return history.definitions


def command(body: dict[str, Any], uuid: str = A) -> RawBSONDocument:
    return entry("c", "db.$cmd", body, ui=ui(uuid))


def test_a_collection_keeps_its_uuid_through_renames_and_drops() -> None:
    renamed = after(command({"renameCollection": "db.a", "to": "db.b", "stayTemp": False}))
    assert {name: one.uuid for name, one in renamed.items()} == {"db.b": A, "db.v": ""}
    over = after(
        command({"create": "b"}, B),
        command({"renameCollection": "db.a", "to": "db.b", "dropTarget": ui(B)}),
    )
    assert {one.uuid for one in over.values()} == {A, ""}
    assert set(after(command({"drop": "a"}))) == {"db.v"}
    assert after(entry("c", "db.$cmd", {"dropDatabase": 1})) == {}
    again = after(command({"drop": "a"}), command({"create": "a", "capped": True, "size": 9}, B))
    assert (again["db.a"].uuid, again["db.a"].capped) == (B, True)


def test_a_name_that_comes_from_a_staged_collection_breaks_the_chain() -> None:
    staged = f"db.restoring_{MARK}_{B}"
    with pytest.raises(ChainBrokenError, match="restore in place"):
        after(command({"renameCollection": staged, "to": "db.b"}, B))


def test_databases_that_were_not_chosen_are_not_followed() -> None:
    other = entry("c", "other.$cmd", {"create": "b"}, ui=ui(B))
    assert "other.b" in after(other)
    assert "other.b" not in after(other, databases=frozenset({"db"}))
    assert "db.b" not in after(command({"create": "system.views"}, B), command({"create": "x"}, B))


def test_indexes_and_options_change_as_the_oplog_says() -> None:
    spec = {"v": 2, "key": {"y": 1}, "name": "y", "expireAfterSeconds": 5}
    found = after(
        command({"commitIndexBuild": "a", "indexes": [spec]}),
        command({"collMod": "a", "index": {"name": "y", "expireAfterSeconds": 9}}),
        command({"collMod": "a", "index": {"name": "x", "hidden": True}}),
        command({"collMod": "a", "validator": {"x": 1}}),
    )["db.a"]
    assert found.indexes["y"]["expireAfterSeconds"] == 9
    assert found.indexes["x"]["hidden"] is True
    assert found.options["validator"] == {"x": 1}
    dropped = after(command({"dropIndexes": "a", "index": "x"}))["db.a"]
    assert dropped.indexes == {}
    left = after(command({"collMod": "a", "validator": {}}))["db.a"].options
    assert left == {"validationLevel": "strict", "validationAction": "error"}


def test_views_and_time_series_are_followed_through_the_collections_they_are_made_of() -> None:
    series = {"timeseries": {"timeField": "t"}, "clusteredIndex": True, "validator": {}}
    found = after(
        command({"create": "system.buckets.s", **series}, B),
        entry("i", "db.system.views", {"_id": "db.s", "viewOn": "system.buckets.s"}),
        entry("i", "db.system.views", {"_id": "db.w", "viewOn": "a", "pipeline": []}),
        entry("d", "db.system.views", {"_id": "db.v"}),
    )
    assert {name: one.kind for name, one in found.items()} == {
        "db.a": COLLECTION,
        "db.s": TIMESERIES,
        "db.w": VIEW,
    }
    assert found["db.s"].options == {"timeseries": {"timeField": "t"}}
    assert found["db.s"].stored_in == "system.buckets.s"


def test_definitions_pass_through_a_manifest_unchanged() -> None:
    spec = {"v": 2, "key": {"b": -1, "a": 1}, "name": "ba", "partialFilterExpression": {"x": 1.5}}
    one = Definition("db", "a.b", COLLECTION, uuid=A, options={"size": 5}, indexes={"ba": spec})
    again = Definition.of(one.namespace, one.facts())
    assert again == one
    turned = {**spec, "key": {"a": 1, "b": -1}}
    other = Definition("db", "a.b", COLLECTION, uuid=A, options={"size": 5}, indexes={"ba": turned})
    assert catalog.words(other) != catalog.words(one)


def test_the_words_of_airflows_connection_are_understood() -> None:
    base = Endpoint("mongo", "db1,db2:27018", 27017, "ann", "secret", "people")
    found = session._parameters(base)
    assert found["host"] == ["db1:27017", "db2:27018"]
    assert (found["username"], found["authSource"]) == ("ann", "people")
    extra = {"ssl": "true", "allow_insecure": True, "authSource": "admin"}
    found = session._parameters(Endpoint("mongo", "db1", None, "ann", "x", "people", extra))
    assert found["tls"] is True
    assert found["tlsAllowInvalidCertificates"] is True
    assert found["authSource"] == "admin"
    found = session._parameters(Endpoint("mongo", "cluster.example", extra={"srv": True}))
    assert found["host"] == "mongodb+srv://cluster.example/"
    with pytest.raises(ConfigurationError, match="surprise"):
        session._parameters(Endpoint("mongo", "db1", extra={"surprise": 1}))


def test_an_error_never_shows_the_password() -> None:
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - one test

    endpoint = Endpoint("mongo", "db1", 27017, "ann", "hunter22")
    with pytest.raises(AccessDeniedError) as caught, session.translated(endpoint):
        raise OperationFailure("hunter22 is wrong", 18, {"errmsg": "hunter22 is wrong"})
    assert "hunter22" not in str(caught.value)
    assert caught.value.__cause__ is None
