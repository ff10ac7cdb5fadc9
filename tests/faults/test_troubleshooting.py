"""The runbook's table of troubles, each provoked: the program names the cause and the remedy.

docs/reference/troubleshooting.md says which test proves which row; what was proven elsewhere
already is not repeated here.
"""

from __future__ import annotations

import ast
import logging
import re
import resource
import secrets
import signal
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from neuroca_backup import postgres_tools as tools
from neuroca_backup.errors import (
    AccessDeniedError,
    ComparisonError,
    PermanentError,
    TransientError,
)
from neuroca_backup.services import progress
from support.wiring import (
    BOTH,
    back_up,
    count_rows,
    databases,
    fresh_ref,
    keys_in,
    region_places,
    restore,
    session,
    spool_names,
    wire,
)

if TYPE_CHECKING:
    from conftest import Bench
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.runtime import Runtime

TESTS = Path(__file__).resolve().parents[1]
PAGE = TESTS.parent / "docs" / "reference" / "troubleshooting.md"
# What the runbook lists: common backup issues, then common restore issues.
ISSUES = (
    *("Backup failure", "Slow backup performance", "Corrupted backup files", "Backup timeout"),
    *("Restore failure", "Incomplete restore", "Permission issues", "Data inconsistency"),
)


def make_noise(endpoint: Endpoint) -> None:
    """Add two megabytes that no compression makes smaller."""
    with session(endpoint) as opened:
        opened.execute("CREATE TABLE memory.noise (payload bytea)")
        opened.execute(
            "INSERT INTO memory.noise SELECT decode(string_agg(md5(n::text || m::text), ''),"
            " 'hex') FROM generate_series(1, 256) AS n, generate_series(1, 512) AS m GROUP BY n"
        )


def assert_repeated_whole(bench: Bench, runtime: Runtime, mode: str) -> None:
    """After all that, a backup is made and brings every row back."""
    ref = fresh_ref(runtime)
    runtime.backups.run(ref, mode=mode)
    runtime.verifier.verify(ref)
    restore(runtime, bench.twin, ref=ref)
    assert count_rows(bench.twin, bench.database) == 200


# Backup failure: insufficient disk space


def test_a_store_without_space_is_named_and_holds_nothing_half_done(bench: Bench) -> None:
    make_noise(bench.source)
    runtime = bench.runtime("streamed")
    ref = fresh_ref(runtime)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(PermanentError, match="no space is left") as caught:
            runtime.backups.run(ref, mode="streamed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "store primary" in str(caught.value)
    assert "Free space" in caught.value.remedy
    for store in runtime.stores:
        assert keys_in(runtime, store, ref) == []
    assert_repeated_whole(bench, runtime, "streamed")


# Slow backup performance: network congestion


def test_slow_work_says_how_far_it_is_how_fast_and_how_long_it_will_take(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    runtime = bench.runtime()
    ref = fresh_ref(runtime)
    runtime.backups.run(ref, mode="staged")
    for stage in ("compress", "encrypt", "upload", "replicate"):
        line = rf"{stage} {ref.backup_id}: [\d.]+ MB at [\d.]+ MB/s, \d+ %, \d+ s remaining"
        assert re.search(line, caplog.text), stage


@contextmanager
def stalling_proxy(url: str, *, stalls: int) -> Iterator[tuple[str, list[int]]]:
    """Forward TCP to `url`, but take the first `stalls` connections and never answer them.

    Gives the proxy's own address and a list that grows by one with every stalled connection.
    """
    address = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = [listener]
    stalled: list[int] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
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
            opened.append(client)
            if len(stalled) < stalls:
                stalled.append(client.fileno())
                continue
            server = socket.create_connection((address.hostname or "", address.port or 0))
            opened.append(server)
            for pair in ((client, server), (server, client)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", stalled
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        for one in opened:
            one.close()


@pytest.mark.parametrize("stalls", [1, 1000])
def test_a_store_that_stalls_is_outlasted_or_named(
    bench: Bench,
    object_stores: dict[str, Endpoint],
    monkeypatch: pytest.MonkeyPatch,
    stalls: int,
) -> None:
    monkeypatch.setattr("neuroca_backup.connections.AWS_READ_SECONDS", 0.5)
    monkeypatch.setattr("neuroca_backup.connections.AWS_ATTEMPTS", 3)
    us = object_stores["us-west-2"]
    with stalling_proxy(us.extra["endpoint_url"], stalls=stalls) as (url, stalled):
        through = replace(us, extra={**us.extra, "endpoint_url": url})
        places = region_places({**object_stores, "us-west-2": through})
        # The keys are asked for past the proxy: the store alone stalls.
        straight = region_places(object_stores).environ["AIRFLOW_CONN_US"]
        places = replace(
            places,
            encryption={**places.encryption, "kms_connection": "straight"},
            environ={**places.environ, "AIRFLOW_CONN_STRAIGHT": straight},
        )
        runtime = wire(
            places,
            postgres=bench.source,
            spool=bench.spool,
            mode="streamed",
            options={"databases": [bench.database]},
        )
        begun = time.monotonic()
        if stalls == 1:
            assert_repeated_whole(bench, runtime, "streamed")
        else:
            with pytest.raises(TransientError, match="primary") as caught:
                runtime.backups.run(fresh_ref(runtime), mode="streamed")
            assert urlsplit(url).netloc in str(caught.value)
            assert "again" in caught.value.remedy
        assert stalled
        assert time.monotonic() - begun < 60


# Backup timeout: large data volume


class TimeLimitError(BaseException):
    """What a scheduler raises in the middle of whatever is done; Airflow's is no `Exception`."""


@pytest.mark.parametrize("stage", ["dump", "compress", "encrypt", "upload", "replicate", "stream"])
def test_a_backup_ended_at_its_time_limit_counts_for_nothing_and_its_repeat_is_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    mode = "streamed" if stage == "stream" else "staged"
    runtime = bench.runtime(mode)
    ref = fresh_ref(runtime)
    add = progress.Progress.add

    def limited(self: progress.Progress, count: int) -> None:
        add(self, count)
        if self.label.startswith(f"{stage} ") and self.done > 100:
            signal.raise_signal(signal.SIGALRM)

    def end(*_: Any) -> None:
        raise TimeLimitError

    monkeypatch.setattr(progress.Progress, "add", limited)
    before = signal.signal(signal.SIGALRM, end)
    try:
        with pytest.raises(TimeLimitError):
            runtime.backups.run(ref, mode=mode)
    finally:
        signal.signal(signal.SIGALRM, before)
        monkeypatch.undo()
    runtime.backups.clear(ref)
    assert spool_names(runtime) == []
    for store in runtime.stores if stage != "replicate" else ["secondary"]:
        assert ref.manifest_key not in keys_in(runtime, store, ref)
    runtime.backups.run(ref, mode=mode)
    runtime.verifier.verify(ref)
    restore(runtime, bench.twin, ref=ref)
    assert count_rows(bench.twin, bench.database) == 200


# Permission issues: incorrect credentials


@contextmanager
def role(server: Endpoint, words: str = "") -> Iterator[Endpoint]:
    """Give a login of its own on `server`, which may do nothing but what `words` say."""
    name, password = f"limited_{secrets.token_hex(4)}", secrets.token_hex(16)
    with session(server) as opened:
        opened.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} " + words).format(  # type: ignore[arg-type]
                sql.Identifier(name), sql.Literal(password)
            )
        )
    try:
        yield replace(server, user=name, password=password)
    finally:
        with session(server) as opened:
            opened.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            opened.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_target_that_refuses_the_login_is_named_and_left_alone(bench: Bench) -> None:
    runtime = bench.runtime()
    back_up(runtime)
    before = databases(bench.twin)
    wrong = replace(bench.twin, password="wrong-but-still-secret")
    with pytest.raises(AccessDeniedError, match=wrong.label) as caught:
        restore(runtime, wrong)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.facts)
    assert "wrong-but-still-secret" not in told
    assert "password" in caught.value.remedy
    assert databases(bench.twin) == before


def test_a_user_who_may_not_read_a_table_is_told_and_there_is_no_backup(bench: Bench) -> None:
    with role(bench.source) as limited:
        with session(bench.source) as opened:
            opened.execute(
                sql.SQL("GRANT USAGE ON SCHEMA memory TO {}").format(sql.Identifier(limited.user))
            )
        runtime = wire(
            bench.places,
            postgres=limited,
            spool=bench.spool,
            options={"databases": [bench.database]},
        )
        ref = fresh_ref(runtime)
        with pytest.raises(AccessDeniedError, match="items") as caught:
            runtime.backups.run(ref, mode="staged")
        assert limited.password not in str(caught.value) + repr(caught.value.facts)
    for store in runtime.stores:
        assert keys_in(runtime, store, ref) == []


@pytest.mark.parametrize("mode", BOTH)
def test_the_rights_that_the_manual_grants_are_enough(bench: Bench, mode: str) -> None:
    with role(bench.source, "BYPASSRLS IN ROLE pg_read_all_data") as reader:
        runtime = wire(
            bench.places,
            postgres=reader,
            spool=bench.spool,
            mode=mode,
            options={"databases": [bench.database], "jobs": 1},
        )
        assert_repeated_whole(bench, runtime, mode)


def test_a_user_who_may_not_create_a_database_is_told_and_none_is_left(bench: Bench) -> None:
    runtime = bench.runtime()
    back_up(runtime)
    before = databases(bench.twin)
    with role(bench.twin) as limited, pytest.raises(AccessDeniedError) as caught:
        restore(runtime, limited)
    assert "CREATEDB" in str(caught.value) or "permission denied" in str(caught.value)
    assert databases(bench.twin) == before


# Data inconsistency: partial restore


def test_a_restore_that_lost_rows_without_an_error_never_takes_its_place(
    bench: Bench, tools_folder: Path
) -> None:
    runtime = bench.runtime()
    back_up(runtime)
    real = next(one / "pg_restore" for one in tools._folders()[1:] if (one / "pg_restore").exists())
    script = tools_folder / "pg_restore"
    script.write_text(
        f'#!/bin/sh\ncase "$*" in *--version*) exec {real} "$@";; esac\n'
        f'exec {real} --schema-only "$@"\n'
    )
    script.chmod(0o755)
    tools._folders.cache_clear()
    with pytest.raises(ComparisonError, match=r"memory\.items") as caught:
        restore(runtime, bench.twin)
    assert "200" in str(caught.value) + repr(caught.value.facts)
    assert bench.database not in databases(bench.twin)


# The page


def rows() -> list[list[str]]:
    """Return the cells of every row of the page's tables."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    found = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in found if row[0] != "Symptom"]


def test_every_trouble_of_the_runbook_has_a_row() -> None:
    told = [row[0] for row in rows()]
    assert [issue for issue in ISSUES if not any(one.startswith(issue) for one in told)] == []


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}, {row[1]}")
def test_every_row_names_a_test_that_exists(row: list[str]) -> None:
    assert len(row) == 5
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[4])
    assert named, "no test proves it"
    for path, test in named:
        assert test in functions_of(TESTS / path), f"{path} has no {test}"


def functions_of(path: Path) -> set[str]:
    """Return the names of the tests in a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
