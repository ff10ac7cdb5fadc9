"""PostgreSQL, physical, end to end: chains, moments between backups, and what breaks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self

import pytest

from neuroca_backup import postgres_tools as tools
from neuroca_backup import sandbox
from neuroca_backup.engines import Parent, Restorable, RestoreTarget
from neuroca_backup.engines.postgresql_physical import ENGINE, unpack
from neuroca_backup.errors import (
    AccessDeniedError,
    ChainBrokenError,
    ConfigurationError,
    DamagedError,
    IncompatibleVersionError,
    InterruptedToolError,
    SpoolError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder
from support.engines.postgresql_physical import opened, restored_folder
from support.wiring import add_rows, count_rows, scratch_database, session

METHODS = ("summaries", "wal")


@dataclass
class Chain:
    """Backups of one source in the order they were taken, as a restore finds them in the spool."""

    source: Endpoint
    root: Path
    directory: Path
    options: dict[str, Any]
    manifests: list[Manifest] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    @property
    def target(self) -> RestoreTarget:
        return RestoreTarget(
            Endpoint(kind="postgres", extra={"data_directory": str(self.directory)})
        )

    def parent(self) -> Parent:
        files = self.folders[-1]
        return Parent(self.manifests[-1], lambda name: (files / name).open("rb"))

    def dump(self, sink: type[SpoolSink] = SpoolSink, **options: Any) -> Manifest:
        """Take the next backup: a full one first, then incremental ones."""
        number = len(self.manifests)
        folder = Folder(self.root / f"{number}-{time.monotonic_ns()}")
        folder.files.mkdir(parents=True)
        into = sink(folder, Progress("dump"))
        begun = datetime.now(UTC)
        found = ENGINE.dump(
            self.source,
            into,
            ENGINE.options({**self.options, **options}),
            self.parent() if self.manifests else None,
        )
        of = set_id(at=begun, run=str(folder.path))
        ref = BackupRef.of(of, Component.DATABASE, "postgres")
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=of,
            component=ref.component,
            source=ref.source,
            engine=ENGINE.kind,
            attempt="a1b2c3d4",
            kind="incremental" if self.manifests else "full",
            parent=self.manifests[-1].backup_id if self.manifests else None,
            stages=(),
            dump=found,
            members=tuple(
                Member(name=one.name, plain=one.plain, stored=one.current) for one in into.members
            ),
            started_at=begun,
            finished_at=datetime.now(UTC),
            product="test",
        )
        self.manifests.append(manifest)
        self.folders.append(folder.files)
        return manifest

    def upto(self, count: int = 0, *, until: datetime | None = None) -> Restorable:
        """The first `count` backups, or all, as a restore gets them."""
        end = count or len(self.manifests)
        return Restorable(
            chain=tuple(self.manifests[:end]),
            folders=tuple(self.folders[:end]),
            work=self.root / "work",
            until=until,
        )

    def restore(self, backup: Restorable, target: RestoreTarget | None = None) -> list[str]:
        """Restore with every step, as whoever drives a restore does."""
        place = target or self.target
        notes = [*ENGINE.preflight(backup, place), *ENGINE.load(backup, place)]
        assert list(ENGINE.compare(backup, place)) == []
        return [*notes, *ENGINE.publish(backup, place)]

    def rows(self) -> int:
        with opened(self.directory, self.source.database) as found:
            return int(found.execute("SELECT count(*) FROM memory.items").fetchall()[0][0])

    def slot(self) -> Any:
        with session(self.source) as found:
            return found.execute(
                "SELECT restart_lsn, wal_status FROM pg_replication_slots WHERE slot_name = %s",
                [self.options["slot"]],
            ).fetchone()


class NoTree(SpoolSink):
    """A sink that gives no tool a directory, as a streamed backup does not."""

    def tree(self, name: str) -> Any:  # noqa: ARG002 - the contract
        return None


class Full(SpoolSink):
    """A sink whose disk is full as soon as WAL arrives."""

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        if name.startswith("wal/"):
            raise SpoolError("full", remedy="-")
        with super().member(name) as out:
            yield out


@pytest.fixture
def chain(
    postgres_alone: Endpoint, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Chain]:
    name = f"physical_{abs(hash(request.node.name)):x}"
    with restored_folder() as folder, scratch_database(postgres_alone, name) as source:
        made = Chain(
            source=source,
            root=tmp_path,
            directory=folder / "data",
            options={"slot": name[:60], "max_retained_wal": "1GB"},
        )
        try:
            yield made
        finally:
            sandbox.stop(tmp_path / "work")
            with session(source) as found:
                found.execute(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
                )


class Writers:
    """Two sessions that write all the time, and note when each write was acknowledged."""

    def __init__(self, source: Endpoint) -> None:
        self._source = source
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(number,)) for number in range(2)
        ]
        self.acknowledged: list[tuple[datetime, datetime, str]] = []
        self.failures: list[Exception] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _write(self, number: int) -> None:
        try:
            with session(self._source) as found:
                found.execute("SET synchronous_commit = on")
                count = 0
                while not self._stopped.is_set():
                    count += 1
                    content = f"writer {number}, {count}"
                    (begun,) = found.execute("SELECT clock_timestamp()").fetchall()[0]
                    found.execute("INSERT INTO memory.items (content) VALUES (%s)", [content])
                    (done,) = found.execute("SELECT clock_timestamp()").fetchall()[0]
                    self.acknowledged.append((begun, done, content))
                    time.sleep(0.002)
        except Exception as error:  # noqa: BLE001 - told by the test's thread
            self.failures.append(error)

    def by(self, moment: datetime) -> tuple[set[str], set[str]]:
        """Return what was acknowledged by `moment`, and what was begun by then."""
        return (
            {content for _, done, content in self.acknowledged if done <= moment},
            {content for begun, _, content in self.acknowledged if begun <= moment},
        )


@pytest.mark.parametrize("method", METHODS)
def test_a_restore_to_a_second_has_exactly_the_writes_acknowledged_by_then(
    chain: Chain, method: str
) -> None:
    with Writers(chain.source) as writers:
        chain.dump()
        for _ in range(3):
            time.sleep(0.4)
            chain.dump(incremental=method)
        time.sleep(0.2)
    assert not writers.failures
    assert [one.dump.facts["method"] for one in chain.manifests[1:]] == [method] * 3
    for one, files in zip(chain.manifests, chain.folders, strict=True):
        ENGINE.check(one, lambda name, files=files: (files / name).open("rb"))  # type: ignore[misc]
    middle = [one.dump.consistent_at for one in chain.manifests]
    moment = middle[1] + (middle[2] - middle[1]) / 2
    chain.restore(chain.upto(3, until=moment))
    with opened(chain.directory, chain.source.database) as found:
        rows = found.execute("SELECT content FROM memory.items WHERE content LIKE 'writer%'")
        present = {content for (content,) in rows.fetchall()}
    acknowledged, begun = writers.by(moment)
    later = {content for _, _, content in writers.acknowledged} - begun
    assert len(acknowledged) > 20
    assert len(later) > 20
    assert acknowledged <= present <= begun


def test_a_busy_source_claims_no_exact_rows_and_compares_what_it_can(chain: Chain) -> None:
    with Writers(chain.source):
        manifest = chain.dump()
    tables = manifest.dump.facts["databases"][chain.source.database]["tables"]
    assert not manifest.dump.facts["exact"]
    assert tables == {"memory.items": None}
    assert any("not counted" in note for note in manifest.dump.notes)
    ENGINE.load(chain.upto(), chain.target)
    assert list(ENGINE.compare(chain.upto(), chain.target)) == []
    renamed = {chain.source.database: {"tables": {"memory.gone": None}}}
    facts = {**manifest.dump.facts, "databases": renamed}
    chain.manifests[0] = _changed(manifest, facts=facts)
    (difference,) = ENGINE.compare(chain.upto(), chain.target)
    assert "memory.gone" in str(difference)


def test_the_published_directory_has_the_settings_of_the_source_and_none_of_ours(
    chain: Chain,
) -> None:
    with session(chain.source) as found:
        found.execute("ALTER SYSTEM SET archive_command = 'cp %p /nowhere/%f'")
        (folder,) = found.execute("SHOW data_directory").fetchone() or ("",)
    try:
        chain.dump()
        original = {
            name: (Path(folder) / name).read_bytes()
            for name in ("postgresql.conf", "pg_hba.conf", "postgresql.auto.conf")
        }
    finally:
        with session(chain.source) as found:
            found.execute("ALTER SYSTEM RESET archive_command")
    add_rows(chain.source, 100)
    notes = chain.restore(chain.upto())
    assert any("pg_ctl" in note for note in notes)
    assert {name: (chain.directory / name).read_bytes() for name in original} == original
    left = {path.name for path in chain.directory.iterdir()}
    assert not left & {"recovery.signal", "postmaster.pid", "backup_label", "backup_manifest"}
    assert chain.directory.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in chain.directory.parent.iterdir()] == ["data"]
    assert chain.rows() == 200


def test_a_sandbox_serves_what_was_restored_to_who_logs_in(chain: Chain) -> None:
    chain.dump()
    add_rows(chain.source, 100)
    root = chain.directory.parent / "sandbox"
    with sandbox.running(ENGINE.sandbox, root) as endpoint:
        target = RestoreTarget(endpoint)
        chain.restore(chain.upto(), target)
        assert ENGINE.publish(chain.upto(), target) == []
        login = replace(endpoint, extra={"sslmode": "disable"})
        assert count_rows(login, chain.source.database) == 200
        assert ENGINE.probe(endpoint) == chain.manifests[0].dump.server_version
        assert list(ENGINE.compare(chain.upto(), target)) == []
        with pytest.raises(TargetRefusedError, match="runs in"):
            ENGINE.preflight(chain.upto(), replace(target, replace=True))
    assert not root.exists()


def test_what_is_replaced_is_kept_and_a_running_server_is_never_replaced(chain: Chain) -> None:
    chain.dump()
    chain.directory.mkdir()
    (chain.directory / "precious").write_text("kept")
    with pytest.raises(TargetRefusedError, match="not empty"):
        ENGINE.preflight(chain.upto(), chain.target)
    ENGINE.load(chain.upto(), chain.target)
    with pytest.raises(TargetRefusedError):
        ENGINE.publish(chain.upto(), chain.target)
    notes = chain.restore(chain.upto(), replace(chain.target, replace=True))
    (kept,) = chain.directory.parent.glob("data.before_*")
    assert (kept / "precious").read_text() == "kept"
    assert any(str(kept) in note for note in notes)
    (chain.directory / "postmaster.pid").write_text(f"{os.getpid()}\n")
    with pytest.raises(TargetRefusedError, match=f"process {os.getpid()}"):
        ENGINE.preflight(chain.upto(), replace(chain.target, replace=True))


def test_a_backup_that_fails_after_receiving_leaves_the_slot_for_the_next_one(
    chain: Chain,
) -> None:
    first = chain.dump()
    add_rows(chain.source, 100)
    with pytest.raises(SpoolError):
        chain.dump(Full, incremental="wal")
    before = chain.slot()
    with session(chain.source) as found:
        found.execute("SELECT pg_switch_wal()")
        found.execute("CHECKPOINT")
    assert before[0] == first.dump.consistency["end_lsn"]
    chain.dump(incremental="wal")
    assert chain.slot()[0] == first.dump.consistency["end_lsn"]
    chain.dump(incremental="wal")
    assert chain.slot()[0] == chain.manifests[1].dump.consistency["end_lsn"]
    chain.restore(chain.upto())
    assert chain.rows() == 300


def test_a_slot_that_holds_too_much_is_dropped_and_a_full_backup_makes_it_anew(
    chain: Chain,
) -> None:
    chain.dump()
    with session(chain.source) as found:
        found.execute(
            "INSERT INTO memory.items (content) SELECT repeat('x', 999) || n"
            " FROM generate_series(1, 2000) AS n"
        )
    with pytest.raises(ChainBrokenError, match="more than max_retained_wal allows"):
        chain.dump(max_retained_wal="1MB")
    assert chain.slot() is None
    fresh = replace_chain(chain)
    assert not any("anew" in note for note in fresh.dump().dump.notes)
    assert chain.slot() is not None
    add_rows(chain.source, 20_000)
    notes = replace_chain(chain).dump(max_retained_wal="1MB").dump.notes
    assert any("Created anew" in note for note in notes)


def test_a_slot_that_has_lost_wal_breaks_the_chain_and_a_full_backup_begins_another(
    chain: Chain,
) -> None:
    chain.dump()
    with session(chain.source) as found:
        found.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        found.execute("SELECT pg_reload_conf()")
        try:
            deadline = time.monotonic() + 30
            while (chain.slot() or ("", "lost"))[1] != "lost":
                assert time.monotonic() < deadline
                add_rows(chain.source, 1000)
                found.execute("SELECT pg_switch_wal()")
                found.execute("CHECKPOINT")
        finally:
            found.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            found.execute("SELECT pg_reload_conf()")
    with pytest.raises(ChainBrokenError, match="has lost WAL"):
        chain.dump()
    fresh = replace_chain(chain)
    fresh.dump()
    assert fresh.dump().dump.facts["continues"]


def test_another_cluster_or_another_timeline_is_no_continuation(chain: Chain) -> None:
    known = chain.dump()
    for changes, words in (
        ({"system_identifier": "7"}, "another cluster"),
        ({"timeline": "9"}, "timeline"),
    ):
        chain.manifests[0] = _changed(known, consistency={**known.dump.consistency, **changes})
        with pytest.raises(ChainBrokenError, match=words):
            chain.dump()


def test_a_parent_that_the_server_has_no_summaries_of_breaks_the_chain(chain: Chain) -> None:
    chain.dump()
    manifest = chain.folders[0] / "base/backup_manifest"
    manifest.write_bytes(
        manifest.read_bytes().replace(b'"System-Identifier": ', b'"System-Identifier": 1')
    )
    with pytest.raises(ChainBrokenError):
        chain.dump(incremental="summaries")


def test_summaries_that_were_asked_for_and_are_off_are_refused_by_name(chain: Chain) -> None:
    chain.dump()
    with session(chain.source) as found:
        found.execute("ALTER SYSTEM SET summarize_wal = off")
        found.execute("SELECT pg_reload_conf()")
        try:
            while found.execute("SHOW summarize_wal").fetchone() != ("off",):
                time.sleep(0.02)
            with pytest.raises(ConfigurationError, match="summarize_wal is off"):
                chain.dump(incremental="summaries")
            assert chain.dump(incremental="auto").dump.facts["method"] == "wal"
        finally:
            found.execute("ALTER SYSTEM RESET summarize_wal")
            found.execute("SELECT pg_reload_conf()")


def test_a_user_who_may_not_replicate_is_told_how_to_be_allowed(chain: Chain) -> None:
    with session(chain.source) as found:
        found.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        found.execute("CREATE ROLE copier LOGIN REPLICATION PASSWORD 'copier'")
    try:
        with pytest.raises(AccessDeniedError, match='ALTER ROLE "plain" REPLICATION'):
            replace_chain(chain, user="plain", password="plain").dump()
        # Replication alone is enough, but for reading rows.
        copied = replace_chain(chain, user="copier", password="copier").dump()
        assert any("may not read them" in note for note in copied.dump.notes)
        assert "copier" not in str(copied.dump.facts)
    finally:
        with session(chain.source) as found:
            found.execute("DROP ROLE plain, copier")


def test_a_tool_that_is_killed_half_way_leaves_no_backup(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tools.find("pg_basebackup")
    script = tmp_path / "pg_basebackup"
    script.write_text(f'#!/bin/sh\n"{real}" "$@" | head -c 3000000\nkill -9 $$\n')
    script.chmod(0o700)
    monkeypatch.setattr(tools, "find", lambda tool: script if tool == script.name else real)
    monkeypatch.setattr(tools, "version", lambda _: "18.6")
    with pytest.raises(InterruptedToolError, match="signal 9"):
        chain.dump(NoTree)
    assert chain.manifests == []


def test_a_moment_out_of_reach_is_refused_with_those_within_reach(chain: Chain) -> None:
    chain.dump()
    chain.dump(incremental="wal")
    first, last = (one.dump.consistent_at for one in chain.manifests)
    for moment in (first - timedelta(seconds=1), last + timedelta(seconds=1)):
        with pytest.raises(ConfigurationError) as caught:
            ENGINE.preflight(chain.upto(until=moment), chain.target)
        assert first.isoformat() in str(caught.value)
        assert last.isoformat() in str(caught.value)
    ENGINE.preflight(chain.upto(until=first), chain.target)
    ENGINE.preflight(chain.upto(until=last), chain.target)
    with pytest.raises(ConfigurationError, match="engine `postgresql`"):
        ENGINE.preflight(replace(chain.upto(), only=("memory",)), chain.target)


def test_without_point_in_time_there_is_no_slot_and_only_the_backups_moments(
    chain: Chain,
) -> None:
    chain.options["point_in_time"] = False
    chain.dump()
    add_rows(chain.source, 100)
    chain.dump()
    assert chain.slot() is None
    first, last = (one.dump.consistent_at for one in chain.manifests)
    with pytest.raises(ConfigurationError, match="point_in_time"):
        ENGINE.preflight(chain.upto(until=first + (last - first) / 2), chain.target)
    chain.restore(chain.upto(until=last))
    assert chain.rows() == 300


def test_wal_that_cannot_be_read_is_never_taken_for_its_end(chain: Chain) -> None:
    chain.dump()
    for _ in range(2):
        add_rows(chain.source, 500)
    chain.dump(incremental="wal")
    damaged = max((chain.folders[1] / "wal").iterdir())
    data = bytearray(damaged.read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 64):
        data[at] ^= 0xFF
    damaged.write_bytes(data)
    for until in (None, chain.manifests[1].dump.consistent_at):
        with pytest.raises(DamagedError) as caught:
            ENGINE.load(chain.upto(until=until), chain.target)
        assert chain.manifests[1].dump.consistent_at.isoformat() in str(caught.value)
        assert caught.value.facts["reached"]
    assert not chain.directory.exists()


def test_a_load_that_was_killed_is_repeated_from_the_start(chain: Chain) -> None:
    chain.dump()
    add_rows(chain.source, 100)
    chain.dump(incremental="wal")
    process = subprocess.Popen(
        [sys.executable, "-c", _LOAD, str(chain.directory), str(chain.root / "work")],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    assert process.stdin is not None
    for one, files in zip(chain.manifests, chain.folders, strict=True):
        process.stdin.write(f"{files}\n{one.model_dump_json()}\n")
    process.stdin.close()
    deadline = time.monotonic() + 60
    while not list(chain.directory.parent.glob("data.restoring_*/data/postmaster.pid")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not chain.directory.exists()
    chain.restore(chain.upto())
    assert chain.rows() == 300
    assert sandbox.status(chain.root / "work") == {}


_LOAD = """
import sys
from pathlib import Path
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.postgresql_physical import ENGINE
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest
lines = sys.stdin.read().splitlines()
ENGINE.load(
    Restorable(
        chain=tuple(Manifest.model_validate_json(line) for line in lines[1::2]),
        folders=tuple(Path(line) for line in lines[::2]),
        work=Path(sys.argv[2]),
    ),
    RestoreTarget(Endpoint(kind="postgres", extra={"data_directory": sys.argv[1]})),
)
"""


def test_tablespaces_are_staged_and_mapped_and_never_streamed(chain: Chain) -> None:
    with session(chain.source) as found:
        (data,) = found.execute("SHOW data_directory").fetchone() or ("",)
        place = Path(data).parent / "space"
        place.mkdir()
        os.chown(place, *os_owner(Path(data)))
        found.execute(f"CREATE TABLESPACE extra LOCATION '{place}'")  # type: ignore[arg-type]
        found.execute("CREATE TABLE memory.far TABLESPACE extra AS SELECT generate_series(1, 50)")
    try:
        with pytest.raises(ConfigurationError, match="staged"):
            chain.dump(NoTree)
        chain.dump()
        add_rows(chain.source, 100)
        chain.dump()
        ENGINE.check(chain.manifests[0], lambda name: (chain.folders[0] / name).open("rb"))
        with pytest.raises(ConfigurationError, match="tablespace_mapping"):
            ENGINE.preflight(chain.upto(), chain.target)
        new = chain.directory.parent / "space"
        extra = {**chain.target.endpoint.extra, "tablespace_mapping": {str(place): str(new)}}
        target = RestoreTarget(replace(chain.target.endpoint, extra=extra))
        ENGINE.load(chain.upto(), target)
        chain.restore(chain.upto(), target)
        with opened(chain.directory, chain.source.database) as found:
            assert found.execute("SELECT count(*) FROM memory.far").fetchone() == (50,)
            assert found.execute(
                "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'extra'"
            ).fetchone() == (str(new),)
        assert chain.rows() == 300
    finally:
        with session(chain.source) as found:
            found.execute("DROP TABLE memory.far")
            found.execute("DROP TABLESPACE extra")
        place.rmdir()


def test_a_tar_that_reaches_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for entry in (
        tarfile.TarInfo("../escaped"),
        tarfile.TarInfo(str(tmp_path / "escaped")),
        _link(),
    ):
        with tarfile.open(base / "base.tar", "w") as tar:
            tar.addfile(entry)
        (base / "backup_manifest").write_text("{}")
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        with pytest.raises(DamagedError, match="no base backup holds"):
            unpack.rebuild([tmp_path], staging, programs=Path(), locations={})
        (staging / "data").rmdir()
    assert not (tmp_path / "escaped").exists()


def test_an_index_that_lacks_a_row_of_its_table_is_a_difference(chain: Chain) -> None:
    chain.dump()
    ENGINE.load(chain.upto(), chain.target)
    (data,) = chain.directory.parent.glob("data.restoring_*/data")
    with opened(data, chain.source.database) as found:
        # What a broken disk would do to the index: a row of the table that it does not know.
        ready = "UPDATE pg_index SET indisready = {0} WHERE indrelid = 'memory.items'::regclass"
        found.execute("SET allow_system_table_mods = on")
        found.execute(ready.format("false"))  # type: ignore[arg-type]
        found.execute("INSERT INTO memory.items (content) VALUES ('unindexed')")
        found.execute(ready.format("true"))  # type: ignore[arg-type]
    differences = [str(one) for one in ENGINE.compare(chain.upto(), chain.target)]
    assert any("index" in one and "items_pkey" in one for one in differences)
    assert any("201 rows" in one for one in differences)


def test_another_major_version_is_refused_naming_both(chain: Chain) -> None:
    manifest = chain.dump()
    dump = manifest.dump.model_copy(update={"server_version": "16.4 (Debian 16.4-1)"})
    chain.manifests[0] = manifest.model_copy(update={"dump": dump})
    with pytest.raises(IncompatibleVersionError, match=r"18\.\d.*16"):
        ENGINE.preflight(chain.upto(), chain.target)


@pytest.mark.parametrize("value", [None, "relative/path", "/"])
def test_a_target_without_a_usable_directory_is_refused(chain: Chain, value: str | None) -> None:
    chain.dump()
    extra: Mapping[str, Any] = {} if value is None else {"data_directory": value}
    with pytest.raises(ConfigurationError, match="directory"):
        ENGINE.preflight(
            chain.upto(), RestoreTarget(Endpoint(kind="postgres", host="x", extra=extra))
        )


def replace_chain(chain: Chain, **login: str) -> Chain:
    """Return a chain of the same source that begins with a full backup."""
    return replace(chain, source=replace(chain.source, **login), manifests=[], folders=[])


def os_owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def _changed(manifest: Manifest, **changes: Any) -> Manifest:
    return manifest.model_copy(update={"dump": manifest.dump.model_copy(update=changes)})


def _link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("global")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
    return entry
