"""Redis end to end: what is dumped from one real server is what a second one gets back."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup import redis_session as session
from neuroca_backup import sandbox
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.redis_rdb import (
    ENGINE,
    keywise,
    placing,
    rdb,
    sidecar,
    takeover,
    tools,
    values,
)
from neuroca_backup.engines.redis_rdb.reader import Reader
from neuroca_backup.errors import (
    AccessDeniedError,
    ComparisonError,
    ConfigurationError,
    DamagedError,
    EmptySourceError,
    IncompatibleVersionError,
    InterruptedToolError,
    PermanentError,
    TargetRefusedError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.sandbox import seed_redis
from neuroca_backup.settings import Settings
from support.dumping import Dumped, dump_to, restore_all
from support.redis_keys import add_keys, client_of, content, count_keys, every_encoding, flush
from support.redis_proxy import proxy
from support.wiring import BOTH, connection, local_places

if TYPE_CHECKING:
    from neuroca_backup.engines import Restorable

_WAIT_SECONDS = 20
# The times of the source and of its copy may be a second apart when they are rounded.
_OWN_AUTH = "the target's own & old"


@pytest.fixture
def source(redis_server: Endpoint) -> Iterator[Endpoint]:
    """A server that holds 200 keys of all types."""
    flush(redis_server)
    add_keys(redis_server, 200)
    yield redis_server
    flush(redis_server)


@pytest.fixture
def twin(redis_twin: Endpoint) -> Iterator[Endpoint]:
    """An empty server."""
    flush(redis_twin)
    yield redis_twin
    flush(redis_twin)


@pytest.fixture
def dumped(source: Endpoint, tmp_path: Path) -> Dumped:
    """A dump of the source, whose throwaway servers are stopped."""
    return dump_to(tmp_path / "dump", ENGINE, source)


@pytest.fixture(autouse=True)
def _no_server_stays(tmp_path: Path) -> Iterator[None]:
    yield
    for folder in list(tmp_path.rglob("servers.json")):
        sandbox.stop(folder.parent)


@contextlib.contextmanager
def configured(endpoint: Endpoint, **settings: str) -> Iterator[None]:
    """Change settings of a server for the length of the block."""
    with client_of(endpoint) as client:
        names = [name.replace("_", "-") for name in settings]
        before = {name: client.config_get(name) for name in names}
        try:
            for name, value in zip(names, settings.values(), strict=True):
                client.config_set(name, value)
            yield
        finally:
            for found in before.values():
                for name, value in found.items():
                    client.config_set(name, value)


@contextlib.contextmanager
def user(endpoint: Endpoint, name: str, *rules: str) -> Iterator[Endpoint]:
    """Make a user with a password for the length of the block."""
    with client_of(endpoint) as client:
        client.execute_command("ACL", "SETUSER", name, "on", ">secret-word", "~*", *rules)
        try:
            yield replace(endpoint, user=name, password="secret-word")
        finally:
            client.execute_command("ACL", "DELUSER", name)


def wait_until(ask: Any) -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while not ask():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def same(one: dict[int, Any], other: dict[int, Any]) -> bool:
    """Return whether two contents are equal, times to live within a second."""
    return one.keys() == other.keys() and all(
        one[number].keys() == other[number].keys()
        and all(
            value == other[number][key][0] and abs(expiry - other[number][key][1]) <= 1
            for key, (value, expiry) in one[number].items()
        )
        for number in one
    )


# What a restore gives


@pytest.mark.parametrize("append_only", ["yes", "no"])
@pytest.mark.parametrize("mode", ["replica", "keys"])
def test_a_restore_in_place_gives_exactly_what_was_there_and_outlives_a_restart(
    source: Endpoint, twin: Endpoint, dumped: Dumped, append_only: str, mode: str
) -> None:
    before = content(source)
    add_keys(source, 100)
    with client_of(twin, 4) as client:
        client.set("stale", "of another database")
    with client_of(twin) as client:
        client.set("stale", "beside the restored keys")
        client.set("memory:1:hash", "of another type")
    with configured(twin, appendonly=append_only, masterauth=_OWN_AUTH, save="3600 1"):
        place = replace(twin, extra={"restore_mode": mode})
        restore_all(ENGINE, dumped.restorable(), place, replace=True)
        assert same(content(twin), before)
        assert count_keys(twin) == 200
        with client_of(twin) as client:
            assert client.role()[0] == b"master"
            assert client.config_get("masterauth") == {"masterauth": _OWN_AUTH}
            if append_only == "yes":
                # What the server would do at its next start.
                client.execute_command("DEBUG", "LOADAOF")
            elif mode == "replica":
                client.execute_command("DEBUG", "RELOAD", "NOSAVE")
        assert same(content(twin), before)
    assert count_keys(source) == 300


def test_the_demo_content_comes_back_key_for_key(
    source: Endpoint, twin: Endpoint, tmp_path: Path
) -> None:
    seed_redis.seed(source, scale=0.05)
    dumped = dump_to(tmp_path / "dump", ENGINE, source)
    known = dumped.manifest.dump.facts["databases"]
    assert {n: known[n]["keys"] for n in ("0", "1")} == seed_redis.counts(0.05)
    restore_all(ENGINE, dumped.restorable(), twin)
    assert same(content(twin), content(source))


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        ("1", lambda number, _: number == 1),
        ("db9", lambda number, _: number == 9),
        ("0:memory:1*", lambda number, key: number == 0 and key.startswith(b"memory:1")),
    ],
)
def test_a_part_is_restored_and_nothing_else_is_touched(
    source: Endpoint, twin: Endpoint, dumped: Dumped, word: str, chosen: Any
) -> None:
    before = content(source)
    add_keys(twin, 120)
    with client_of(twin) as client:
        client.set("memory:1:stale", "matches the pattern")
        client.set("other", "does not")
    held = content(twin)
    restore_all(ENGINE, dumped.restorable(word), twin, replace=True)
    expected: dict[int, dict[bytes, Any]] = {}
    for number in (0, 1, 9):
        kept = {key: one for key, one in held[number].items() if not chosen(number, key)}
        back = {key: one for key, one in before[number].items() if chosen(number, key)}
        expected[number] = kept | back
    assert same(content(twin), expected)


def test_a_part_may_join_what_is_there_but_not_replace_it_unasked(
    source: Endpoint, twin: Endpoint, dumped: Dumped
) -> None:
    with client_of(twin) as client:
        client.set("other", "stays")
    restore_all(ENGINE, dumped.restorable("1"), twin)
    assert same(content(twin), {0: {b"other": (b"stays", 0)}, 1: content(source)[1]})
    with pytest.raises(TargetRefusedError, match="50 keys"):
        ENGINE.preflight(dumped.restorable("1"), RestoreTarget(twin))


@pytest.mark.parametrize(
    "rules",
    [
        "+@all -replicaof -slaveof -psync -sync -config -debug",
        # What docs/reference/redis.md grants.
        "+@read +@write +@connection +select +scan +time +info +restore",
    ],
)
def test_a_managed_target_gets_its_keys_one_by_one(
    source: Endpoint, twin: Endpoint, dumped: Dumped, rules: str
) -> None:
    with user(twin, "managed", *rules.split()) as limited:
        notes = restore_all(ENGINE, dumped.restorable(), limited)
        assert any("one by one" in note for note in notes)
        assert same(content(twin), content(source))
        with client_of(twin, 1) as client:
            client.hset("memory:1:hash", "content", "another")
            client.delete("memory:2:list")
            client.persist("memory:0:string")
        found = " ".join(map(str, ENGINE.compare(dumped.restorable(), RestoreTarget(limited))))
    for expected in ("1 of type hash with another value", "1 of type list missing", "expire"):
        assert expected in found


def test_every_change_of_a_restored_key_is_a_difference(
    source: Endpoint, twin: Endpoint, dumped: Dumped
) -> None:
    restore_all(ENGINE, dumped.restorable(), twin)
    place = RestoreTarget(twin)
    changes = [
        ("SET", "memory:6:string", "other"),
        ("RPUSH", "memory:2:list", "more"),
        ("SREM", "memory:3:set", "3"),
        ("ZINCRBY", "memory:4:zset", "0.5", "member 1"),
        ("XADD", "memory:5:stream", "*", "more", "1"),
        ("XACK", "memory:5:stream", "readers", "1001-1"),
        ("PEXPIRE", "memory:0:string", "5000000"),
        ("PERSIST", "memory:0:string"),
        ("DEL", "memory:1:hash"),
        ("RENAME", "memory:2:list", "memory:2:other"),
        ("SET", "new", "1"),
    ]
    for change in changes:
        with client_of(twin) as client:
            key = change[1]
            saved, left = client.dump(key), max(client.pttl(key), 0)
            client.execute_command(*change)
            assert ENGINE.compare(dumped.restorable(), place), change
            client.delete(key, "memory:2:other")
            if saved is not None:
                client.restore(key, left, saved)
        assert not ENGINE.compare(dumped.restorable(), place), change


def test_keys_that_have_expired_in_the_dump_are_no_difference(
    source: Endpoint, twin: Endpoint, tmp_path: Path
) -> None:
    with client_of(source) as client:
        client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
        try:
            for n in range(20):
                client.set(f"brief:{n}", n, px=1)
            client.set("soon", 1, px=2500)
            time.sleep(0.01)
            dumped = dump_to(tmp_path / "dump", ENGINE, source)
        finally:
            client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    assert dumped.manifest.dump.facts["databases"]["0"]["keys"] == 100 + 20 + 1
    restore_all(ENGINE, dumped.restorable(), twin)
    with client_of(twin) as client:
        assert not client.exists("brief:1")
        wait_until(lambda: not client.exists("soon"))
    assert not ENGINE.compare(dumped.restorable(), RestoreTarget(twin))
    assert count_keys(twin) == 200


# The dump


def test_a_dump_ends_where_its_rdb_ends_though_the_server_adds_a_mark(
    source: Endpoint, tmp_path: Path
) -> None:
    sizes = {}
    for way in ("yes", "no"):
        with configured(source, repl_diskless_sync=way):
            dumped = dump_to(tmp_path / way, ENGINE, source)
        data = (dumped.files / "dump.rdb").read_bytes()
        checked = subprocess.run(
            [tools.find("redis-cli"), "-x", *_words(source), "SET", "copy"],
            input=data,
            env={"REDISCLI_AUTH": source.password},
            check=True,
            capture_output=True,
        )
        assert checked.stdout.strip() == b"OK"
        assert data[-9] == 0xFF
        ENGINE.check(dumped.manifest, dumped.open)
        with client_of(source) as client:
            client.delete("copy")
        sizes[way] = len(data)
    assert abs(sizes["yes"] - sizes["no"]) < 20


def _words(endpoint: Endpoint) -> list[str]:
    return ["-h", endpoint.host, "-p", str(endpoint.port)]


@pytest.mark.parametrize("mode", BOTH)
def test_a_backup_through_the_whole_pipeline_is_verified_down_to_its_structure(
    source: Endpoint, tmp_path: Path, mode: str
) -> None:
    places = local_places(tmp_path)
    settings: dict[str, Any] = {
        "schedule": {},
        "storage": places.storage,
        "retention": {},
        "encryption": places.encryption,
        "pipeline": {"spool": str(tmp_path / "spool"), "mode": mode},
        "sources": {
            "redis": {"component": "database", "engine": "redis_rdb", "connection": "source"}
        },
    }
    runtime = Runtime.build(
        Settings.model_validate(settings),
        FileConnections(environ={"AIRFLOW_CONN_SOURCE": connection(source, "redis")}),
    )
    runtime.__dict__["catalog"] = MemoryCatalog()
    ref = runtime.ref(set_id(at=datetime.now(UTC), run=mode), "redis")
    runtime.backups.run(ref, mode=mode)
    report = runtime.verifier.verify(ref)
    assert "PARSED" in str(report)


def test_a_dump_is_the_moment_that_it_names(source: Endpoint, dumped: Dumped) -> None:
    with client_of(source) as client:
        info: Any = client.info()
    point = dumped.manifest.dump.consistency
    assert (point["run_id"], point["replid"]) == (info["run_id"], info["master_replid"])
    assert 0 <= int(point["offset"]) <= info["master_repl_offset"]
    assert dumped.manifest.dump.notes == ()


def test_every_encoding_of_this_server_is_read_as_a_client_sees_it(
    redis_server: Endpoint, tmp_path: Path
) -> None:
    flush(redis_server)
    forms: set[int] = set()
    digests = []
    packed = {"list_max_ziplist_size": "1", "hash_max_ziplist_entries": "0"}
    packed |= {"set_max_intset_entries": "0", "zset_max_ziplist_entries": "0"}
    for settings in ({}, packed, {"rdbcompression": "no"}):
        with configured(redis_server, **settings), client_of(redis_server) as client:
            client.flushall()
            every_encoding(client)
            dumped = dump_to(tmp_path / str(len(digests)), ENGINE, redis_server)
            found: dict[bytes, str] = {}

            def visit(
                _: rdb.Contents, number: int, form: int, key: bytes, expiry: int, reader: Reader
            ) -> bool:
                forms.add(form)
                found[key] = values.digest(reader, form, moment=0)  # noqa: B023 - used at once
                return True

            with dumped.open("dump.rdb") as file:
                rdb.walk(Reader(file.read), name="dump.rdb", visit=visit)
            for key in client.scan_iter():
                seen = _digest_of_client(client, key)
                assert seen in {found[key], ""}, key
            digests.append({k: v for k, v in found.items() if not k.startswith(b"stream")})
    assert digests[0] == digests[1] == digests[2]
    assert forms == {0, 2, 4, 5, 11, 12, 13, 14, 15}
    flush(redis_server)


def _digest_of_client(client: Any, key: bytes) -> str:
    kind = client.type(key)
    if kind == b"string":
        return values._ordered([client.get(key)])
    if kind == b"list":
        return values._ordered(client.lrange(key, 0, -1))
    if kind == b"set":
        return values._unordered((one,) for one in client.smembers(key))
    if kind == b"hash":
        return values._unordered((name, one, b"0") for name, one in client.hgetall(key).items())
    if kind == b"zset":
        scored = client.zrange(key, 0, -1, withscores=True)
        return values._unordered((one, struct.pack("<d", score)) for one, score in scored)
    return ""


def test_an_empty_server_is_no_backup_unless_it_may_be_empty(
    twin: Endpoint, tmp_path: Path
) -> None:
    with pytest.raises(EmptySourceError, match="allow_empty"):
        dump_to(tmp_path / "refused", ENGINE, twin)
    dumped = dump_to(tmp_path / "allowed", ENGINE, twin, allow_empty=True)
    assert dumped.manifest.dump.empty
    ENGINE.check(dumped.manifest, dumped.open)


def test_a_dump_waits_for_a_snapshot_that_is_being_made(source: Endpoint, tmp_path: Path) -> None:
    with configured(source, rdb_key_save_delay="3000"), client_of(source) as client:
        client.bgsave()
        client.config_set("rdb-key-save-delay", "0")
        assert client.info("persistence")["rdb_bgsave_in_progress"] == 1
        dumped = dump_to(tmp_path / "dump", ENGINE, source)
    assert dumped.manifest.dump.facts["databases"]["0"]["keys"] == 100


def test_a_user_who_may_not_replicate_is_told_what_is_missing(
    source: Endpoint, tmp_path: Path
) -> None:
    with (
        user(source, "reader", "+@read", "+info", "+ping") as limited,
        pytest.raises(AccessDeniedError, match=r"ACL SETUSER.*\+psync") as caught,
    ):
        dump_to(tmp_path / "dump", ENGINE, limited)
    assert "secret-word" not in str(caught.value) + str(caught.value.facts)


def test_what_the_documentation_grants_is_enough_to_dump(source: Endpoint, tmp_path: Path) -> None:
    with user(source, "backup", "+ping", "+info", "+sync", "+psync", "+replconf") as limited:
        dumped = dump_to(tmp_path / "dump", ENGINE, limited)
    assert dumped.manifest.dump.facts["databases"]["0"]["keys"] == 100


def test_a_wrong_password_is_refused_by_name(source: Endpoint) -> None:
    for wrong in (replace(source, password="wrong"), replace(source, password="")):
        with pytest.raises(AccessDeniedError, match="password"):
            ENGINE.probe(wrong)


def test_no_password_is_in_the_list_of_processes(source: Endpoint, tmp_path: Path) -> None:
    seen: list[bytes] = []
    with proxy(source) as (endpoint, faults), configured(source, rdb_key_save_delay="1000"):
        thread = threading.Thread(target=dump_to, args=(tmp_path / "dump", ENGINE, endpoint))
        thread.start()

        def caught() -> bool:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    words = path.read_bytes()
                    if b"redis-cli" in words and str(endpoint.port).encode() in words:
                        seen.append(words)
            return bool(seen)

        wait_until(caught)
        thread.join()
    assert faults.seen
    assert source.password.encode() not in b"".join(seen)


@pytest.mark.parametrize("after", [0, 5, 100, 9_000])
def test_a_snapshot_that_is_cut_off_is_no_dump(
    source: Endpoint, tmp_path: Path, after: int
) -> None:
    with proxy(source) as (endpoint, faults):
        faults.cut_after = after
        with pytest.raises(TransientError):
            dump_to(tmp_path / "dump", ENGINE, endpoint)


def test_a_short_file_of_a_tool_that_ended_well_is_no_dump(
    source: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dump_to(tmp_path / "whole", ENGINE, source).files / "dump.rdb"
    for data in (whole.read_bytes()[:-100], whole.read_bytes() + b"more", b""):
        short = tmp_path / "short"
        short.write_bytes(data)
        monkeypatch.setattr(tools, "cli", lambda _, short=short: ["/bin/sh", "-c", f"cat {short}"])
        with pytest.raises(InterruptedToolError, match="no whole RDB"):
            dump_to(tmp_path / f"dump{len(data)}", ENGINE, source)


def test_a_flipped_bit_that_no_structure_tells_fails_the_servers_own_checksum(
    source: Endpoint, tmp_path: Path
) -> None:
    with client_of(source) as client:
        client.set("plain", "pqrstuvwxyz")
    with proxy(source) as (endpoint, faults):
        faults.change = lambda data: data.replace(b"pqrstuvwxyz", b"pqrstuvwxyy")
        with pytest.raises(DamagedError, match="redis-check-rdb"):
            dump_to(tmp_path / "dump", ENGINE, endpoint)


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (b"-MISCONF Redis is configured to save snapshots\r\n", PermanentError, "disk"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", TransientError, "loading"),
        (b"-NOMASTERLINK Can't SYNC while not connected\r\n", TransientError, "master"),
        (b"-ERR unknown command `SYNC`\r\n", AccessDeniedError, "offers no replication"),
        (b"-NOAUTH Authentication required.\r\n", AccessDeniedError, "password"),
    ],
)
def test_what_a_server_answers_instead_of_a_snapshot_has_its_own_error(
    source: Endpoint, tmp_path: Path, reply: bytes, error: type[Exception], words: str
) -> None:
    with proxy(source) as (endpoint, faults):
        faults.reply = reply
        with pytest.raises(error, match=words):
            dump_to(tmp_path / "dump", ENGINE, endpoint)


def test_a_server_whose_disk_takes_no_snapshot_is_named_as_the_cause(
    source: Endpoint, tmp_path: Path
) -> None:
    # Nobody can create a file there, not even root.
    with (
        configured(source, dir="/proc", repl_diskless_sync="no"),
        pytest.raises(PermanentError, match="last BGSAVE failed"),
    ):
        dump_to(tmp_path / "dump", ENGINE, source)
    with client_of(source) as client:
        client.save()  # which clears the mark of the failure


def test_a_server_that_sends_nothing_is_given_up(source: Endpoint, tmp_path: Path) -> None:
    with proxy(source) as (endpoint, faults):
        faults.silent = True
        with pytest.raises(UnreachableError, match="start_seconds"):
            dump_to(tmp_path / "dump", ENGINE, endpoint, start_seconds=1)


def test_a_failover_during_the_dump_is_noticed(
    source: Endpoint, twin: Endpoint, tmp_path: Path
) -> None:
    with client_of(twin) as client:
        client.config_set("requirepass", source.password)
    try:
        with proxy(source) as (endpoint, faults):
            faults.after_sync = twin
            with pytest.raises(TransientError, match="failed over"):
                dump_to(tmp_path / "dump", ENGINE, endpoint)
    finally:
        with client_of(replace(twin, password=source.password)) as client:
            client.config_set("requirepass", twin.password)


def test_a_replica_without_its_master_is_not_dumped(source: Endpoint, tmp_path: Path) -> None:
    with client_of(source) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(TransientError, match="lost its master"):
        dump_to(tmp_path / "dump", ENGINE, source)


def test_a_replica_with_its_master_is_dumped(
    source: Endpoint, twin: Endpoint, tmp_path: Path
) -> None:
    with client_of(twin) as client:
        client.config_set("masterauth", source.password)
        client.execute_command("REPLICAOF", source.host, str(source.port))
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
    dumped = dump_to(tmp_path / "dump", ENGINE, twin)
    known = dumped.manifest.dump.facts["databases"].values()
    assert sum(one["keys"] for one in known) == 200
    with pytest.raises(TargetRefusedError, match="replica"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(twin, replace=True))


# What is refused before anything is touched


def test_an_rdb_newer_than_the_target_is_refused_with_both_versions(
    twin: Endpoint, dumped: Dumped
) -> None:
    path = dumped.files / "dump.rdb"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"REDIS0009", b"REDIS0011", 1))
    facts = {**dumped.manifest.dump.facts, "rdb_version": 11, "redis_version": "7.2.4"}
    newer = replace(
        dumped,
        manifest=dumped.manifest.model_copy(
            update={"dump": dumped.manifest.dump.model_copy(update={"facts": facts})}
        ),
    )
    with pytest.raises(IncompatibleVersionError, match=r"7\.2\.4.*6\.2\.5"):
        ENGINE.preflight(newer.restorable(), RestoreTarget(twin))
    with pytest.raises(IncompatibleVersionError, match="too new"):
        ENGINE.load(newer.restorable(), RestoreTarget(twin))
    assert content(twin) == {}


def test_a_target_that_is_too_small_is_refused(twin: Endpoint, dumped: Dumped) -> None:
    with (
        configured(twin, maxmemory="1000000"),
        pytest.raises(TargetRefusedError, match="maxmemory"),
    ):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(twin))


def test_a_backup_larger_than_this_machine_is_refused(
    twin: Endpoint, dumped: Dumped, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    little = tmp_path / "meminfo"
    little.write_text("MemTotal: 9 kB\nMemAvailable:     1000 kB\n")
    monkeypatch.setattr(sidecar, "_MEMORY", little)
    with pytest.raises(ConfigurationError, match="more memory"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(twin))


@pytest.mark.parametrize("word", ["5", "other"])
def test_a_part_that_the_backup_does_not_hold_is_refused(
    twin: Endpoint, dumped: Dumped, word: str
) -> None:
    with pytest.raises(ConfigurationError, match="db0, db1, db9"):
        ENGINE.preflight(dumped.restorable(word), RestoreTarget(twin))


def test_a_mode_that_does_not_exist_is_refused(twin: Endpoint, dumped: Dumped) -> None:
    place = replace(twin, extra={"restore_mode": "magic"})
    with pytest.raises(ConfigurationError, match="magic"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(place))


def test_a_damaged_member_is_not_loaded(twin: Endpoint, dumped: Dumped) -> None:
    path = dumped.files / "dump.rdb"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"dump\.rdb"):
        ENGINE.load(dumped.restorable(), RestoreTarget(twin))


def test_what_differs_from_the_manifest_is_never_published(twin: Endpoint, dumped: Dumped) -> None:
    with client_of(twin) as client:
        client.set("precious", "kept")
    backup, place = dumped.restorable(), RestoreTarget(twin, replace=True)
    with pytest.raises(ComparisonError, match="nothing was loaded"):
        ENGINE.publish(replace_work(backup, "never"), place)
    ENGINE.load(backup, place)
    loaded = sidecar.running(backup.work)
    assert loaded is not None
    with client_of(loaded) as client:
        client.delete("memory:2:list")
    assert "list" in " ".join(map(str, ENGINE.compare(backup, place)))
    with pytest.raises(ComparisonError, match="list"):
        ENGINE.publish(backup, place)
    sandbox.stop(backup.work)
    with pytest.raises(UnreachableError, match="load step"):
        ENGINE.compare(backup, place)
    assert content(twin) == {0: {b"precious": (b"kept", 0)}}


def replace_work(backup: Restorable, name: str) -> Restorable:
    return replace(backup, work=backup.work.parent / name)


# Killed half way

# Kills itself with SIGKILL at the n-th call of one function of one module of the engine.
_KILLED = """
import os, signal, sys
from pathlib import Path
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.redis_rdb import ENGINE, keywise, takeover
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest

manifest, files, work, port, mode, place, count = sys.argv[1:]
left = [int(count)]
owner = takeover if mode == "replica" else keywise
real = getattr(owner, place)

def dying(*given, **named):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*given, **named)

backup = Restorable(
    chain=(Manifest.model_validate_json(Path(manifest).read_text()),),
    folders=(Path(files),),
    work=Path(work),
)
password = os.environ["TARGET_PASSWORD"]
extra = {"restore_mode": mode}
endpoint = Endpoint("redis", "127.0.0.1", int(port), password=password, extra=extra)
setattr(owner, place, dying)
ENGINE.publish(backup, RestoreTarget(endpoint, replace=True))
"""
# Reached in this order.
_STEPS = [
    ("replica", "_mark", 1),
    ("replica", "_await_copy", 1),
    ("replica", "restore_settings", 1),
    ("replica", "persist", 1),
    ("keys", "_restore", 2),
    ("keys", "_remove_stale", 2),
]


def killed_at(dumped: Dumped, backup: Restorable, twin: Endpoint, *step: str | int) -> None:
    path = dumped.files.parent / "manifest.json"
    path.write_text(dumped.manifest.model_dump_json())
    words = [path, dumped.files, backup.work, twin.port, *step]
    ended = subprocess.run(
        [sys.executable, "-c", _KILLED, *map(str, words)],
        env={
            **os.environ,
            "TARGET_PASSWORD": twin.password,
            "PYTHONPATH": str(Path(takeover.__file__).parents[3]),
        },
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()


@pytest.mark.parametrize(
    ("step", "again"),
    [
        *((step, "the same run") for step in _STEPS),
        *((step, "another run") for step in (_STEPS[1], _STEPS[2], _STEPS[4])),
    ],
    ids=str,
)
def test_a_publish_that_was_killed_is_finished_by_the_next_one(
    source: Endpoint, twin: Endpoint, dumped: Dumped, step: tuple[str | int, ...], again: str
) -> None:
    with configured(twin, masterauth=_OWN_AUTH):
        place = replace(twin, extra={"restore_mode": step[0]})
        backup, target = dumped.restorable(), RestoreTarget(place, replace=True)
        with client_of(twin) as client:
            client.set("stale", "of before")
        ENGINE.load(backup, target)
        assert not ENGINE.compare(backup, target)
        killed_at(dumped, backup, twin, *step)
        if again == "another run":
            # The first run's folder is gone, with the server that the target copied from.
            sandbox.stop(backup.work)
            backup = dumped.restorable(work="another")
            ENGINE.preflight(backup, target)
            ENGINE.load(backup, target)
        ENGINE.publish(backup, target)
        assert list(ENGINE.publish(backup, target)) == []
        assert same(content(twin), content(source))
        with client_of(twin) as client:
            assert client.role()[0] == b"master"
            assert client.config_get("masterauth") == {"masterauth": _OWN_AUTH}


def test_a_target_that_an_earlier_run_has_left_as_a_replica_is_not_somebody_elses_data(
    source: Endpoint, twin: Endpoint, dumped: Dumped
) -> None:
    backup = dumped.restorable()
    ENGINE.load(backup, RestoreTarget(twin))
    ENGINE.compare(backup, RestoreTarget(twin))
    killed_at(dumped, backup, twin, "replica", "restore_settings", 1)
    sandbox.stop(backup.work)
    fresh = dumped.restorable(work="another")
    assert any("cut off" in note for note in ENGINE.preflight(fresh, RestoreTarget(twin)))
    restore_all(ENGINE, fresh, twin)
    assert same(content(twin), content(source))


# A server that is stopped


@pytest.fixture
def stopped(tmp_path: Path) -> Endpoint:
    """An endpoint that nobody answers, whose RDB would be a file of this test."""
    folder = tmp_path / "redis"
    folder.mkdir(mode=0o750)
    path = folder / "dump.rdb"
    path.write_bytes(b"the old one")
    path.chmod(0o640)
    return Endpoint("redis", "127.0.0.1", 1, extra={"rdb_path": str(path)})


def test_a_stopped_server_finds_the_restored_file_and_the_old_one_is_kept(
    source: Endpoint, stopped: Endpoint, dumped: Dumped, tmp_path: Path
) -> None:
    place = Path(stopped.extra["rdb_path"])
    if os.geteuid() == 0:
        os.chown(place, 12345, 54321)
    with pytest.raises(TargetRefusedError, match="exists"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(stopped))
    notes = restore_all(ENGINE, dumped.restorable(), stopped, replace=True)
    assert list(ENGINE.publish(dumped.restorable(), RestoreTarget(stopped))) == []
    found = {path.name for path in place.parent.iterdir()}
    (kept,) = found - {"dump.rdb"}
    assert kept.startswith("dump.rdb.before_")
    assert any(kept in note for note in notes)
    assert (place.parent / kept).read_bytes() == b"the old one"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    if os.geteuid() == 0:
        assert (place.stat().st_uid, place.stat().st_gid) == (12345, 54321)
    server = sidecar.Sidecar(rdb=place, address="127.0.0.1", databases=16)
    assert same(content(sandbox.launch(tmp_path / "started", server)), content(source))
    place.write_bytes(place.read_bytes()[:-200])
    with pytest.raises(DamagedError):
        ENGINE.compare(dumped.restorable(), RestoreTarget(stopped))


@pytest.mark.parametrize("step", ["_kept", "_sync"])
def test_a_file_is_put_in_place_once_however_often_it_was_interrupted(
    stopped: Endpoint, dumped: Dumped, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class KilledError(BaseException):
        pass

    def dying(*_: object) -> None:
        raise KilledError

    backup, target = dumped.restorable(), RestoreTarget(stopped, replace=True)
    ENGINE.load(backup, target)
    ENGINE.compare(backup, target)
    with monkeypatch.context() as patch:
        patch.setattr(placing, step, dying)
        with pytest.raises(KilledError):
            ENGINE.publish(backup, target)
    ENGINE.publish(backup, target)
    place = Path(stopped.extra["rdb_path"])
    assert not ENGINE.compare(backup, target)
    kept = [path for path in place.parent.iterdir() if path != place]
    assert [path.read_bytes() for path in kept] == [b"the old one"]


def test_a_full_disk_leaves_the_old_file_as_it_was(
    stopped: Endpoint, dumped: Dumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    backup, target = dumped.restorable(), RestoreTarget(stopped, replace=True)
    ENGINE.load(backup, target)
    monkeypatch.setattr(placing, "copy", full)
    with pytest.raises(PermanentError, match="No space left"):
        ENGINE.publish(backup, target)
    place = Path(stopped.extra["rdb_path"])
    assert [path.read_bytes() for path in place.parent.iterdir()] == [b"the old one"]


@pytest.mark.parametrize("settings", [{"appendonly": "yes"}, {"save": "3600 1"}])
def test_a_target_that_cannot_write_its_own_disk_is_no_success(
    twin: Endpoint, settings: dict[str, str]
) -> None:
    with configured(twin, **settings), client_of(twin) as client:
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
        with configured(twin, dir="/proc"):
            if "appendonly" in settings:
                client.bgrewriteaof()
            with pytest.raises(PermanentError, match="could not write"):
                takeover.persist(twin, seconds=10)
        client.bgrewriteaof()
        client.save()


@pytest.mark.parametrize("name", ["appendonly.aof", "appendonlydir"])
def test_append_only_files_that_would_win_at_the_start_are_refused(
    stopped: Endpoint, dumped: Dumped, name: str
) -> None:
    (Path(stopped.extra["rdb_path"]).parent / name).mkdir()
    with pytest.raises(ConfigurationError, match="appendonly no"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(stopped, replace=True))


def test_the_file_of_a_server_that_runs_is_refused(
    redis_server: Endpoint, dumped: Dumped, stopped: Endpoint
) -> None:
    with client_of(redis_server) as client:
        folder = client.config_get("dir")["dir"]
    place = replace(stopped, extra={"rdb_path": f"{folder}/dump.rdb"})
    with pytest.raises(TargetRefusedError, match="process"):
        ENGINE.preflight(dumped.restorable(), RestoreTarget(place, replace=True))


def test_a_stopped_server_takes_no_part(stopped: Endpoint, dumped: Dumped) -> None:
    with pytest.raises(ConfigurationError, match="whole backup"):
        ENGINE.preflight(dumped.restorable("1"), RestoreTarget(stopped, replace=True))


def test_the_engine_is_known_without_its_client_library() -> None:
    words = "import sys; import neuroca_backup.engines.redis_rdb; print('redis' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, "PYTHONPATH": str(Path(session.__file__).parents[3])},
        check=True,
        capture_output=True,
    )
    assert found.stdout.strip() == b"False"


def test_of_two_servers_the_error_names_the_one_that_ended(
    source: Endpoint, twin: Endpoint, dumped: Dumped, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = dumped.restorable()
    place = RestoreTarget(replace(twin, extra={"restore_mode": "keys"}))
    ENGINE.load(backup, place)
    ENGINE.compare(backup, place)
    loaded = sidecar.running(backup.work)
    assert loaded is not None
    real = keywise._restore

    def ended(*given: Any) -> None:
        sandbox.stop(backup.work)
        real(*given)

    monkeypatch.setattr(keywise, "_restore", ended)
    with pytest.raises(UnreachableError, match=loaded.label):
        ENGINE.publish(backup, place)
