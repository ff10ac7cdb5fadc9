"""The engine of working memory on two real Redis servers."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.working_memory import ENGINE, reading, writing
from neuroca_backup.errors import (
    AccessDeniedError,
    ComparisonError,
    ConfigurationError,
    EmptySourceError,
    NotFoundError,
    TargetRefusedError,
)
from support.dumping import Dumped, dump_to, restore_all
from support.memory_items import add_items, die_in_working, items_of
from support.redis_keys import client_of, content, every_encoding, flush

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


@pytest.fixture
def source(redis_server: Endpoint) -> Iterator[Endpoint]:
    flush(redis_server)
    yield redis_server
    flush(redis_server)


@pytest.fixture
def target(redis_twin: Endpoint) -> Iterator[Endpoint]:
    flush(redis_twin)
    yield redis_twin
    flush(redis_twin)


def _back_up(root: Path, source: Endpoint, **options: Any) -> Dumped:
    dumped = dump_to(root, ENGINE, source, **options)
    ENGINE.check(dumped.manifest, dumped.open)
    return dumped


def _keys(endpoint: Endpoint, database: int = 0) -> set[bytes]:
    return set(content(endpoint).get(database, {}))


def test_two_hundred_items_come_back_and_nothing_of_the_hundred_after_them(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 100)
    add_items(source, 100, first=100, database=1)
    with client_of(source) as client:
        client.set("memory:ltm:7", "of another tier")
    dumped = _back_up(tmp_path / "dump", source)
    add_items(source, 100, first=200)
    restore_all(ENGINE, dumped.restorable(), target)
    assert items_of(target) | items_of(target, 1) == {f"i{n}" for n in range(200)}
    assert items_of(target, 1) == {f"i{n}" for n in range(100, 200)}
    assert b"memory:ltm:7" not in _keys(target)
    assert "working memory: 2 databases, 406 keys, 200 expire" in ENGINE.summary(dumped.manifest)


def test_every_type_and_encoding_comes_back_the_same(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    with client_of(source) as client:
        every_encoding(client)
        client.set(b"\xff\x00key", b"\x80\n\x00")
        client.xgroup_create("none yet", "waiting", "$", mkstream=True)
        client.xadd("emptied", {"a": 1}, id="5-5")
        client.xdel("emptied", "5-5")
    dumped = _back_up(tmp_path / "dump", source, keys=["*"])
    restore_all(ENGINE, dumped.restorable(), target)
    assert content(target) == content(source)
    with client_of(target) as client:
        assert client.xinfo_stream("emptied")["last-generated-id"] == b"5-5"


def test_large_keys_go_in_pieces_and_come_back_whole(
    source: Endpoint, target: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_SMALL_BYTES", 5000)
    monkeypatch.setattr(writing, "_ELEMENTS", 7)
    with client_of(source) as client:
        every_encoding(client, many=1500)
        client.set("memory:long", bytes(range(256)) * 100)
        client.expire("list:1500", 10**6)
    dumped = _back_up(tmp_path / "dump", source, keys=["*"])
    lines = (dumped.files / "keys/db0.jsonl").read_bytes().splitlines()
    assert sum(b'"continues":true' in one for one in lines) > 50
    restore_all(ENGINE, dumped.restorable(), target)
    assert content(target) == content(source)


def test_a_large_key_that_is_written_to_meanwhile_is_told_of(
    source: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_SMALL_BYTES", 1000)
    with client_of(source) as client:
        client.rpush("memory:stm:list", *range(2000))
    original = reading.Reading._pages

    def pages(self: Any, *arguments: Any) -> Iterator[Any]:
        for number, page in enumerate(original(self, *arguments)):
            if number == 1:
                with client_of(source) as other:
                    other.rpush("memory:stm:list", "more")
            yield page

    monkeypatch.setattr(reading.Reading, "_pages", pages)
    dumped = _back_up(tmp_path / "dump", source)
    assert "1 large keys were written to" in " ".join(dumped.manifest.dump.notes)


def test_one_session_comes_back_alone_with_all_its_keys_and_in_its_indexes(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 100)
    dumped = _back_up(tmp_path / "dump", source)
    before = content(source)[0]
    # What happened since: session 3 was lost, an item of another one was changed, one was added.
    with client_of(source) as client:
        for n in range(3, 100, 10):
            client.delete(f"memory:stm:i{n}", f"memory:stm:metadata:i{n}")
            client.srem("memory:stm:index:status:active", f"i{n}")
            client.zrem("memory:stm:index:recent", f"i{n}")
        client.hset("memory:stm:i4", "content", "newer")
    add_items(source, 1, first=200)
    notes = restore_all(ENGINE, dumped.restorable("session=s3"), source, replace=True)
    assert any("20 keys loaded, added to 2 indexes" in note for note in notes)
    after = content(source)[0]
    for n in range(3, 100, 10):
        for key in (f"memory:stm:i{n}".encode(), f"memory:stm:metadata:i{n}".encode()):
            assert after[key] == before[key]
    assert after[b"memory:stm:i4"][0][b"content"] == b"newer"
    assert items_of(source) == {f"i{n}" for n in [*range(100), 200]}
    # The indexes list what they listed before the loss, and what has come since.
    for key, more in ((b"memory:stm:index:status:active", set()), (b"memory:stm:index:recent", 1)):
        assert len(after[key][0]) == len(before[key][0]) + bool(more)
    # Into an empty server: that session and nothing else.
    restore_all(ENGINE, dumped.restorable("session=s3"), target)
    assert items_of(target) == {f"i{n}" for n in range(3, 100, 10)}
    assert content(target)[0][b"memory:stm:index:status:active"][0] == {
        f"i{n}".encode() for n in range(3, 100, 10)
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["from=2026-11-01T10:00Z", "to=2026-11-01T12:00Z"], {10, 11}),
        (["user=2", "from=2026-11-04T00:00+00:00"], set(range(74, 100, 4))),
        (["user=2", "session=s0"], set(range(10, 100, 20))),
        (["session=s1", "session=s2", "to=2026-11-01T12:00Z"], {1, 2, 11}),
        (["id=i5", "id=i6"], {5, 6}),
        (["keys=memory:stm:i[78]", "tier=stm"], {7, 8}),
        (["type=hash", "database=0", "keys=memory:stm:i9*"], {9, *range(90, 100)}),
    ],
)
def test_items_are_chosen_by_words(
    source: Endpoint, target: Endpoint, tmp_path: Path, words: list[str], expected: set[int]
) -> None:
    add_items(source, 100)
    dumped = _back_up(tmp_path / "dump", source)
    restore_all(ENGINE, dumped.restorable(*words), target)
    assert items_of(target) == {f"i{n}" for n in expected}


def test_a_selection_of_nothing_is_an_error_and_touches_nothing(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 10)
    dumped = _back_up(tmp_path / "dump", source)
    for words in (["session=nobody"], ["keys=memory:stm:x*"], ["session=s1", "user=3"]):
        backup = dumped.restorable(*words)
        ENGINE.preflight(backup, RestoreTarget(target))
        with pytest.raises(NotFoundError, match=words[-1].replace("*", r"\*")):
            ENGINE.load(backup, RestoreTarget(target))
    assert content(target) == {}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sesion=abc", "session="),
        ("session", "session="),
        ("tier=ltm", "semantic memory"),
        ("tier=xyz", "no such tier"),
        ("from=yesterday", "2026-11-01T00:00Z"),
        ("from=2026-11-01T00:00", "time with an offset"),
        ("database=7", "none such"),
        ("type=table", "none such"),
        ("expired=keep", "persist"),
        ("collection=x", "keys="),
    ],
)
def test_a_word_that_means_nothing_is_refused_with_what_there_is(
    source: Endpoint, target: Endpoint, tmp_path: Path, word: str, told: str
) -> None:
    add_items(source, 1)
    dumped = _back_up(tmp_path / "dump", source)
    with pytest.raises(ConfigurationError, match=word.partition("=")[2] or word) as caught:
        ENGINE.preflight(dumped.restorable(word), RestoreTarget(target))
    assert told in str(caught.value)


def test_a_whole_tier_in_place_loses_what_the_backup_had_not_and_nothing_else(
    source: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 50)
    dumped = _back_up(tmp_path / "dump", source)
    add_items(source, 50, first=50)
    add_items(source, 5, database=3)
    with client_of(source) as client:
        client.set("memory:ltm:x", "of another tier")
        client.delete("memory:stm:i7")
        client.set("memory:stm:i8", "of another type")
    notes = restore_all(ENGINE, dumped.restorable(), source, replace=True)
    assert any("keys of this tier that the backup does not have are removed" in n for n in notes)
    assert items_of(source) == {f"i{n}" for n in range(50)}
    assert items_of(source, 3) == set()
    assert _keys(source) >= {b"memory:ltm:x"}
    assert not [key for key in _keys(source) if key.startswith(b"neuroca-restore")]


def test_expiry_is_kept_as_a_point_in_time_and_what_has_expired_stays_away_or_is_asked_for(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 4)
    with client_of(source) as client:
        client.psetex("memory:stm:short", 700, "soon gone")
        client.psetex("memory:stm:hour", 3_600_000, "later")
    dumped = _back_up(tmp_path / "dump", source)
    until = time.monotonic() + 5
    while b"memory:stm:short" in _keys(source) and time.monotonic() < until:
        time.sleep(0.05)
    notes = restore_all(ENGINE, dumped.restorable(), target)
    assert any("1 keys have expired since" in note and "left out" in note for note in notes)
    assert b"memory:stm:short" not in _keys(target)
    ours, theirs = content(source)[0], content(target)[0]
    assert {k: e for k, (_, e) in ours.items()} == {k: e for k, (_, e) in theirs.items()}
    flush(target)
    notes = restore_all(ENGINE, dumped.restorable("expired=persist"), target)
    assert any("come back without an expiry" in note for note in notes)
    assert content(target)[0][b"memory:stm:short"] == (b"soon gone", 0)


@pytest.mark.parametrize(("step", "writes"), [("load", 1), ("publish", 0)])
def test_a_restore_that_was_killed_is_repeated_to_the_same_end(
    source: Endpoint, target: Endpoint, tmp_path: Path, step: str, writes: int
) -> None:
    add_items(source, 600)
    dumped = _back_up(tmp_path / "dump", source)
    add_items(target, 10, first=1000)
    place = RestoreTarget(target, replace=True)
    if step == "publish":
        ENGINE.load(dumped.restorable(), place)
    child = multiprocessing.get_context("spawn").Process(
        target=die_in_working, args=(step, dumped, target, writes)
    )
    child.start()
    child.join(30)
    assert child.exitcode == -signal.SIGKILL
    if step == "load":
        assert items_of(target) == {f"i{n}" for n in range(1000, 1010)}
        with pytest.raises(NotFoundError, match="not been loaded to its end"):
            ENGINE.publish(dumped.restorable(), place)
        restore_all(ENGINE, dumped.restorable(), target, replace=True)
    else:
        ENGINE.publish(dumped.restorable(), place)
        assert list(ENGINE.compare(dumped.restorable(), place)) == []
    assert items_of(target) == {f"i{n}" for n in range(600)}
    assert not [key for key in _keys(target) if key.startswith(b"neuroca-restore")]


def test_what_differs_is_told_without_names_of_keys(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 20)
    dumped = _back_up(tmp_path / "dump", source)
    restore_all(ENGINE, dumped.restorable(), target)
    with client_of(target) as client:
        client.hset("memory:stm:i1", "content", "x")
        client.expire("memory:stm:i2", 1000)
        client.delete("memory:stm:metadata:i3")
        client.set("memory:stm:new", 1)
    told = [str(one) for one in ENGINE.compare(dumped.restorable(), RestoreTarget(target))]
    assert len(told) == 4, told
    for words in ("1 with another value", "1 with another expiry", "1 missing", "not in the back"):
        assert any(words in one for one in told)
    assert "i1" not in " ".join(told)


def test_keys_that_came_since_the_check_stop_the_publishing(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 5)
    dumped = _back_up(tmp_path / "dump", source)
    place = RestoreTarget(target)
    ENGINE.preflight(dumped.restorable(), place)
    ENGINE.load(dumped.restorable(), place)
    add_items(target, 1, first=9)
    with pytest.raises(TargetRefusedError, match="got 4 keys"):
        ENGINE.publish(dumped.restorable(), place)
    assert items_of(target) == {"i9"}


def test_loaded_keys_that_were_evicted_stop_the_publishing(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 5)
    dumped = _back_up(tmp_path / "dump", source)
    place = RestoreTarget(target)
    ENGINE.load(dumped.restorable(), place)
    with client_of(target) as client:
        client.delete(next(iter(client.scan_iter("neuroca-restore:*"))))
    with pytest.raises(ComparisonError, match="1 of 13 loaded keys are gone"):
        ENGINE.publish(dumped.restorable(), place)
    assert items_of(target) == set()


def test_a_replica_and_a_server_without_room_are_refused(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 300)
    dumped = _back_up(tmp_path / "dump", source)
    with client_of(target) as client:
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", used + 1000)
        try:
            with pytest.raises(TargetRefusedError, match="evict"):
                ENGINE.preflight(dumped.restorable(), RestoreTarget(target))
        finally:
            client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(TargetRefusedError, match="replica"):
            ENGINE.preflight(dumped.restorable(), RestoreTarget(target))
        client.replicaof("NO", "ONE")


def test_a_tier_in_process_memory_is_a_configuration_error_that_says_why() -> None:
    for word in ("memory", "in_memory"):
        with pytest.raises(ConfigurationError, match="cannot be captured from outside") as caught:
            ENGINE.options({"backend": word})
        assert "backend: redis" in caught.value.remedy
    with pytest.raises(ConfigurationError, match=r"options\.backend"):
        ENGINE.options({"backend": "sqlite"})


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ({}, "memory:stm:*"),
        ({"tier": "working"}, "memory:stm:*"),
        ({"tier": "mtm"}, "memory:mtm:*"),
        ({"tier": "semantic"}, "memory:ltm:*"),
    ],
)
def test_tiers_are_known_by_both_their_names(given: dict[str, str], keys: str) -> None:
    assert ENGINE.options(given)["keys"] == (keys, f"neuroca:{keys}")


@pytest.mark.parametrize(
    "given", [{"tier": "xtm"}, {"databases": "0"}, {"keys": [""]}, {"session_fields": [""]}]
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="options"):
        ENGINE.options(given)


def test_a_tier_without_keys_is_no_backup_unless_that_is_known(
    source: Endpoint, tmp_path: Path
) -> None:
    with client_of(source) as client:
        client.set("other", 1)
    with pytest.raises(EmptySourceError, match=r"memory:stm:\*"):
        dump_to(tmp_path / "dump", ENGINE, source)
    dumped = dump_to(tmp_path / "new", ENGINE, source, allow_empty=True)
    assert dumped.manifest.dump.empty


def test_no_name_of_a_key_is_in_the_manifest(source: Endpoint, tmp_path: Path) -> None:
    add_items(source, 3)
    dumped = _back_up(tmp_path / "dump", source, keys=["memory:*"])
    assert "i1" not in json.dumps(dumped.manifest.dump.model_dump(mode="json"))


def test_a_form_of_the_future_is_refused(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    add_items(source, 3)
    dumped = _back_up(tmp_path / "dump", source)
    facts = {**dumped.manifest.dump.facts, "form": 2}
    dump = dumped.manifest.dump.model_copy(update={"facts": facts})
    manifest = dumped.manifest.model_copy(update={"dump": dump})
    backup = Restorable(chain=(manifest,), work=tmp_path / "work", folders=(dumped.files,))
    with pytest.raises(ConfigurationError, match="form 2"):
        ENGINE.preflight(backup, RestoreTarget(target))


def test_the_users_of_the_documentation_may_back_up_and_restore(
    source: Endpoint, target: Endpoint, tmp_path: Path
) -> None:
    # What docs/reference/memory-tiers.md grants.
    reading = "+@read +@connection +@transaction -@dangerous +info +time +memory|usage"
    writing = "+@read +@write +@connection +@transaction -@dangerous +info +time +memory|usage"
    keys = "~memory:stm:* ~neuroca:memory:stm:*"
    add_items(source, 30)
    with client_of(source) as client:
        client.xadd("memory:stm:stream", {"a": 1})
        client.xgroup_create("memory:stm:stream", "readers", "0")
        client.xreadgroup("readers", "one", {"memory:stm:stream": ">"})
        client.set("memory:ltm:7", "of another tier")
    accounts = (
        (source, "reader", f"{keys} {reading}"),
        (target, "writer", f"{keys} ~neuroca-restore:* {writing} +restore"),
    )
    users = []
    for endpoint, name, rules in accounts:
        with client_of(endpoint) as client:
            client.execute_command("ACL", "SETUSER", name, "reset", "on", ">pass", *rules.split())
        users.append(replace(endpoint, user=name, password="pass"))
    try:
        dumped = _back_up(tmp_path / "dump", users[0])
        restore_all(ENGINE, dumped.restorable(), users[1])
        assert items_of(target) == {f"i{n}" for n in range(30)}
        restore_all(ENGINE, dumped.restorable("session=s3"), users[1], replace=True)
        with pytest.raises(AccessDeniedError, match="NOPERM"):
            restore_all(ENGINE, dumped.restorable(), users[0], replace=True)
        with pytest.raises(AccessDeniedError, match="NOPERM"):
            dump_to(tmp_path / "more", ENGINE, users[0], keys=["memory:*"])
    finally:
        for endpoint, name, _ in accounts:
            with client_of(endpoint) as client:
                client.execute_command("ACL", "DELUSER", name)
