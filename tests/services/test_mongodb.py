"""MongoDB end to end: what is dumped from one real server is what a second one gets back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import bson
import pymongo
import pytest
from bson import json_util

from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.mongodb import ENGINE, chain
from neuroca_backup.engines.mongodb.journal import Journal
from neuroca_backup.errors import (
    AccessDeniedError,
    ChainBrokenError,
    ConfigurationError,
    EmptySourceError,
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.sandbox.mongod import MongoServer
from neuroca_backup.sandbox.state import State
from neuroca_backup.services.pipeline import SpoolSink
from support.engines.mongodb import connected
from support.mongo import Dumped, bring_back, restorable, take

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

NAME = "mongodb_test"
WEIRD = "wéird/name %41 ü&+=:@;,?'()*!"
LONG = "é" * 90
Client = pymongo.MongoClient[dict[str, Any]]


@pytest.fixture
def source(mongodb: Endpoint) -> Iterator[Client]:
    with connected(mongodb) as client:
        client.drop_database(NAME)
        yield client
        client.drop_database(NAME)


@pytest.fixture
def target(mongodb_twin: Endpoint) -> Iterator[Client]:
    with connected(mongodb_twin) as client:
        for name in (NAME, "neuroca_restore"):
            client.drop_database(name)
        yield client
        for name in (NAME, "neuroca_restore"):
            client.drop_database(name)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[[MongoServer], Endpoint]]:
    root = tmp_path / "servers"
    yield lambda server: sandbox.launch(root, server)
    sandbox.stop(root)


def everything(database: pymongo.database.Database[dict[str, Any]]) -> dict[str, Any]:
    """Return all definitions and documents, in their order where that is their meaning."""
    found: dict[str, Any] = {}
    for one in database.list_collections():
        name = one["name"]
        if name == "system.views" or name.startswith(("before_", "system.buckets.before_")):
            continue
        documents: list[Any] = list(
            database[name].find(sort=None if name == "log" else [("_id", 1)])
        )
        if "viewOn" in one["options"]:
            documents.sort(key=str)
        indexes = [] if one["type"] == "view" else list(database[name].list_indexes())
        found[name] = (
            json_util.dumps([one["options"], one["type"]]),
            json_util.dumps(sorted(indexes, key=lambda index: str(index["name"]))),
            documents,
        )
    return dict(sorted(found.items()))


def fill(database: pymongo.database.Database[dict[str, Any]]) -> None:
    """Make one collection of every kind, and every kind of index."""
    plain = database["plain"]
    plain.insert_many(
        {"_id": n, "x": n % 7, "s": f"words {n}", "place": [n % 90, n % 45], "d": {"e": n}}
        for n in range(500)
    )
    plain.insert_one({"_id": "nothing", "empty": bson.Timestamp(0, 0)})
    plain.update_one({"_id": "nothing"}, {"$set": {"empty": bson.Timestamp(0, 0)}})
    plain.create_index("s", unique=True, sparse=True)
    plain.create_index([("x", 1), ("s", -1)], partialFilterExpression={"x": {"$gt": 3}}, name="p")
    plain.create_index([("s", "text")], default_language="none")
    plain.create_index([("place", "2dsphere")])
    plain.create_index([("x", "hashed")])
    plain.create_index([("d.$**", 1)])
    plain.create_index("d.e", hidden=True, collation={"locale": "fr"})
    database.create_collection(
        "checked",
        validator={"$jsonSchema": {"required": ["name"]}},
        validationAction="warn",
        collation={"locale": "en", "strength": 2},
    ).insert_many([{"name": "a"}, {"nameless": 1}])
    old = datetime(2001, 1, 1, tzinfo=UTC)
    expiring = database["expiring"]
    expiring.insert_many({"_id": n, "at": old + timedelta(days=36500)} for n in range(20))
    expiring.create_index("at", expireAfterSeconds=60)
    log = database.create_collection("log", capped=True, size=10_000, max=50)
    log.insert_many({"_id": -n} for n in range(120))
    series = database.create_collection(
        "series",
        timeseries={"timeField": "at", "metaField": "who", "granularity": "minutes"},
        expireAfterSeconds=10**9,
    )
    series.insert_many(
        {"at": datetime.now(UTC) - timedelta(minutes=n), "who": n % 5, "v": n} for n in range(300)
    )
    series.create_index([("who", 1), ("at", 1)])
    database.create_collection(
        "clustered", clusteredIndex={"key": {"_id": 1}, "unique": True}
    ).insert_many({"_id": n} for n in range(30))
    database.create_collection("view", viewOn="plain", pipeline=[{"$match": {"x": 3}}])
    database.create_collection("of_view", viewOn="empty", pipeline=[], collation={"locale": "de"})
    database.create_collection("empty")
    database[WEIRD].insert_one({"_id": 1})
    database[LONG].insert_one({"_id": 1})
    database["system.js"].insert_one({"_id": "twice", "value": bson.Code("function(n) {}")})


def test_every_kind_of_collection_and_index_survives(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    fill(source[NAME])
    before = everything(source[NAME])
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    assert not [note for note in made.manifest.dump.notes if "Not counted" in note]
    source[NAME]["plain"].delete_many({})
    bring_back(restorable([made]), mongodb_twin)
    after = everything(target[NAME])
    assert list(after) == list(before)
    for name, found in after.items():
        assert found == before[name], name
    assert len(after["log"][2]) == 50
    assert after["plain"][2][-1]["empty"] == bson.Timestamp(0, 0)


def test_the_layout_is_the_one_of_mongodump(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    fill(source[NAME])
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    names = {member.name for member in made.manifest.members}
    escaped = "w%C3%A9ird%2Fname%20%2541%20%C3%BC&+=:@%3B%2C%3F%27%28%29%2A%21"
    assert names >= {
        "oplog.bson",
        "admin/system.users.bson",
        "admin/system.roles.bson",
        "admin/system.version.bson",
        f"{NAME}/plain.bson",
        f"{NAME}/plain.metadata.json",
        f"{NAME}/view.metadata.json",
        f"{NAME}/system.buckets.series.bson",
        f"{NAME}/series.metadata.json",
        f"{NAME}/{escaped}.bson",
    }
    assert not names & {f"{NAME}/view.bson", f"{NAME}/series.bson", f"{NAME}/system.views.bson"}
    assert max(len(Path(name).name.encode()) for name in names) <= 255
    assert not [name for name in names if name.startswith(("local/", "config/"))]
    found = json_util.loads((made.files / NAME / "series.metadata.json").read_text())
    assert (found["type"], found["collectionName"]) == ("timeseries", "series")
    assert found["options"]["timeseries"]["timeField"] == "at"
    found = json_util.loads((made.files / NAME / "plain.metadata.json").read_text())
    assert next(one["name"] for one in found["indexes"]) == "_id_"
    assert len(found["uuid"]) == 32


def test_documents_that_have_expired_are_there_until_they_are_compared(
    mongodb: Endpoint,
    source: Client,
    tmp_path: Path,
    own_server: Callable[[MongoServer], Endpoint],
) -> None:
    eager = own_server(MongoServer(kind="eager", parameters=("ttlMonitorSleepSecs=1",)))
    source.admin.command("setParameter", 1, ttlMonitorEnabled=False)
    try:
        old = datetime(2001, 1, 1, tzinfo=UTC)
        source[NAME]["expired"].create_index("at", expireAfterSeconds=1)
        source[NAME]["expired"].insert_many({"at": old} for _ in range(10))
        made = take(mongodb, tmp_path / "full", databases=[NAME])
    finally:
        source.admin.command("setParameter", 1, ttlMonitorEnabled=True)
    place, backup = RestoreTarget(eager), restorable([made])
    ENGINE.load(backup, place)
    time.sleep(2.5)
    assert list(ENGINE.compare(backup, place)) == []
    ENGINE.publish(backup, place)
    with connected(eager) as client:
        deadline = time.monotonic() + 30
        while client[NAME]["expired"].count_documents({}):
            assert time.monotonic() < deadline, "the index does not expire documents any more"
            time.sleep(0.1)


def test_users_and_roles_come_back_and_those_that_exist_stay(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    def forget(client: Client) -> None:
        for user in ("ann", "bob"):
            client.admin["system.users"].delete_many({"user": user})
        client.admin["system.roles"].delete_many({"role": "watcher"})

    try:
        source[NAME]["items"].insert_one({})
        source.admin.command("createRole", "watcher", privileges=[], roles=["read"])
        source.admin.command("createUser", "ann", pwd="first", roles=["watcher"])
        source.admin.command("createUser", "bob", pwd="source", roles=[])
        target.admin.command("createUser", "bob", pwd="twin", roles=[])
        made = take(mongodb, tmp_path / "full", databases=[NAME])
        notes = bring_back(restorable([made]), mongodb_twin)
        assert any(note.startswith("Users created: ") and "ann" in note for note in notes), notes
        assert any(note.startswith("Users left as they were: ") for note in notes)
        for user, password in (("ann", "first"), ("bob", "twin")):
            login = {"username": user, "password": password}
            with pymongo.MongoClient(mongodb_twin.host, mongodb_twin.port, **login) as client:
                client.admin.command("ping")
        bring_back(restorable([made]), mongodb_twin, replace=True)
        with pymongo.MongoClient(
            mongodb_twin.host, mongodb_twin.port, username="bob", password="source"
        ) as client:
            client.admin.command("ping")
        target.admin.command("ping")
    finally:
        forget(source)
        forget(target)


def test_one_collection_alone_is_restored(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    fill(source[NAME])
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    target[NAME]["plain"].insert_one({"_id": "another"})
    bring_back(restorable([made], only=(f"{NAME}.checked",)), mongodb_twin)
    assert target[NAME]["checked"].count_documents({}) == 2
    assert target[NAME]["plain"].distinct("_id") == ["another"]
    assert set(target[NAME].list_collection_names()) == {"checked", "plain"}
    with pytest.raises(ConfigurationError, match="nowhere"):
        ENGINE.preflight(restorable([made], only=("nowhere",)), RestoreTarget(mongodb_twin))


def test_what_is_replaced_is_kept_beside_and_nothing_is_lost(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    fill(source[NAME])
    before = everything(source[NAME])
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    backup = restorable([made])
    bring_back(backup, mongodb_twin)
    target[NAME]["plain"].insert_one({"_id": "newer"})
    target[NAME]["series"].insert_one({"at": datetime.now(UTC), "who": "newer"})
    target[NAME]["unknown"].insert_one({"_id": "newer"})
    target[NAME].drop_collection("view")
    target[NAME]["view"].insert_one({"_id": "newer"})
    with pytest.raises(TargetRefusedError):
        ENGINE.preflight(backup, RestoreTarget(mongodb_twin))
    notes = bring_back(backup, mongodb_twin, replace=True)
    assert any("unknown is kept as before_" in note for note in notes)
    after = everything(target[NAME])
    assert {name: after[name] for name in before} == before
    assert list(after) == list(before)
    kept = {
        name.split("_", 2)[2]: name
        for name in target[NAME].list_collection_names()
        if name.startswith("before_")
    }
    assert target[NAME][kept["series"]].count_documents({"who": "newer"}) == 1
    assert target[NAME][kept["series"]].count_documents({}) == 301
    for name in ("plain", "unknown", "view"):
        assert target[NAME][kept[name]].find_one({"_id": "newer"}), name


def test_a_publish_that_is_cut_off_at_any_step_is_completed_by_a_repeat(
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    source: Client,
    target: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = source[NAME]
    database["plain"].insert_one({"_id": 1})
    database.create_collection("series", timeseries={"timeField": "at"}).insert_one(
        {"at": datetime.now(UTC)}
    )
    database.create_collection("view", viewOn="plain", pipeline=[])
    before = everything(database)
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    backup, place = restorable([made]), RestoreTarget(mongodb_twin, replace=True)
    original = pymongo.database.Database.command
    step, cut = 0, True
    while cut:
        step += 1
        target.drop_database(NAME)
        target[NAME]["plain"].insert_one({"_id": "old"})
        target[NAME].create_collection("series", timeseries={"timeField": "at"}).insert_many(
            [{"at": datetime.now(UTC), "old": True}] * 2
        )
        target[NAME].create_collection("view", viewOn="series", pipeline=[])
        ENGINE.load(backup, place)
        calls, cut = 0, False

        def command(self: Any, given: Any, *rest: Any, at: int = step, **words: Any) -> Any:
            nonlocal calls, cut
            name = given if isinstance(given, str) else next(iter(given))
            if name in {"create", "renameCollection", "collMod", "createIndexes"}:
                calls += 1
                if calls == at:
                    cut = True
                    raise KeyboardInterrupt
            return original(self, given, *rest, **words)

        monkeypatch.setattr(pymongo.database.Database, "command", command)
        try:
            ENGINE.publish(backup, place)
        except KeyboardInterrupt:
            monkeypatch.setattr(pymongo.database.Database, "command", original)
            ENGINE.publish(backup, place)
        monkeypatch.setattr(pymongo.database.Database, "command", original)
        assert everything(target[NAME]) == before, step
        kept = [n for n in target[NAME].list_collection_names() if n.startswith("before_")]
        assert len(kept) == 3, step
        series = next(name for name in kept if name.endswith("series"))
        assert target[NAME][series].count_documents({"old": True}) == 2, step
        assert not [n for n in target[NAME].list_collection_names() if "restoring_" in n]
    assert step > 5


def test_a_load_that_was_killed_is_repeated_from_a_clean_start(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    source[NAME]["items"].insert_many({"_id": n, "state": bytes(2000)} for n in range(10_000))
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    (tmp_path / "manifest.json").write_text(made.manifest.model_dump_json())
    (tmp_path / "password").write_text(mongodb_twin.password)
    script = """
import json, pathlib, sys
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.mongodb import ENGINE
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest
root, files, port, user, extra = sys.argv[1:]
root = pathlib.Path(root)
manifest = Manifest.model_validate_json((root / "manifest.json").read_text())
endpoint = Endpoint("mongo", "127.0.0.1", int(port), user, (root / "password").read_text(),
                    extra=json.loads(extra))
backup = Restorable((manifest,), root / "work", (pathlib.Path(files),))
ENGINE.load(backup, RestoreTarget(endpoint))
"""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", script, str(tmp_path), str(made.files)),
            *(str(mongodb_twin.port), mongodb_twin.user),
            json_util.dumps(dict(mongodb_twin.extra)),
        ],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    deadline = time.monotonic() + 60
    half = 0
    while not 0 < half < 10_000:
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        for name in target[NAME].list_collection_names():
            half = target[NAME][name].estimated_document_count()
    process.send_signal(signal.SIGKILL)
    process.wait()
    place = RestoreTarget(mongodb_twin)
    assert list(ENGINE.compare(restorable([made]), place)) != []
    with pytest.raises(NotFoundError, match="nothing was loaded"):
        ENGINE.publish(restorable([made]), place)
    bring_back(restorable([made]), mongodb_twin)
    assert target[NAME].list_collection_names() == ["items"]
    assert target[NAME]["items"].count_documents({}) == 10_000


def test_a_batch_of_a_killed_load_that_arrives_late_is_dropped(
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    source: Client,
    target: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source[NAME]["items"].insert_many({"_id": n} for n in range(100))
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    begin = Journal.begin

    def and_then_a_batch_arrives(journal: Journal) -> None:
        begin(journal)
        wanted = chain.resolve(restorable([made]))
        for one in wanted.stored.values():
            target[one.database][wanted.staging(one)].insert_one({"_id": "late"})

    monkeypatch.setattr(Journal, "begin", and_then_a_batch_arrives)
    bring_back(restorable([made]), mongodb_twin)
    assert target[NAME]["items"].count_documents({}) == 100


def during(action: Callable[[], None], *, member: str) -> type[SpoolSink]:
    """Return a kind of sink that does something once `member` has begun to be written."""

    class Acting(SpoolSink):
        @contextmanager
        def member(self, name: str) -> Iterator[BinaryIO]:
            with super().member(name) as out:
                if name == member:
                    yield _Once(out, action)  # type: ignore[misc]
                else:
                    yield out

    return Acting


class _Once:
    def __init__(self, out: BinaryIO, action: Callable[[], None]) -> None:
        self._out, self._action = out, action
        self._done = False

    def write(self, data: bytes) -> int:
        written = self._out.write(data)
        if not self._done:
            self._done = True
            self._action()
        return written


def test_what_happens_to_collections_during_a_dump_is_what_its_end_shows(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    database = source[NAME]
    for name in ("a", "b", "c", "dropped", "again"):
        database[name].insert_many({"_id": n, "of": name} for n in range(100))
    database["log"].drop()
    database.create_collection("log", capped=True, size=4096, max=20).insert_many(
        {"_id": n} for n in range(50)
    )

    def change() -> None:
        database["a"].delete_many({"_id": {"$lt": 50}})
        database["a"].insert_many({"_id": n, "of": "a"} for n in range(500, 600))
        database["b"].update_many({}, {"$set": {"x": 1}, "$unset": {"of": 1}})
        database["b"].create_index("x", sparse=True)
        database["dropped"].drop()
        database["again"].drop()
        database["again"].insert_one({"_id": "second life"})
        database["c"].rename("renamed")
        database["c"].insert_one({"_id": "another c"})
        database["new"].insert_one({"_id": 1})
        database["log"].insert_many({"_id": n} for n in range(50, 65))
        database.create_collection("view", viewOn="a", pipeline=[])
        database.command("collMod", "a", validator={"of": "a"})

    # `a` is the first to be read, and one at a time: the rest is read after the changes or before.
    sink = during(change, member=f"{NAME}/b.bson")
    made = take(mongodb, tmp_path / "full", databases=[NAME], jobs=1, sink=sink)
    before = everything(database)
    assert any("was renamed to" in note for note in made.manifest.dump.notes)
    bring_back(restorable([made]), mongodb_twin)
    assert everything(target[NAME]) == before


def test_a_collection_that_is_renamed_while_it_is_read_makes_the_dump_start_again(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    source[NAME]["items"].insert_many({"_id": n, "state": bytes(5000)} for n in range(2000))
    sink = during(lambda: source[NAME]["items"].rename("other"), member=f"{NAME}/items.bson")
    with pytest.raises(TransientError):
        take(mongodb, tmp_path / "full", databases=[NAME], sink=sink)


def test_a_standalone_server_is_dumped_and_restored_whole_and_says_what_it_cannot(
    mongodb_twin: Endpoint,
    source: Client,
    target: Client,
    tmp_path: Path,
    mongodb: Endpoint,
    own_server: Callable[[MongoServer], Endpoint],
) -> None:
    alone = own_server(MongoServer(kind="standalone", replica_set=""))
    with connected(alone) as client:
        fill(client[NAME])
        client[NAME].drop_collection("log")
        before = everything(client[NAME])
        made = take(alone, tmp_path / "full", databases=[NAME])
        assert any("standalone" in note for note in made.manifest.dump.notes)
        with pytest.raises(ChainBrokenError, match="standalone"):
            take(alone, tmp_path / "more", after=[made], databases=[NAME])
        client[NAME]["plain"].insert_one({"_id": "later"})
        bring_back(restorable([made]), mongodb_twin)
        assert everything(target[NAME]) == before
        # And a dump with an oplog into a standalone server.
        client.drop_database(NAME)
        fill(source[NAME])
        source[NAME].drop_collection("log")
        sink = during(lambda: _touch(source[NAME]["plain"]), member=f"{NAME}/plain.bson")
        chain = [take(mongodb, tmp_path / "with", databases=[NAME], sink=sink)]
        _touch(source[NAME]["checked"])
        chain.append(take(mongodb, tmp_path / "and", after=chain, databases=[NAME]))
        bring_back(restorable(chain), alone)
        assert everything(client[NAME]) == everything(source[NAME])


def _touch(collection: pymongo.collection.Collection[dict[str, Any]]) -> None:
    collection.update_many({}, {"$set": {"touched": True}})


def test_a_server_that_dies_during_a_dump_is_an_error_that_a_retry_may_mend(
    tmp_path: Path, own_server: Callable[[MongoServer], Endpoint]
) -> None:
    made = own_server(MongoServer(kind="dying"))
    endpoint = replace(made, extra={**made.extra, "serverSelectionTimeoutMS": 1000})
    (entry,) = State.read(tmp_path / "servers").entries.values()
    assert entry.process is not None
    pid = entry.process.pid
    with connected(endpoint) as client:
        client[NAME]["items"].insert_many({"state": bytes(5000)} for n in range(5000))
    sink = during(lambda: os.kill(pid, signal.SIGKILL), member=f"{NAME}/items.bson")
    with pytest.raises(TransientError) as caught:
        take(endpoint, tmp_path / "full", databases=[NAME], sink=sink)
    assert endpoint.password not in str(caught.value)


def test_a_primary_that_steps_down_during_a_dump_gives_no_wrong_dump(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    source[NAME]["items"].insert_many({"_id": n, "state": bytes(5000)} for n in range(2000))

    def step_down() -> None:
        source.admin.command("replSetStepDown", 1, force=True)

    sink = during(step_down, member=f"{NAME}/items.bson")
    try:
        made = take(mongodb, tmp_path / "first", databases=[NAME], sink=sink)
    except TransientError:
        deadline = time.monotonic() + 30
        while not source.admin.command("hello")["isWritablePrimary"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        made = take(mongodb, tmp_path / "again", databases=[NAME])
    bring_back(restorable([made]), mongodb_twin)
    assert target[NAME]["items"].count_documents({}) == 2000
    deadline = time.monotonic() + 30
    while not source.admin.command("hello")["isWritablePrimary"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_role_backup_is_all_that_a_dump_needs(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    fill(source[NAME])
    source.admin["system.users"].delete_many({"user": "backup"})
    source.admin.command("createUser", "backup", pwd="secret", roles=["backup"])
    try:
        weak = replace(mongodb, user="backup", password="secret")
        chain = [take(weak, tmp_path / "full")]
        source[NAME]["plain"].delete_one({"_id": 1})
        take(weak, tmp_path / "more", after=chain)
        with pytest.raises(AccessDeniedError) as caught:
            ENGINE.probe(replace(weak, password="wrong-password"))
        assert "wrong-password" not in str(caught.value)
    finally:
        source.admin.command("dropUser", "backup")


def test_a_source_without_documents_is_no_backup_unless_it_is_known(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    source[NAME].create_collection("nothing")
    with pytest.raises(EmptySourceError):
        take(mongodb, tmp_path / "full", databases=[NAME])
    made = take(mongodb, tmp_path / "known", databases=[NAME], allow_empty=True)
    assert made.manifest.dump.empty
    with pytest.raises(NotFoundError, match="nobody"):
        take(mongodb, tmp_path / "none", databases=["nobody"])


def test_an_older_target_is_refused_by_both_versions(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, tmp_path: Path
) -> None:
    source[NAME]["items"].insert_one({})
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    newer = made.manifest.model_copy(
        update={"dump": made.manifest.dump.model_copy(update={"server_version": "7.0.1"})}
    )
    with pytest.raises(IncompatibleVersionError, match=r"7\.0\.1.*6\.0\.5"):
        ENGINE.preflight(restorable([Dumped(newer, made.files)]), RestoreTarget(mongodb_twin))
    facts = {**made.manifest.dump.facts, "feature_version": "7.0"}
    newer = made.manifest.model_copy(
        update={"dump": made.manifest.dump.model_copy(update={"facts": facts})}
    )
    with pytest.raises(IncompatibleVersionError, match=r"featureCompatibilityVersion 7\.0.*6\.0"):
        ENGINE.preflight(restorable([Dumped(newer, made.files)]), RestoreTarget(mongodb_twin))


def test_a_connection_is_refused_by_the_word_that_is_wrong(mongodb: Endpoint) -> None:
    with pytest.raises(ConfigurationError, match="surprise"):
        ENGINE.probe(replace(mongodb, extra={**mongodb.extra, "surprise": 1}))
    with pytest.raises(ConfigurationError, match="port"):
        ENGINE.probe(replace(mongodb, extra={**mongodb.extra, "srv": True}))
