"""The spool: private, and never a half-written folder that passes for a whole one."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from neuroca_backup.errors import SpoolError, TransientError
from neuroca_backup.model.manifest import Dump
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.spool import Folder, Spool, StageRecord, member_path
from support.moments import MOMENT

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
RECORD = StageRecord(
    stage="dump",
    started_at=datetime(2026, 11, 23, 2, tzinfo=UTC),
    dump=Dump(server_version="18.6", consistency=MOMENT, facts={}),
    members=(),
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def ticket(folder: Folder, stage: str = "dump") -> Ticket:
    return Ticket(
        backup_id=BACKUP,
        component="database",
        stage=stage,
        place=folder.place,
        members=0,
        size=0,
    )


def test_a_completed_folder_is_opened_by_its_ticket(spool: Spool) -> None:
    folder = spool.claim(BACKUP, "dump")
    folder.create("a/b").write_bytes(b"x")
    done = spool.complete(folder, RECORD)
    opened = spool.open(Ticket(**ticket(done).to_json()))
    assert member_path(opened.files, "a/b").read_bytes() == b"x"
    assert opened.record() == RECORD


def test_a_folder_that_was_not_completed_is_no_result(spool: Spool) -> None:
    folder = spool.claim(BACKUP, "dump")
    with pytest.raises(SpoolError, match="has no"):
        spool.open(ticket(folder))
    assert spool.made_from(ticket(folder), "dump") is None
    with pytest.raises(SpoolError, match="has nothing that stage dump"):
        spool.latest(BACKUP, "dump")


def test_a_claim_removes_what_an_earlier_try_left_even_while_that_still_writes(
    spool: Spool,
) -> None:
    first = spool.claim(BACKUP, "dump")
    stop, wrote = threading.Event(), threading.Event()
    ended: list[type[OSError]] = []

    def write() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                (first.files / str(number)).write_bytes(b"x")
                wrote.set()
        except OSError as error:
            ended.append(type(error))

    writer = threading.Thread(target=write)
    writer.start()
    assert wrote.wait(10)
    second = spool.claim(BACKUP, "dump")
    writer.join(10)
    stop.set()
    assert ended == [FileNotFoundError]
    assert [path.name for path in (spool.root / BACKUP).iterdir()] == [second.path.name]
    assert [path.name for path in spool.root.iterdir()] == [BACKUP]


def test_only_the_result_made_from_this_very_ticket_is_taken_for_it(spool: Spool) -> None:
    dumped = spool.complete(spool.claim(BACKUP, "dump"), RECORD)
    record = RECORD.model_copy(update={"stage": "compress", "consumed": dumped.place})
    made = spool.complete(spool.claim(BACKUP, "compress"), record)
    assert spool.made_from(ticket(dumped), "compress") == made
    again = spool.complete(spool.claim(BACKUP, "dump"), RECORD)
    assert spool.made_from(ticket(again), "compress") is None


def test_a_record_that_cannot_be_read_is_told(spool: Spool) -> None:
    done = spool.complete(spool.claim(BACKUP, "dump"), RECORD)
    (done.path / "record.json").write_text("{")
    with pytest.raises(SpoolError, match="cannot be read"):
        done.record()


def test_clearing_leaves_nothing_and_may_be_repeated(spool: Spool) -> None:
    spool.complete(spool.claim(BACKUP, "dump"), RECORD)
    spool.claim("restore-1", "fetch")
    (spool.root / f".cleared-{BACKUP}-00000000").mkdir()  # by a clear that was killed
    spool.clear(BACKUP)
    spool.clear(BACKUP)
    assert [path.name for path in spool.root.iterdir()] == ["restore-1"]
    Spool(spool.root / "never made").clear(BACKUP)


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o777])
def test_a_spool_that_others_may_enter_is_refused(spool: Spool, mode: int) -> None:
    spool.root.mkdir()
    spool.root.chmod(mode)
    with pytest.raises(SpoolError, match=f"mode {mode:o}"):
        spool.claim(BACKUP, "dump")


def test_a_spool_that_is_a_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be used"):
        Spool(tmp_path / "file" / "spool").claim(BACKUP, "dump")


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a\0b", ".."])
def test_a_member_name_cannot_lead_out_of_its_folder(spool: Spool, name: str) -> None:
    with pytest.raises(SpoolError, match="leads out"):
        spool.claim(BACKUP, "dump").create(name)


def test_only_what_is_old_is_swept(spool: Spool) -> None:
    for name in ("old", "new"):
        spool.claim(name, "dump")
    for path in (spool.root / "old", *(spool.root / "old").rglob("*")):
        os.utime(path, (0, 0))
    assert spool.sweep(older_than=timedelta(days=3)) == ["old"]
    assert [path.name for path in spool.root.iterdir()] == ["new"]
    assert Spool(spool.root / "never made").sweep(older_than=timedelta()) == []


def test_an_old_sandbox_is_told_and_never_swept_from_under_its_servers(spool: Spool) -> None:
    spool.claim(BACKUP, "dump")
    old, young = spool.sandbox("restore-old"), spool.sandbox("restore-young")
    for root in (old, young):
        root.mkdir()
    long_ago = (datetime.now(UTC) - timedelta(days=4)).timestamp()
    os.utime(old, (long_ago, long_ago))
    assert spool.stale_sandboxes(older_than=timedelta(days=3)) == [old]
    spool.sweep(older_than=timedelta(days=3))
    assert old.is_dir()


def test_sweeping_beside_runs_that_come_and_go_is_no_error(spool: Spool) -> None:
    stop, failures = threading.Event(), []

    def come_and_go() -> None:
        while not stop.is_set():
            spool.claim("coming", "dump").create("a/b").write_bytes(b"x")
            spool.clear("coming")

    def sweep() -> None:
        try:
            for _ in range(150):
                spool.sweep(older_than=timedelta(days=1))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test fails
            failures.append(error)

    busy = threading.Thread(target=come_and_go)
    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in (busy, *sweepers):
        thread.start()
    for sweeper in sweepers:
        sweeper.join()
    stop.set()
    busy.join()
    assert failures == []


def test_space_that_is_not_there_is_told_before_it_is_needed(spool: Spool) -> None:
    spool.require_free(1)
    with pytest.raises(SpoolError, match="bytes free"):
        spool.require_free(1 << 62)


def test_a_backup_is_held_by_one_process_at_a_time(spool: Spool) -> None:
    with spool.held(BACKUP), pytest.raises(TransientError, match=BACKUP), spool.held(BACKUP):
        pass
    with spool.held(BACKUP), spool.held("another"):
        assert (spool.root / BACKUP).is_dir()
