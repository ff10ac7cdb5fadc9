"""Tools, regions, keys, disks and logins that fail: told by name, with nothing half-done left."""

# ruff: noqa: S607 - mount and umount are where the system has them

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from neuroca_backup import postgres_tools as tools
from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.postgresql import dump as dumping
from neuroca_backup.engines.postgresql import restore as restoring
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    EmptySourceError,
    IncompatibleVersionError,
    InterruptedToolError,
    NotFoundError,
    SpoolError,
    StoreUnavailableError,
    ToolFailedError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.keyring.recovery import RecoveryPrivateKey, generate_recovery_pair
from neuroca_backup.model.tickets import Ticket
from support.wiring import (
    BOTH,
    back_up,
    count_rows,
    databases,
    drop_databases,
    fresh_ref,
    keys_in,
    plan_of,
    region_places,
    restore,
    session,
    spool_names,
    wire,
)

if TYPE_CHECKING:
    from conftest import Bench
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.runtime import Runtime


def assert_nothing_stored(runtime: Runtime, ref: BackupRef) -> None:
    for store in runtime.stores:
        assert keys_in(runtime, store, ref) == []


def wrap(folder: Path, tool: str, ending: str) -> None:
    """Put a script in the way of `tool`: the real one does its work, then `ending` happens."""
    real = next(one / tool for one in tools._folders()[1:] if (one / tool).is_file())
    script = folder / tool
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) exec {real} "$@";; esac\n{real} "$@"\n{ending}\n'
    )
    script.chmod(0o755)


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        ('echo "pg_dump: error: told $PGPASSWORD" >&2; exit 3', ToolFailedError),
        ("kill -9 $$", InterruptedToolError),
    ],
)
def test_a_dump_that_fails_after_its_bytes_is_no_backup(
    bench: Bench,
    tools_folder: Path,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    ending: str,
    kind: type[BackupError],
) -> None:
    caplog.set_level(logging.DEBUG)
    wrap(tools_folder, "pg_dump", ending)
    runtime = bench.runtime(mode)
    ref = fresh_ref(runtime)
    with pytest.raises(kind) as caught:
        runtime.backups.run(ref, mode=mode)
    assert_nothing_stored(runtime, ref)
    assert spool_names(runtime) == []
    if kind is ToolFailedError:
        assert "told ***" in caught.value.facts["stderr"]
        assert caught.value.facts["exit_code"] == 3
    told = [str(caught.value), repr(caught.value), caplog.text, repr(caught.value.facts)]
    told += traceback.format_exception(caught.value)
    assert not [text for text in told if bench.source.password in text]


@pytest.mark.parametrize("tool", ["pg_restore", "psql"])
def test_a_restore_tool_that_fails_after_its_work_is_no_restore(
    bench: Bench, tools_folder: Path, tool: str
) -> None:
    runtime = bench.runtime()
    back_up(runtime)
    wrap(tools_folder, tool, "exit 3")
    tools._folders.cache_clear()
    with pytest.raises(ToolFailedError):
        restore(runtime, bench.twin)
    assert bench.database not in databases(bench.twin)


@pytest.fixture
def own_regions(tmp_path: Path) -> Iterator[tuple[Path, dict[str, Endpoint]]]:
    """Two regions that this test may lose."""
    root = tmp_path / "regions"
    started = sandbox.start(root, ["s3_us_west_2", "s3_eu_central_1"])
    try:
        yield root, {str(one.extra["region_name"]): one for one in started.values()}
    finally:
        sandbox.stop(root)


def test_a_lost_region_is_survived_and_without_any_kms_the_recovery_key_opens_the_backup(
    bench: Bench,
    own_regions: tuple[Path, dict[str, Endpoint]],
    object_stores: dict[str, Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    # One try a call, so that the test does not wait out the SDK's patience with a dead region.
    monkeypatch.setattr("neuroca_backup.connections.AWS_ATTEMPTS", 1)
    root, regions = own_regions
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    generate_recovery_pair(private, public, b"kept apart")
    places = region_places(regions, recovery_key=public)

    def wired(**more: Any) -> Runtime:
        return wire(
            places,
            postgres=bench.source,
            spool=bench.spool,
            mode="streamed",
            options={"databases": [bench.database]},
            **more,
        )

    ref = back_up(wired())
    sandbox.stop(root, ["s3_us_west_2"])
    restored = restore(wired(), bench.twin)
    assert restored.fetched.bytes_by_store.keys() == {"secondary"}
    assert any("primary" in note for note in restored.fetched.fallbacks) or (
        restored.plan.stores[0] == "secondary"
    )
    assert count_rows(bench.twin, bench.database) == 200
    with pytest.raises(TransientError, match="primary"):
        wired().verifier.verify(ref)
    with pytest.raises(TransientError):
        wired().backups.run(fresh_ref(wired()), mode="streamed")

    # The keys of both regions are gone, the bucket is not: KMS is asked where nothing answers.
    nowhere = {
        **places.environ,
        "AIRFLOW_CONN_NOWHERE": places.environ["AIRFLOW_CONN_US"],
    }
    lost = replace(
        places,
        environ=nowhere,
        encryption={
            **places.encryption,
            "kms_connection": "nowhere",
            "secondary_kms_connection": "nowhere",
        },
    )
    places = lost
    with pytest.raises(TransientError, match="recovery"):
        wired().restores.fetch(plan_of(wired(), ref))
    key = RecoveryPrivateKey(private, lambda: b"kept apart")
    drop_databases(bench.twin, like=bench.database)
    restore(wired(extra_recipients=[key]), bench.twin, ref=ref)
    assert count_rows(bench.twin, bench.database) == 200


def test_a_key_that_may_not_wrap_fails_before_the_dump(
    bench: Bench, object_stores: dict[str, Endpoint]
) -> None:
    places = region_places(object_stores)
    arn = str(places.encryption["secondary_kms_key_id"])
    missing = arn.rpartition("/")[0] + "/00000000-0000-0000-0000-000000000000"
    places = replace(places, encryption={**places.encryption, "secondary_kms_key_id": missing})
    for mode in BOTH:
        runtime = wire(places, postgres=bench.source, spool=bench.spool, mode=mode)
        ref = fresh_ref(runtime)
        with pytest.raises(BackupError, match="00000000-0000") as caught:
            runtime.backups.run(ref, mode=mode)
        assert not isinstance(caught.value, TransientError)
        assert_nothing_stored(runtime, ref)
        assert spool_names(runtime) == []


def test_a_missing_bucket_fails_before_the_dump(
    bench: Bench, object_stores: dict[str, Endpoint]
) -> None:
    places = region_places(object_stores)
    storage = {**places.storage}
    storage["secondary"] = {**storage["secondary"], "bucket": "nobody-made-this-bucket"}
    runtime = wire(replace(places, storage=storage), postgres=bench.source, spool=bench.spool)
    with pytest.raises(NotFoundError, match="nobody-made-this-bucket"):
        runtime.backups.run(fresh_ref(runtime), mode="staged")
    assert spool_names(runtime) == []


@contextmanager
def cutting_proxy(url: str, *, after: int) -> Iterator[str]:
    """Forward TCP to `url`, but cut every connection once the client has sent `after` bytes."""
    address = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]

    def pump(source: socket.socket, sink: socket.socket, limit: float) -> None:
        sent = 0
        with suppress(OSError):
            while (data := source.recv(65536)) and (sent := sent + len(data)) <= limit:
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((address.hostname or "", address.port or 0))
            opened.extend((client, server))
            for pair in ((client, server, after), (server, client, float("inf"))):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for one in opened:
            one.close()


@pytest.mark.parametrize("mode", BOTH)
def test_an_upload_that_is_cut_leaves_no_backup(
    bench: Bench,
    object_stores: dict[str, Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setattr("neuroca_backup.connections.AWS_ATTEMPTS", 1)
    with session(bench.source) as opened:
        opened.execute("CREATE TABLE memory.noise (payload bytea)")
        opened.execute(
            "INSERT INTO memory.noise SELECT decode(string_agg(md5(n::text || m::text), ''),"
            " 'hex') FROM generate_series(1, 64) AS n, generate_series(1, 512) AS m GROUP BY n"
        )
    us = object_stores["us-west-2"]
    with cutting_proxy(us.extra["endpoint_url"], after=200_000) as url:
        regions = {
            **object_stores,
            "us-west-2": replace(us, extra={**us.extra, "endpoint_url": url}),
        }
        runtime = wire(
            region_places(regions),
            postgres=bench.source,
            spool=bench.spool,
            mode=mode,
            options={"databases": [bench.database]},
        )
        ref = fresh_ref(runtime)
        with pytest.raises(TransientError):
            runtime.backups.run(ref, mode=mode)
        kept = keys_in(runtime, "primary", ref)
        assert ref.manifest_key not in kept
        assert not [key for key in kept if "noise" in key]
        if mode == "streamed":
            assert kept == []
        assert keys_in(runtime, "secondary", ref) == []
        assert runtime.stores["primary"].sweep_uploads(older_than=timedelta(hours=-1)) == 0
        assert spool_names(runtime) == []


class _LostAnswer:
    """A store whose conditional put is done, and its answer lost."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        self._store.put(key, data, create_only=create_only)
        if create_only:
            raise StoreUnavailableError(f"{key}: no answer", remedy="It is tried again.")


def test_a_lost_answer_to_the_manifest_does_not_cost_the_backup(bench: Bench) -> None:
    runtime = bench.runtime("streamed")
    ref = fresh_ref(runtime)
    real = dict(runtime.stores)
    runtime.__dict__["stores"] = {**real, "primary": _LostAnswer(real["primary"])}
    with pytest.raises(StoreUnavailableError):
        runtime.backups.stream(ref)
    again = bench.runtime("streamed")
    again.backups.run(ref, mode="streamed")
    again.verifier.verify(ref)
    restore(again, bench.twin)
    assert count_rows(bench.twin, bench.database) == 200


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"password": "wrong-but-still-secret"}, AccessDeniedError),
        ({"user": "nobody_of_that_name"}, AccessDeniedError),
        ({"port": 1}, UnreachableError),
    ],
)
def test_a_login_that_fails_is_told_without_the_password(
    bench: Bench, change: dict[str, Any], kind: type[BackupError]
) -> None:
    runtime = wire(
        bench.places, postgres=replace(bench.source, **change), spool=bench.spool, mode="streamed"
    )
    ref = fresh_ref(runtime)
    with pytest.raises(kind) as caught:
        runtime.backups.run(ref, mode="streamed")
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.facts)
    assert bench.source.password not in told
    assert "wrong-but-still-secret" not in told
    assert_nothing_stored(runtime, ref)


def test_a_server_newer_than_the_tools_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = bench.runtime()
    monkeypatch.setattr(dumping, "server_version", lambda _endpoint: "99.1")
    with pytest.raises(IncompatibleVersionError, match=r"99\.1") as caught:
        runtime.backups.run(fresh_ref(runtime), mode="staged")
    assert tools.version("pg_dump") in str(caught.value)


def test_a_target_older_than_the_backup_is_refused_before_anything_is_touched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = bench.runtime()
    back_up(runtime)
    before = databases(bench.twin)
    monkeypatch.setattr(restoring, "server_version", lambda _endpoint: "12.7")
    with pytest.raises(IncompatibleVersionError, match=r"12\.7"):
        restore(runtime, bench.twin)
    assert databases(bench.twin) == before


def test_tools_too_old_for_a_backup_are_an_error_and_no_finding(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = bench.runtime()
    ref = back_up(runtime)
    monkeypatch.setattr(tools, "version", lambda _tool: "9.6")
    with pytest.raises(IncompatibleVersionError, match=r"9\.6"):
        runtime.verifier.verify(ref)
    monkeypatch.undo()
    assert plan_of(runtime).verified


def test_a_source_that_lost_its_tables_is_no_backup_unless_it_is_said_to_be_empty(
    bench: Bench,
) -> None:
    with session(bench.source) as opened:
        opened.execute("DROP SCHEMA memory CASCADE")
    for mode in BOTH:
        runtime = bench.runtime(mode)
        ref = fresh_ref(runtime)
        with pytest.raises(EmptySourceError, match=bench.database):
            runtime.backups.run(ref, mode=mode)
        assert_nothing_stored(runtime, ref)
    runtime = wire(
        bench.places,
        postgres=bench.source,
        spool=bench.spool,
        options={"databases": [bench.database], "allow_empty": True},
    )
    back_up(runtime)
    restore(runtime, bench.twin)
    assert bench.database in databases(bench.twin)


def test_a_backup_from_the_future_is_not_preferred_to_one_with_a_believable_time(
    bench: Bench,
) -> None:
    runtime = bench.runtime("streamed")
    ahead = back_up(runtime, age=timedelta(days=-400))
    assert plan_of(runtime).backup_id == ahead.backup_id  # better than none
    today = back_up(runtime)
    assert plan_of(runtime).backup_id == today.backup_id
    assert plan_of(runtime, ahead).backup_id == ahead.backup_id


def test_a_spool_that_others_may_read_is_refused(bench: Bench) -> None:
    bench.spool.mkdir(mode=0o755)
    bench.spool.chmod(0o755)
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    with pytest.raises(SpoolError, match="chmod 700"):
        runtime.backups.run(ref, mode="staged")
    assert_nothing_stored(runtime, ref)


def test_a_spool_of_another_machine_is_told_with_both_remedies(bench: Bench) -> None:
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    ticket = runtime.backups.dump(ref)
    elsewhere = bench.runtime(spool=bench.root / "another machine")
    with pytest.raises(SpoolError) as caught:
        elsewhere.backups.compress(ticket)
    assert "shared volume" in caught.value.remedy
    assert "streamed" in caught.value.remedy
    assert isinstance(ticket, Ticket)
    runtime.backups.clear(ref)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a tmpfs; see the next test")
@pytest.mark.parametrize("stage", ["dump", "compress", "fetch"])
def test_a_full_spool_is_told_with_its_remedy(bench: Bench, stage: str, tmp_path: Path) -> None:
    with session(bench.source) as opened:
        opened.execute("CREATE TABLE memory.noise (payload bytea)")
        opened.execute(
            "INSERT INTO memory.noise SELECT decode(string_agg(md5(n::text || m::text), ''),"
            " 'hex') FROM generate_series(1, 256) AS n, generate_series(1, 512) AS m GROUP BY n"
        )
    size = {"dump": "2m", "compress": "5m", "fetch": "2m"}[stage]  # the dump has 4 MB in hex
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(small)], check=True
    )
    try:
        runtime = bench.runtime(spool=small)
        if stage == "fetch":
            back_up(bench.runtime("streamed"))
            plan = plan_of(runtime)
            with pytest.raises(SpoolError, match="bytes free"):
                runtime.restores.preflight(plan, RestoreTarget(bench.twin))
            with pytest.raises(SpoolError, match="is full"):
                runtime.restores.fetch(plan)
            runtime.restores.clear(plan.restore_id)
        else:
            ref = fresh_ref(runtime)
            with pytest.raises(SpoolError, match=r"full|No space left") as caught:
                runtime.backups.run(ref, mode="staged")
            assert "pace" in caught.value.remedy
            assert_nothing_stored(runtime, ref)
        assert spool_names(runtime) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_file_above_the_quota_of_the_spool_is_told_as_a_full_spool(bench: Bench) -> None:
    """The limit that any user can set on a process stands for a quota."""
    import resource  # noqa: PLC0415 - only here

    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    ticket = runtime.backups.dump(ref)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(SpoolError, match="is full"):
            runtime.backups.compress(ticket)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    runtime.backups.clear(ref)
    assert_nothing_stored(runtime, ref)


def test_what_lies_in_the_spool_is_for_its_owner_alone(bench: Bench) -> None:
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    runtime.backups.dump(ref)
    home = bench.spool / ref.backup_id
    assert stat.S_IMODE(bench.spool.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    runtime.backups.clear(ref)


def test_an_unknown_option_is_told_with_those_that_exist(bench: Bench) -> None:
    runtime = wire(
        bench.places, postgres=bench.source, spool=bench.spool, options={"database": "neuroca"}
    )
    with pytest.raises(ConfigurationError, match="databases, jobs, checksums, allow_empty"):
        runtime.backups.run(fresh_ref(runtime), mode="staged")
