"""MongoDB's incremental backups: what was acknowledged by a moment is what comes back for it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bson
import pymongo
import pytest

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.mongodb import ENGINE, oplog
from neuroca_backup.errors import ChainBrokenError, ConfigurationError, TransientError
from support.engines.mongodb import connected
from support.mongo import Dumped, bring_back, restorable, take

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

NAME = "mongodb_chain"
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


@dataclass
class Write:
    """One write: what it leaves under a key (None for nothing), and when it was done."""

    key: Any
    value: Any
    begun: datetime
    ended: datetime


@dataclass
class Writer:
    """Writes all the time, each key from one place only, and notes what was acknowledged."""

    client: Client
    number: int
    log: list[Write] = field(default_factory=list)
    series: list[Write] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Insert, update, delete, in and outside of transactions, until told to stop."""
        chance = random.Random(self.number)  # noqa: S311 - a repeatable choice
        database = self.client[NAME]
        alive: list[str] = []
        step = 0
        while not stop.is_set():
            step += 1
            kind = chance.random()
            if kind < 0.45 or len(alive) < 3:
                key = f"{self.number}-{step}"
                self._noted(
                    {key: step}, lambda k=key, v=step: database["a"].insert_one({"_id": k, "v": v})
                )
                alive.append(key)
            elif kind < 0.65:
                key = chance.choice(alive)
                self._noted(
                    {key: step},
                    lambda k=key, v=step: database["a"].update_one(
                        {"_id": k}, {"$set": {"v": v}, "$push": {"past": v}}
                    ),
                )
            elif kind < 0.75:
                key = alive.pop(0)
                self._noted({key: None}, lambda k=key: database["a"].delete_one({"_id": k}))
            elif kind < 0.85:
                first, second = alive[-1], alive[-2]
                self._noted(
                    {first: step, second: step},
                    lambda f=first, s=second, v=step: self._transaction(f, s, v),
                )
            else:
                begun = datetime.now(UTC)
                database["series"].insert_one({"at": begun, "who": self.number, "v": step})
                self.series.append(Write((self.number, step), step, begun, datetime.now(UTC)))
            time.sleep(0.002)

    def _transaction(self, first: str, second: str, value: int) -> None:
        with self.client.start_session() as session, session.start_transaction():
            for key in (first, second):
                self.client[NAME]["a"].update_one(
                    {"_id": key}, {"$set": {"v": value}}, session=session
                )

    def _noted(self, changes: dict[str, Any], write: Callable[[], Any]) -> None:
        begun = datetime.now(UTC)
        write()
        ended = datetime.now(UTC)
        self.log += [Write(key, value, begun, ended) for key, value in changes.items()]


@contextmanager
def writing(client: Client) -> Iterator[list[Writer]]:
    stop = threading.Event()
    writers = [Writer(client, number) for number in range(2)]
    threads = [threading.Thread(target=one.run, args=(stop,)) for one in writers]
    for thread in threads:
        thread.start()
    try:
        yield writers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def assert_state(
    database: pymongo.database.Database[dict[str, Any]], writers: list[Writer], moment: datetime
) -> None:
    """All writes acknowledged by `moment` are there, none that began later."""
    found = {one["_id"]: one["v"] for one in database["a"].find()}
    allowed: dict[str, set[Any]] = {}
    for write in (write for writer in writers for write in writer.log):
        # The server's times have milliseconds.
        if write.ended <= moment:
            allowed[write.key] = {write.value}
        elif write.begun - timedelta(milliseconds=1) <= moment:
            allowed.setdefault(write.key, {None}).add(write.value)
    wrong = {
        key: (found.get(key), states)
        for key, states in allowed.items()
        if found.get(key) not in states
    }
    assert not wrong
    assert not found.keys() - allowed.keys()
    points = {(one["who"], one["v"]) for one in database["series"].find()}
    for write in (write for writer in writers for write in writer.series):
        if write.ended <= moment:
            assert write.key in points
        elif write.begun - timedelta(milliseconds=1) > moment:
            assert write.key not in points


def test_a_chosen_second_between_two_backups_comes_back_while_writers_never_stop(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    source[NAME].create_collection("series", timeseries={"timeField": "at", "metaField": "who"})
    source[NAME]["a"].create_index("v")
    chain, moments = [], []
    with writing(source) as writers:
        time.sleep(1)
        chain.append(take(mongodb, tmp_path / "full", databases=[NAME]))
        for number in range(3):
            time.sleep(0.7)
            moments.append(datetime.now(UTC))
            time.sleep(0.7)
            chain.append(take(mongodb, tmp_path / f"more{number}", after=chain, databases=[NAME]))
    assert min(len(writer.log) for writer in writers) > 100
    assert all(writer.series for writer in writers)
    assert not [note for one in chain for note in one.manifest.dump.notes]
    for upto in (1, 4):
        bring_back(restorable(chain[:upto]), mongodb_twin, replace=True)
        assert_state(target[NAME], writers, chain[upto - 1].manifest.dump.consistent_at)
        target.drop_database(NAME)
    for moment, upto in zip(moments, (2, 3, 4), strict=True):
        bring_back(restorable(chain[:upto], until=moment), mongodb_twin, replace=True)
        assert_state(target[NAME], writers, moment)
        target.drop_database(NAME)
    for outside in (moments[0] - timedelta(minutes=1), moments[-1] + timedelta(minutes=1)):
        with pytest.raises(ConfigurationError, match="moment"):
            ENGINE.preflight(restorable(chain, until=outside), RestoreTarget(mongodb_twin))


def content(database: pymongo.database.Database[dict[str, Any]]) -> dict[str, Any]:
    """Return everything but what was kept beside."""
    found = {}
    for one in database.list_collections():
        name = one["name"]
        if not name.startswith(("before_", "system.")):
            indexes = [] if one["type"] == "view" else list(database[name].list_indexes())
            documents = sorted(database[name].find(), key=str)
            found[name] = (str(one["options"]), sorted(map(str, indexes)), documents)
    return found


def test_definitions_that_change_between_backups_are_those_of_the_chosen_moment(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    database = source[NAME]
    for name in ("a", "b", "gone", "replaced"):
        database[name].insert_many({"_id": n, "x": n} for n in range(20))
    database["a"].create_index("x", name="first")
    database["a"].create_index("y", name="second", expireAfterSeconds=10**6)
    database.create_collection("series", timeseries={"timeField": "at"}, expireAfterSeconds=10**9)
    database.create_collection("view", viewOn="a", pipeline=[])
    database.create_collection("lost_view", viewOn="a", pipeline=[])
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    steps: list[Callable[[], object]] = [
        lambda: database["a"].drop_index("first"),
        lambda: database["a"].create_index([("x", -1)], name="third", unique=True, sparse=True),
        lambda: database.command(
            "collMod", "a", index={"name": "second", "expireAfterSeconds": 5 * 10**6}
        ),
        lambda: database.command("collMod", "a", index={"name": "third", "hidden": True}),
        lambda: database.command(
            "collMod", "a", validator={"x": {"$type": "int"}}, validationLevel="moderate"
        ),
        lambda: database["b"].rename("c"),
        lambda: database["c"].insert_one({"_id": "later"}),
        lambda: database["replaced"].insert_one({"_id": "lost"}),
        lambda: database["c"].rename("replaced", dropTarget=True),
        database["gone"].drop,
        lambda: database["gone"].insert_one({"_id": "again"}),
        database["lost_view"].drop,
        lambda: database.command("collMod", "view", viewOn="replaced", pipeline=[{"$limit": 3}]),
        lambda: database.create_collection("new_view", viewOn="view", pipeline=[]),
        lambda: database.create_collection(
            "new_series", timeseries={"timeField": "t", "metaField": "m"}, expireAfterSeconds=10**9
        ),
        lambda: database["new_series"].insert_one({"t": datetime.now(UTC), "m": 1}),
        lambda: database.command("collMod", "series", expireAfterSeconds="off"),
        lambda: database.create_collection("capped", capped=True, size=4096, max=5),
        lambda: database["capped"].insert_many({"_id": n} for n in range(9)),
        lambda: database.command("collMod", "a", validator={}),
        lambda: source[NAME]["a"].delete_many({"x": {"$lt": 5}}),
    ]
    states: list[tuple[datetime, dict[str, Any]]] = []
    for step in steps:
        step()
        time.sleep(0.01)
        states.append((datetime.now(UTC), content(database)))
        time.sleep(0.01)
    chain.append(take(mongodb, tmp_path / "more", after=chain, databases=[NAME]))
    for number in [*range(0, len(steps), 3), len(steps) - 1]:
        moment, state = states[number]
        target.drop_database(NAME)
        bring_back(restorable(chain, until=moment), mongodb_twin)
        assert content(target[NAME]) == state, number
    target.drop_database(NAME)
    bring_back(restorable(chain), mongodb_twin)
    assert content(target[NAME]) == states[-1][1]
    target.drop_database(NAME)
    bring_back(restorable(chain, only=(f"{NAME}.replaced",)), mongodb_twin)
    assert content(target[NAME]) == {"replaced": states[-1][1]["replaced"]}


def test_a_transaction_larger_than_one_entry_is_all_or_nothing(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    source[NAME]["large"].insert_one({"_id": "first"})
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    before = datetime.now(UTC)
    time.sleep(0.01)
    with source.start_session() as session, session.start_transaction():
        for number in range(6):
            source[NAME]["large"].insert_one(
                {"_id": number, "state": bytes(5_000_000)}, session=session
            )
    with source.start_session() as session:
        session.start_transaction()
        source[NAME]["large"].insert_one({"_id": "aborted"}, session=session)
        session.abort_transaction()
    chain.append(take(mongodb, tmp_path / "more", after=chain, databases=[NAME]))
    bring_back(restorable(chain), mongodb_twin)
    assert set(target[NAME]["large"].distinct("_id")) == {"first", *range(6)}
    bring_back(restorable(chain, until=before), mongodb_twin, replace=True)
    assert target[NAME]["large"].distinct("_id") == ["first"]


def test_an_incremental_backup_of_no_change_says_so_and_may_be_restored(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    source[NAME]["a"].insert_many({"_id": n} for n in range(200))
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    chain.append(take(mongodb, tmp_path / "more", after=chain, databases=[NAME]))
    assert chain[-1].manifest.dump.empty
    assert not chain[0].manifest.dump.empty
    bring_back(restorable(chain), mongodb_twin)
    assert target[NAME]["a"].count_documents({}) == 200
    source[NAME]["a"].delete_one({"_id": 1})
    chain.append(take(mongodb, tmp_path / "third", after=chain, databases=[NAME]))
    assert not chain[-1].manifest.dump.empty


def test_only_what_has_changed_is_counted_again(
    mongodb: Endpoint, source: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuroca_backup.engines.mongodb import facts  # noqa: PLC0415 - to be counted

    for name in ("a", "b"):
        source[NAME][name].insert_many({"_id": n} for n in range(10))
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    source[NAME]["a"].insert_one({})
    read: list[str] = []
    measure = facts.measure

    def counted(client: Any, database: str, name: str, **words: Any) -> Any:
        read.append(f"{database}.{name}")
        return measure(client, database, name, **words)

    monkeypatch.setattr(facts, "measure", counted)
    more = take(mongodb, tmp_path / "more", after=chain, databases=[NAME])
    assert read == [f"{NAME}.a"]
    found = more.manifest.dump.facts["collections"]
    assert [found[f"{NAME}.{name}"]["documents"] for name in ("a", "b")] == [11, 10]
    read.clear()
    source[NAME]["a"].delete_many({"_id": {"$lt": 4}})
    more = take(mongodb, tmp_path / "cheap", after=chain, databases=[NAME], checksums=False)
    assert read == []
    assert more.manifest.dump.facts["collections"][f"{NAME}.a"]["documents"] == 7


def test_an_oplog_that_has_rolled_over_the_parents_end_breaks_the_chain(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    source[NAME]["a"].insert_one({"_id": 1})
    made = take(mongodb, tmp_path / "full", databases=[NAME])
    # A server takes minutes to throw even a tiny oplog away; one that was set up after the parent
    # ended looks the same.
    oldest = source.local["oplog.rs"].find_one(sort=[("$natural", 1)])
    assert oldest is not None
    moved = {**made.manifest.dump.consistency, "ts": f"{oldest['ts'].time - 60}.1"}
    dump = made.manifest.dump.model_copy(update={"consistency": moved})
    old = Dumped(made.manifest.model_copy(update={"dump": dump}), made.files)
    with pytest.raises(ChainBrokenError, match="rolled over"):
        take(mongodb, tmp_path / "more", after=[old], databases=[NAME])


def test_an_oplog_that_rolls_over_during_a_dump_gives_no_dump(
    mongodb: Endpoint, source: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source[NAME]["a"].insert_one({"_id": 1})
    # The window begins with an entry that is not there when the window is read.
    monkeypatch.setattr(oplog, "start", lambda _: bson.Timestamp(1, 1))
    with pytest.raises(TransientError, match="no longer holds"):
        take(mongodb, tmp_path / "full", databases=[NAME])


def test_a_chain_cannot_go_on_with_another_replica_set_or_another_choice(
    mongodb: Endpoint, mongodb_twin: Endpoint, source: Client, target: Client, tmp_path: Path
) -> None:
    for client in (source, target):
        client[NAME]["a"].insert_one({"_id": 1})
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    with pytest.raises(ChainBrokenError, match=r"another replica set|rolled over"):
        take(mongodb_twin, tmp_path / "twin", after=chain, databases=[NAME])
    with pytest.raises(ChainBrokenError, match="databases"):
        take(mongodb, tmp_path / "all", after=chain)


def test_a_restore_in_place_breaks_the_chain_instead_of_losing_what_it_brought(
    mongodb: Endpoint, source: Client, tmp_path: Path
) -> None:
    source[NAME]["a"].insert_one({"_id": 1})
    chain = [take(mongodb, tmp_path / "full", databases=[NAME])]
    bring_back(restorable(chain), mongodb, replace=True)
    with pytest.raises(ChainBrokenError, match="restored in place"):
        take(mongodb, tmp_path / "more", after=chain, databases=[NAME])
    take(mongodb, tmp_path / "again", databases=[NAME])
