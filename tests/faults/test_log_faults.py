"""What happens to logs while they are backed up, and what may have happened to a backup."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.engines import Parent, RestoreTarget
from neuroca_backup.engines.logs import ENGINE, capture, dump, listing, pieces, reading
from neuroca_backup.engines.logs.pieces import PieceWriter
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    DamagedError,
    EmptySourceError,
    PermanentError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.trees import restoring
from support.log_chain import Chain, Writer, lines_below, tree_of


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "machine/log")


@pytest.fixture
def chain(tmp_path: Path, writer: Writer) -> Chain:
    return Chain(tmp_path / "backups", {"application": [str(writer.folder)]})


def restored(chain: Chain, writer: Writer, *only: str) -> Path:
    """Restore and return where the writer's folder is in what was restored."""
    return chain.restore(*only) / writer.folder.relative_to("/")


def once(count: int) -> dict[int, int]:
    """Every number below `count`, once."""
    return dict.fromkeys(range(count), 1)


def numbers(folder: Path) -> dict[int, int]:
    """How often each numbered line is in the files below a folder."""
    return {int(line.split()[1]): count for line, count in lines_below(folder).items()}


def after_listing(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[int], None], *, times: int = 1
) -> None:
    """Do `action` after each of the next listings, before anything of them is read."""
    real, done = listing.take, 0

    def take(*args: Any) -> listing.Listing:
        nonlocal done
        found = real(*args)
        done += 1
        if done <= times:
            action(done)
        return found

    monkeypatch.setattr(listing, "take", take)


def while_reading(
    monkeypatch: pytest.MonkeyPatch, action: Callable[[], None], *, piece: int
) -> None:
    """Read in small pieces, and do `action` once before the piece of that number is stored."""
    monkeypatch.setattr(reading, "PIECE_BYTES", 256)
    real, done = PieceWriter.add, 0

    def add(self: PieceWriter, data: memoryview, found: pieces.Piece) -> bool:
        nonlocal done
        done += 1
        if done == piece:
            action()
        return real(self, data, found)

    monkeypatch.setattr(PieceWriter, "add", add)


@pytest.mark.parametrize("copytruncate", [False, True])
def test_a_rotation_between_listing_and_reading_loses_and_repeats_nothing(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch, *, copytruncate: bool
) -> None:
    for _ in range(3):
        writer.write(20)
        writer.rotate()
    writer.write(20)

    def rotate(_: int) -> None:
        writer.rotate(copytruncate=copytruncate)
        writer.write(5)

    after_listing(monkeypatch, rotate)
    link = chain.back_up()
    assert link.facts["categories"]["application"]["new_lines"] == 85
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == once(85)


def test_a_rotation_in_the_middle_of_the_reading_loses_and_repeats_nothing(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        writer.write(50)
        writer.rotate()
    writer.write(50)

    def rotate() -> None:
        writer.rotate()
        writer.write(5)

    while_reading(monkeypatch, rotate, piece=4)
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == once(205)


@pytest.mark.parametrize("more", [0, 3, 400])
def test_a_log_that_is_cut_while_it_is_read_keeps_both_contents(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    writer.write(100)

    def cut() -> None:
        writer.log.write_bytes(b"")
        writer.write(more)  # with 400 it has grown beyond what is being read

    while_reading(monkeypatch, cut, piece=3)
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    found = lines_below(restored(chain, writer, "everything"))
    assert {f"line {number} memory " for number in range(100, 100 + more)} <= set(found)
    assert "line 0 memory " in found  # what was read before the cut is not thrown away


def test_copytruncate_in_the_middle_of_the_reading_loses_and_repeats_nothing(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PIECE_BYTES", 256)
    writer.write(60)
    chain.back_up()
    writer.write(60)

    def rotate() -> None:
        writer.rotate(copytruncate=True)
        writer.write(5)

    while_reading(monkeypatch, rotate, piece=6)
    link = chain.back_up()
    assert link.facts["categories"]["application"]["new_lines"] == 65
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == once(125)


def test_what_is_written_while_a_log_is_read_is_for_the_next_backup(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(100)
    content = writer.log.read_bytes()
    while_reading(monkeypatch, lambda: writer.write(50), piece=3)
    chain.back_up()
    assert (restored(chain, writer) / "app.log").read_bytes() == content
    monkeypatch.undo()
    assert chain.back_up().facts["categories"]["application"]["new_lines"] == 50
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)


def after_reading(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    """Do `action` once, when all that was listed first has been read."""
    real, done = capture.Capture._read_all, []

    def read_all(self: capture.Capture, found: listing.Listing) -> list[str]:
        unread = real(self, found)
        if not done:
            done.append(True)
            action()
        return unread

    monkeypatch.setattr(capture.Capture, "_read_all", read_all)


def test_a_log_that_is_deleted_after_it_was_read_is_in_the_archive_once(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(20)
    (writer.folder / "other.log").write_text("line 900\n")
    chain.back_up()
    writer.write(10)
    after_reading(monkeypatch, writer.log.unlink)
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == {**once(30), 900: 1}


@pytest.mark.parametrize("more", [2, 300])
def test_a_log_that_is_cut_after_it_was_read_keeps_both_contents(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    writer.write(30)

    def cut() -> None:
        writer.log.write_bytes(b"")
        writer.write(more)

    after_reading(monkeypatch, cut)
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == once(30 + more)


def test_a_compressed_copy_and_the_log_itself_in_one_backup_count_once_when_the_log_is_gone(
    chain: Chain, writer: Writer
) -> None:
    writer.write(30)
    writer.rotate()
    rotated = writer.folder / "app.log.1"
    text = rotated.read_bytes()
    writer.compress()
    rotated.write_bytes(text)  # as while logrotate has not deleted it yet
    chain.back_up()
    rotated.unlink()
    assert chain.back_up().facts["ended"]["files"] == 0
    assert numbers(restored(chain, writer, "everything")) == once(30)


def test_a_file_that_is_replaced_at_every_listing_is_tried_again(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(10)

    def replaced(number: int) -> None:
        # The one before still exists, so that the new one gets an inode of its own.
        writer.log.rename(writer.folder.parent / f"old-{number}")
        writer.write(1)

    after_listing(monkeypatch, replaced, times=100)
    with pytest.raises(TransientError, match=r"app\.log"):
        chain.back_up()


def test_files_that_appear_at_every_listing_are_noted_and_nothing_is_missed(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(10)
    after_listing(
        monkeypatch,
        lambda number: (
            (writer.folder / f"request-{number}.log").write_text(f"line 9{number}\n") and None
        ),
        times=100,
    )
    link = chain.back_up()
    assert any("listings" in note for note in link.manifest.dump.notes)
    assert len(list(restored(chain, writer).iterdir())) == capture.ROUNDS + 1


def test_files_that_live_for_a_moment_only_do_not_fail_a_backup(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(10)
    real, count = listing.take, 0

    def take(*args: Any) -> listing.Listing:
        nonlocal count
        count += 1
        brief = writer.folder / f"brief-{count}.log"
        brief.write_text("line 900\n")
        found = real(*args)
        brief.unlink()
        return found

    monkeypatch.setattr(listing, "take", take)
    link = chain.back_up()
    assert any("listings" in note for note in link.manifest.dump.notes)
    assert numbers(restored(chain, writer)) == once(10)


def test_a_log_that_is_cut_again_and_again_is_tried_again(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(100)
    monkeypatch.setattr(reading, "unchanged", lambda *_: False)
    monkeypatch.setattr(capture, "_times", lambda _: object())
    with pytest.raises(TransientError, match=r"app\.log was cut in each"):
        chain.back_up()


def test_logs_that_are_written_and_rotated_all_the_time_are_kept_once_and_whole(
    chain: Chain, writer: Writer
) -> None:
    stop = threading.Event()

    def write() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            writer.write(17, words=number % 40 + 1)
            if number % 5 == 4:
                writer.rotate(copytruncate=number % 10 == 4)
            time.sleep(0.001)

    writer.write(1)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(12):
            chain.back_up()
    finally:
        stop.set()
        thread.join()
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    assert numbers(restored(chain, writer, "everything")) == once(writer.written)


def test_another_file_with_the_inode_the_size_and_the_time_of_a_deleted_one_is_read(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_SETTLED_NS", -1)  # as if the first log were old
    writer.write(10)
    status = writer.log.stat()
    chain.back_up()
    with writer.log.open("r+b") as file:  # the same inode
        file.write(b"LINE")
    os.utime(writer.log, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert writer.log.stat()[:7] == status[:7]
    link = chain.back_up()
    assert link.facts["new_bytes"] == status.st_size
    assert not link.manifest.dump.empty
    assert (restored(chain, writer) / "app.log").read_bytes() == writer.log.read_bytes()
    assert link.facts["ended"]["files"] == 1


def test_a_log_that_has_not_changed_for_long_is_not_read_again_and_a_young_one_is(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    real = reading.read

    def reads(descriptor: int, *args: Any) -> Any:
        read.append(descriptor)
        return real(descriptor, *args)

    monkeypatch.setattr(reading, "read", reads)
    writer.write(10)
    for expected in (1, 2):  # younger than two seconds: its times prove nothing
        chain.back_up()
        assert len(read) == expected
    monkeypatch.setattr(capture, "_SETTLED_NS", -1)
    for _ in range(2):
        chain.back_up()
        assert len(read) == 3
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)


def test_a_folder_that_becomes_a_link_leads_the_backup_nowhere_else(
    chain: Chain, writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(1)
    inner, secret = writer.folder / "inner", tmp_path / "elsewhere"
    for folder in (inner, secret):
        folder.mkdir()
        (folder / "a.log").write_text(f"line 7 {folder.name}\n")

    def swap(_: int) -> None:
        inner.rename(tmp_path / "was-inner")
        inner.symlink_to(secret)

    after_listing(monkeypatch, swap)
    chain.back_up()
    found = lines_below(restored(chain, writer, "everything"))
    assert "line 7 elsewhere" not in found
    assert (restored(chain, writer) / "inner").is_symlink()


def test_a_log_that_may_not_be_read_is_named(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(1)
    real = os.open

    def refuse(path: Any, *args: Any, **words: Any) -> int:
        if str(path).endswith("app.log"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **words)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AccessDeniedError, match=r"app\.log may not be read"):
        chain.back_up()


def test_a_disk_that_fails_is_an_error_that_names_the_file(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(1)

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(PermanentError, match=r"app\.log cannot be read: Input/output error"):
        chain.back_up()


def test_a_folder_that_may_not_be_read_is_an_error_and_not_an_empty_one(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(1)
    (writer.folder / "private").mkdir()
    chain.options = {"application": [f"{writer.folder}/*/*.log", f"{writer.folder}/app.log"]}
    real = os.listdir

    def refuse(path: Any = ".") -> list[str]:
        if str(path).endswith("private"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(AccessDeniedError, match="private may not be read"):
        chain.back_up()


def test_a_clock_that_went_back_puts_no_backup_before_its_parent(
    chain: Chain, writer: Writer
) -> None:
    writer.write(5)
    first = chain.back_up()
    later = datetime.now(UTC) + timedelta(minutes=5)
    ahead = first.manifest.dump.model_copy(update={"consistency": {"time": later.isoformat()}})
    chain.links = [replace(first, manifest=first.manifest.model_copy(update={"dump": ahead}))]
    writer.write(5)
    os.utime(writer.log, (0, later.timestamp()))  # and the log itself is from the future
    link = chain.back_up()
    assert link.manifest.dump.consistent_at == later
    assert any("clock" in note for note in link.manifest.dump.notes)
    writer.write(5)
    chain.back_up()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"".join(data.splitlines(keepends=True)[:-1]),
        lambda data: data.replace(b'"version":1', b'"version":2'),
        lambda data: data.replace(b'"pieces":[["', b'"pieces":[["x'),
        lambda data: data.replace(b'"path":"', b'"path":"../../'),
        lambda _: b"",
    ],
)
def test_a_damaged_state_of_the_parent_is_damage_and_no_reason_to_skip_a_file(
    chain: Chain, writer: Writer, damage: Callable[[bytes], bytes]
) -> None:
    writer.write(5)
    link = chain.back_up()
    path = link.files / "state.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedError, match=r"state\.jsonl"):
        chain.back_up()


def test_a_parent_that_cannot_be_read_passes_its_error_on(chain: Chain, writer: Writer) -> None:
    writer.write(5)
    link = chain.back_up()

    def refuse(_: str) -> Any:
        raise DamagedError("stored bytes differ", remedy="Restore.")

    with pytest.raises(DamagedError, match="stored bytes differ"):
        dump.Known.of(Parent(link.manifest, refuse))


def test_a_piece_that_no_backup_has_fails_the_restore_before_anything_is_in_place(
    chain: Chain, writer: Writer
) -> None:
    writer.write(5)
    first = chain.back_up()
    writer.write(5)
    chain.back_up()
    archive = first.files / "content/00001.tar"
    archive.write_bytes(bytes(1024))
    with pytest.raises(DamagedError, match=r"No backup of the chain has the piece"):
        chain.restore()
    assert not (chain.root / "restored").exists()


def test_a_piece_with_other_bytes_fails_the_restore(chain: Chain, writer: Writer) -> None:
    writer.write(5)
    first = chain.back_up()
    archive = first.files / "content/00001.tar"
    archive.write_bytes(archive.read_bytes().replace(b"line 3", b"line 4"))
    with pytest.raises(DamagedError, match=r"app\.log is not what was backed up"):
        chain.restore()
    assert not (chain.root / "restored").exists()


def test_paths_that_hold_no_file_are_an_error(chain: Chain, writer: Writer) -> None:
    with pytest.raises(EmptySourceError):
        chain.back_up()
    writer.write(1)
    chain.back_up()
    writer.log.unlink()
    with pytest.raises(EmptySourceError):
        chain.back_up()


def test_a_load_that_was_killed_begins_anew(
    chain: Chain, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write(5)
    writer.rotate()
    writer.write(5)
    chain.back_up()
    target = RestoreTarget(Endpoint.this_machine(chain.root / "restored"))
    real, calls = restoring._Builder.add, 0

    def die(self: Any, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(restoring._Builder, "add", die)
    with suppress(KeyboardInterrupt):
        ENGINE.load(chain.restorable(), target)
    monkeypatch.undo()
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)
    leftovers = [path for path in chain.root.iterdir() if path.name.startswith(".neuroca")]
    assert leftovers == []


def test_a_restore_below_what_is_backed_up_is_refused(chain: Chain, writer: Writer) -> None:
    writer.write(1)
    chain.back_up()
    inside = Endpoint.this_machine(writer.folder / "restored")
    with pytest.raises(TargetRefusedError, match="lies within"):
        ENGINE.preflight(chain.restorable(), RestoreTarget(inside))
    with pytest.raises(TargetRefusedError, match="lies within"):
        ENGINE.load(chain.restorable(), RestoreTarget(inside))
    assert [path.name for path in writer.folder.iterdir()] == ["app.log"]


def test_a_compressed_log_that_is_not_whole_yet_is_a_file_like_any_other(
    chain: Chain, writer: Writer
) -> None:
    writer.write(50, words=20)
    writer.rotate()
    chain.back_up()
    writer.compress()
    packed = writer.folder / "app.log.1.gz"
    data = packed.read_bytes()
    packed.write_bytes(data[:-30])
    assert chain.back_up().facts["ended"]["files"] == 1
    packed.write_bytes(data)
    assert chain.back_up().facts["ended"]["files"] == 0  # now its text is known to be there
    assert tree_of(restored(chain, writer)) == tree_of(writer.folder)


def test_an_unknown_part_is_refused_by_its_name(chain: Chain, writer: Writer) -> None:
    writer.write(1)
    chain.back_up()
    for word in ("nothing", "audit", "/var/log/none*"):
        with pytest.raises(ConfigurationError) as caught:
            chain.restore(word)
        assert word in str(caught.value)
    assert not (chain.root / "restored").exists()
    shutil.rmtree(chain.root)
