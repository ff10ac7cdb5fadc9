"""The engine of episodic memory on two real MongoDB servers."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pymongo
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, ObjectId, Regex, Timestamp, json_util
from pymongo.errors import OperationFailure

from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.episodic_memory import ENGINE, dump
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    EmptySourceError,
    NotFoundError,
    PermanentError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.sandbox.mongod import MongoServer
from neuroca_backup.services.pipeline import SpoolSink
from support.dumping import Dumped, dump_to, restore_all
from support.engines.mongodb import connected
from support.memory_items import die_in_episodic, made_at

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

NAME = "tier_of_a_test"
OPTIONS = {"collections": [f"{NAME}.*"]}
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
        client.drop_database(NAME)
        yield client
        client.drop_database(NAME)


def _add(client: Client, count: int, *, first: int = 0, name: str = "episodes") -> None:
    client[NAME][name].insert_many(
        {
            "_id": n,
            "summary": f"episode {n}",
            "metadata": {"session_id": f"s{n % 10}"},
            "user": n % 4,
            "occurred_at": made_at(n),
        }
        for n in range(first, first + count)
    )


def _ids(client: Client, name: str = "episodes") -> set[Any]:
    return {one["_id"] for one in client[NAME][name].find({}, {"_id": 1})}


def _back_up(root: Path, source: Endpoint, **options: Any) -> Dumped:
    dumped = dump_to(root, ENGINE, source, **{**OPTIONS, **options})
    ENGINE.check(dumped.manifest, dumped.open)
    return dumped


def test_every_type_of_value_definition_and_expiry_comes_back(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    database = source[NAME]
    database.create_collection(
        "odd name.é/x",
        validator={"$jsonSchema": {"required": ["must"]}},
        collation={"locale": "de"},
    )
    values = [
        *(None, True, 0, -0.0, 1e300, float("inf"), float("nan"), 2**31 - 1, Int64(7)),
        *(Decimal128("1.10"), "Zoë $5", b"\x00\xff", Binary(b"12", 5), Regex("a.*", "i")),
        *(Code("x"), Timestamp(5, 6), MaxKey(), ObjectId(), datetime(2026, 1, 2, tzinfo=UTC)),
        *([1, {"deep": [Int64(1)]}], {"a b": 1, "": 2, "nested": {"$dollar": 3}}),
    ]
    # They are from before the validator that no longer takes them.
    database["odd name.é/x"].insert_many(
        ({"_id": n, "v": v} for n, v in enumerate(values)), bypass_document_validation=True
    )
    database["episodes"].create_index("until", expireAfterSeconds=0, name="ttl")
    database["episodes"].create_index([("user", 1), ("occurred_at", -1)], name="of_user")
    database["episodes"].create_index(
        "summary", unique=True, partialFilterExpression={"user": {"$gt": 1}}
    )
    database.create_collection("recent", viewOn="episodes", pipeline=[{"$limit": 5}])
    _add(source, 200)
    dumped = _back_up(tmp_path / "dump", mongodb)
    _add(source, 100, first=200)
    restore_all(ENGINE, dumped.restorable(), mongodb_twin)
    assert _ids(target) == set(range(200))
    raw = [list(c[NAME]["odd name.é/x"].find_raw_batches()) for c in (source, target)]
    assert raw[0] == raw[1]
    for name in ("episodes", "odd name.é/x"):
        here, there = (c[NAME][name].index_information() for c in (source, target))
        assert here == there
        assert source[NAME][name].options() == target[NAME][name].options()
    assert len(list(target[NAME]["recent"].find())) == 5
    assert "episodic memory: 3 collections, 221 documents" in ENGINE.summary(dumped.manifest)


def test_every_line_is_canonical_extended_json(
    source: Client, mongodb: Endpoint, tmp_path: Path
) -> None:
    _add(source, 3)
    dumped = _back_up(tmp_path / "dump", mongodb)
    lines = (dumped.files / f"{NAME}/episodes.jsonl").read_bytes().splitlines()
    assert [json_util.loads(one)["_id"] for one in lines] == [0, 1, 2]
    assert json.loads(lines[2])["user"] == {"$numberInt": "2"}
    about = json.loads((dumped.files / f"{NAME}/episodes.collection.json").read_bytes())
    assert about["neuroca_memory"] == 1


def _during(
    work: Callable[[], None], monkeypatch: pytest.MonkeyPatch, *, before: str = ".jsonl"
) -> None:
    """Do something once, between two members of an export."""
    original = SpoolSink.member
    waiting = [work]

    @contextmanager
    def member(self: SpoolSink, name: str) -> Iterator[BinaryIO]:
        if name.endswith(before) and waiting:
            waiting.pop()()
        opened: AbstractContextManager[BinaryIO] = original(self, name)
        with opened as out:
            yield out

    monkeypatch.setattr(SpoolSink, "member", member)


def test_all_collections_are_of_one_moment_whatever_is_written_meanwhile(
    source: Client,
    target: Client,
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("a", "b", "c"):
        _add(source, 50, name=name)

    def write() -> None:
        for name in ("a", "b", "c"):
            _add(source, 50, first=50, name=name)
            source[NAME][name].delete_one({"_id": 7})
            source[NAME][name].update_one({"_id": 8}, {"$set": {"summary": "later"}})

    _during(write, monkeypatch, before="b.jsonl")
    dumped = _back_up(tmp_path / "dump", mongodb)
    monkeypatch.undo()
    assert dumped.manifest.dump.facts["snapshot"]
    assert not dumped.manifest.dump.notes
    restore_all(ENGINE, dumped.restorable(), mongodb_twin)
    for name in ("a", "b", "c"):
        assert _ids(target, name) == set(range(50))
        kept = target[NAME][name].find_one({"_id": 8})
        assert kept is not None
        assert kept["summary"] == "episode 8"


@pytest.mark.parametrize("change", ["drop", "index", "new"])
def test_a_collection_that_changes_meanwhile_fails_the_export_for_now(
    source: Client,
    mongodb: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    _add(source, 5, name="a")
    _add(source, 5, name="b")
    changes: dict[str, Callable[[], Any]] = {
        "drop": lambda: source[NAME].drop_collection("b"),
        "index": lambda: source[NAME]["b"].create_index("user"),
        "new": lambda: _add(source, 1, name="c"),
    }
    _during(changes[change], monkeypatch, before="b.jsonl")
    with pytest.raises(TransientError, match="dropped or redefined"):
        dump_to(tmp_path / "dump", ENGINE, mongodb, **OPTIONS)


def test_an_export_longer_than_the_servers_history_says_which_parameter_to_raise(
    source: Client, mongodb: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(source, 5)

    def too_late(*_: Any) -> Any:
        raise OperationFailure("read timestamp is older than the oldest available", 239)

    monkeypatch.setattr(dump, "_export", too_late)
    with pytest.raises(ConfigurationError, match="longer than the 300 s") as caught:
        dump_to(tmp_path / "dump", ENGINE, mongodb, **OPTIONS)
    assert "minSnapshotHistoryWindowInSeconds: 3600" in caught.value.remedy


def test_a_standalone_server_works_without_a_snapshot_and_says_so(
    target: Client, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    root = tmp_path / "servers"
    alone = sandbox.launch(root, MongoServer(kind="standalone", replica_set=""))
    try:
        with connected(alone) as client:
            _add(client, 20)
            dumped = _back_up(tmp_path / "dump", alone)
            assert "standalone" in dumped.manifest.dump.notes[0]
            restore_all(ENGINE, dumped.restorable(), mongodb_twin)
            assert _ids(target) == set(range(20))
            restore_all(ENGINE, dumped.restorable("user=1"), alone, replace=True)
            assert _ids(client) == set(range(20))
    finally:
        sandbox.stop(root)


def test_one_session_comes_back_alone(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    _add(source, 100)
    source[NAME]["episodes"].create_index("summary", unique=True)
    dumped = _back_up(tmp_path / "dump", mongodb)
    episodes = source[NAME]["episodes"]
    episodes.delete_many({"metadata.session_id": "s3", "_id": {"$lt": 60}})
    episodes.update_one({"_id": 63}, {"$set": {"summary": "spoilt"}})
    episodes.update_one({"_id": 4}, {"$set": {"summary": "newer"}})
    _add(source, 1, first=500)
    restore_all(ENGINE, dumped.restorable("session=s3"), mongodb, replace=True)
    found = {one["_id"]: one["summary"] for one in episodes.find()}
    assert found.keys() == {*range(100), 500}
    assert (found[3], found[63], found[4]) == ("episode 3", "episode 63", "newer")
    restore_all(ENGINE, dumped.restorable("session=s3"), mongodb_twin)
    assert _ids(target) == set(range(3, 100, 10))
    assert "summary_1" in target[NAME]["episodes"].index_information()
    assert target[NAME].list_collection_names() == ["episodes"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["from=2026-11-01T10:00Z", "to=2026-11-01T12:00Z"], {10, 11}),
        (["user=2", "session=s0", "tier=mtm"], set(range(10, 100, 20))),
        (["id=5", "id=6", "collection=episodes"], {5, 6}),
        ([f"collection={NAME}.episodes"], set(range(100))),
    ],
)
def test_documents_are_chosen_by_words(
    source: Client,
    target: Client,
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    tmp_path: Path,
    words: list[str],
    expected: set[int],
) -> None:
    _add(source, 100)
    dumped = _back_up(tmp_path / "dump", mongodb)
    restore_all(ENGINE, dumped.restorable(*words), mongodb_twin)
    assert _ids(target) == expected


def test_what_selects_nothing_or_nothing_known_is_an_error_and_touches_nothing(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    _add(source, 10)
    dumped = _back_up(tmp_path / "dump", mongodb)
    place = RestoreTarget(mongodb_twin)
    with pytest.raises(NotFoundError, match="session=nobody"):
        ENGINE.load(dumped.restorable("session=nobody"), place)
    for word in ("collection=other", "keys=x", "expired=persist", "tier=stm"):
        with pytest.raises(ConfigurationError, match=word):
            ENGINE.preflight(dumped.restorable(word), place)
    assert target[NAME].list_collection_names() == []


def test_a_whole_tier_in_place_loses_what_the_backup_had_not_and_nothing_else(
    source: Client, mongodb: Endpoint, tmp_path: Path
) -> None:
    _add(source, 50)
    dumped = _back_up(tmp_path / "dump", mongodb)
    _add(source, 50, first=50)
    _add(source, 5, name="newer")
    source[f"{NAME}_other"]["episodes"].insert_one({"_id": 1})
    try:
        notes = restore_all(ENGINE, dumped.restorable(), mongodb, replace=True)
        assert any(f"{NAME}.newer, which the backup does not have" in one for one in notes)
        assert _ids(source) == set(range(50))
        assert source[NAME].list_collection_names() == ["episodes"]
        assert source[f"{NAME}_other"]["episodes"].find_one() == {"_id": 1}
    finally:
        source.drop_database(f"{NAME}_other")


@pytest.mark.parametrize(("step", "commands"), [("load", 2), ("publish", 1)])
def test_a_restore_that_was_killed_is_repeated_to_the_same_end(
    source: Client,
    target: Client,
    mongodb: Endpoint,
    mongodb_twin: Endpoint,
    tmp_path: Path,
    step: str,
    commands: int,
) -> None:
    for name in ("a", "b"):
        _add(source, 2500, name=name)
    dumped = _back_up(tmp_path / "dump", mongodb)
    _add(target, 10, first=9000, name="a")
    place = RestoreTarget(mongodb_twin, replace=True)
    if step == "publish":
        ENGINE.load(dumped.restorable(), place)
    child = multiprocessing.get_context("spawn").Process(
        target=die_in_episodic, args=(step, dumped, mongodb_twin, commands)
    )
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    if step == "load":
        assert _ids(target, "a") == set(range(9000, 9010))
        with pytest.raises(NotFoundError, match="not been loaded to its end"):
            ENGINE.publish(dumped.restorable(), place)
        restore_all(ENGINE, dumped.restorable(), mongodb_twin, replace=True)
    else:
        assert list(ENGINE.compare(dumped.restorable(), place)) == []
        ENGINE.publish(dumped.restorable(), place)
        assert list(ENGINE.compare(dumped.restorable(), place)) == []
    assert sorted(target[NAME].list_collection_names()) == ["a", "b"]
    assert _ids(target, "a") == _ids(target, "b") == set(range(2500))


def test_documents_that_came_since_the_check_stop_the_publishing(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    _add(source, 5)
    dumped = _back_up(tmp_path / "dump", mongodb)
    ENGINE.load(dumped.restorable(), RestoreTarget(mongodb_twin))
    _add(target, 1, first=9)
    with pytest.raises(TargetRefusedError, match="got data"):
        ENGINE.publish(dumped.restorable(), RestoreTarget(mongodb_twin))
    assert _ids(target) == {9}


def test_what_json_cannot_carry_is_refused_before_it_is_lost(
    source: Client, mongodb: Endpoint, tmp_path: Path
) -> None:
    source[NAME]["episodes"].insert_one({"_id": 1, "v": {"$numberInt": "5"}})
    with pytest.raises(PermanentError, match="would not come back the same"):
        dump_to(tmp_path / "dump", ENGINE, mongodb, **OPTIONS)


def test_a_time_series_is_refused_by_its_name(
    source: Client, mongodb: Endpoint, tmp_path: Path
) -> None:
    source[NAME].create_collection("series", timeseries={"timeField": "at"})
    with pytest.raises(ConfigurationError, match=f"{NAME}.series is a timeseries"):
        dump_to(tmp_path / "dump", ENGINE, mongodb, **OPTIONS)
    _add(source, 2)
    dumped = _back_up(tmp_path / "some", mongodb, collections=[f"{NAME}.epi*"])
    assert list(dumped.manifest.dump.facts["collections"]) == [f"{NAME}.episodes"]


def test_a_tier_without_documents_is_no_backup_unless_that_is_known(
    source: Client, mongodb: Endpoint, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match=f"no collection like {NAME}"):
        dump_to(tmp_path / "none", ENGINE, mongodb, **OPTIONS)
    source[NAME].create_collection("episodes")
    with pytest.raises(EmptySourceError, match=f"{NAME}.episodes"):
        dump_to(tmp_path / "empty", ENGINE, mongodb, **OPTIONS)
    dumped = _back_up(tmp_path / "new", mongodb, allow_empty=True)
    assert dumped.manifest.dump.empty


def test_a_tier_in_process_memory_is_a_configuration_error_that_says_why() -> None:
    with pytest.raises(ConfigurationError, match="cannot be captured from outside") as caught:
        ENGINE.options({"backend": "memory"})
    assert "backend: mongodb" in caught.value.remedy
    with pytest.raises(ConfigurationError, match=r"database\.collection"):
        ENGINE.options({"collections": ["episodes"]})


def test_times_are_compared_in_utc(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    start = made_at(0)
    source[NAME]["episodes"].insert_many(
        [
            {"_id": "iso", "created_at": start.isoformat()},
            {"_id": "seconds", "timestamp": start.timestamp()},
            {"_id": "milliseconds", "timestamp": Int64(start.timestamp() * 1000)},
            {"_id": "date", "occurred_at": start},
            {"_id": "later", "occurred_at": start + timedelta(hours=1)},
            {"_id": "none"},
        ]
    )
    dumped = _back_up(tmp_path / "dump", mongodb)
    words = ("from=2026-11-01T02:00+02:00", "to=2026-11-01T01:00Z")
    restore_all(ENGINE, dumped.restorable(*words), mongodb_twin)
    assert _ids(target) == {"iso", "seconds", "milliseconds", "date"}


def test_the_users_of_the_documentation_may_back_up_and_restore(
    source: Client, target: Client, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    # What docs/reference/memory-tiers.md grants.
    _add(source, 30)
    source[NAME].create_collection("checked", validator={"must": {"$exists": True}})
    source[NAME].create_collection("recent", viewOn="episodes", pipeline=[])
    users = []
    for client, endpoint, name, roles in (
        (source, mongodb, "tier_reader", ["read"]),
        (target, mongodb_twin, "tier_writer", ["readWrite", "dbAdmin"]),
    ):
        granted = [{"role": role, "db": NAME} for role in roles]
        client.admin.command("createUser", name, pwd="pass", roles=granted)
        users.append(replace(endpoint, user=name, password="pass"))
    try:
        dumped = _back_up(tmp_path / "dump", users[0])
        restore_all(ENGINE, dumped.restorable(), users[1])
        assert _ids(target) == set(range(30))
        restore_all(ENGINE, dumped.restorable("session=s3"), users[1], replace=True)
        with pytest.raises(AccessDeniedError):
            restore_all(ENGINE, dumped.restorable(), users[0], replace=True)
    finally:
        source.admin.command("dropUser", "tier_reader")
        target.admin.command("dropUser", "tier_writer")
