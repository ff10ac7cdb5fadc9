"""Trees of files: what is listed, read, written, restored and compared, byte for byte."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    TargetRefusedError,
    TransientError,
)
from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Dump, Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder
from neuroca_backup.trees import archive, dumping, placing, reading, restoring
from neuroca_backup.trees.comparing import Change, changes
from neuroca_backup.trees.entries import Entry, Kind, is_path, member_of, order, within
from neuroca_backup.trees.placing import Selection, Unit, into_directory, into_places
from neuroca_backup.trees.totals import Remarks, Totals
from neuroca_backup.trees.walking import Found, matching, outermost, walk
from support.moments import MOMENT

AS_ROOT = os.geteuid() == 0
LARGE = 100_000  # bytes from which a file is a member of its own, so that tests need no 8 MiB
ODD = os.fsdecode(b"new\nline \xff\xfe ~%41")
ALL = Selection()


@dataclass(frozen=True)
class Dumped:
    files: Path
    members: tuple[str, ...]
    totals: Totals
    remarks: tuple[str, ...]

    def open(self, name: str) -> BinaryIO:
        return (self.files / name).open("rb")

    def entries(self) -> dict[str, Entry]:
        return {entry.path: entry for entry in archive.read_index(self.open)}

    def manifest(self) -> Manifest:
        now = datetime.now(UTC)
        plain = {"size": 0, "sha256": "0" * 64}
        return Manifest(
            backup_id="20261123T020000Z-1f0c9a3e-tree",
            set_id="20261123T020000Z-1f0c9a3e",
            component=Component.CONFIGURATION,
            source="tree",
            engine="filetree",
            attempt="a1b2c3d4",
            stages=(),
            dump=Dump(server_version="1", consistency=MOMENT, facts=self.totals.facts()),
            members=tuple(
                Member.model_validate({"name": name, "plain": plain, "stored": plain})
                for name in self.members
            ),
            started_at=now,
            finished_at=now,
            product="test",
        )


def dump(
    base: Path,
    tops: Mapping[str, str],
    to: Path,
    *,
    known: Callable[[Found], Entry | None] = lambda _: None,
    seconds: float = 5,
    excluded: Callable[[str], bool] = lambda _: False,
) -> Dumped:
    folder = Folder(to)
    folder.files.mkdir(parents=True)
    sink, remarks = SpoolSink(folder, Progress("dump")), Remarks("/")
    found = walk(base, tops, remarks=remarks, excluded=excluded)
    totals = dumping.dump(found, sink, remarks=remarks, large=LARGE, known=known, seconds=seconds)
    members = tuple(one.name for one in sink.members)
    return Dumped(folder.files, members, totals, remarks.sentences())


def differences(
    dumped: Dumped, units: tuple[Unit, ...], *, built: bool, selection: Selection = ALL
) -> list[Change]:
    pairs = ((entry, None) for entry in archive.read_index(dumped.open))
    return list(changes(pairs, units, selection, built=built))


def state(root: Path) -> dict[str, object]:
    """Everything of a tree that a restore has to bring back."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        found[str(path.relative_to(root))] = (
            stat.filemode(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_nlink if not path.is_dir() else 0,
            content,
            attributes,
        )
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with one of everything, old enough to be stable at once."""
    base = tmp_path / "source"
    tree = base / "etc" / "neuroca"
    (tree / "empty").mkdir(parents=True)
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "app.env").write_text("MODE=production\n")
    (tree / "app.env").chmod(0o640)
    (tree / "nothing").touch()
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o4755)
    (tree / ODD).write_bytes(b"odd")
    (tree / "deep" / "er" / "large.bin").write_bytes(os.urandom(LARGE + 17))
    (tree / "deep" / "twin").hardlink_to(tree / "app.env")
    (tree / "link").symlink_to("deep/er")
    (tree / "dangling").symlink_to("/nowhere/\xe4")
    with (tree / "sparse").open("wb") as file:
        file.truncate(3 * LARGE)
        file.seek(LARGE)
        file.write(b"island")
    os.setxattr(tree / "app.env", "user.note", b"\x00\xff=\n")
    (tree / "empty").chmod(0o1770)
    for path in [*tree.rglob("*"), tree]:
        os.utime(path, ns=(1, 1_700_000_000_123_456_789), follow_symlinks=False)
    if AS_ROOT:
        os.chown(tree / "nothing", 1234, 5678)
        os.chown(tree / "link", 1234, 5678, follow_symlinks=False)
    time.sleep(0.03)
    return base


TOPS = {"etc/neuroca": "environment"}


def test_a_tree_comes_back_as_it_was_in_every_respect(source: Path, tmp_path: Path) -> None:
    before = state(source / "etc")
    dumped = dump(source, TOPS, tmp_path / "dump")
    archive.check(dumped.manifest(), dumped.open)
    (source / "etc" / "neuroca" / "app.env").write_text("MODE=lost\n")
    units = into_directory(tmp_path / "restored", "mark")
    for _ in range(2):  # a repeat starts clean
        assert restoring.build(dumped.open, units, ALL) == ()
    assert not (tmp_path / "restored").exists()
    assert differences(dumped, units, built=True) == []
    assert placing.publish(units, replace=False) == []
    assert placing.publish(units, replace=False) == []
    assert state(tmp_path / "restored" / "etc") == before
    assert differences(dumped, units, built=True) == []
    restored = tmp_path / "restored" / "etc" / "neuroca" / "sparse"
    assert restored.stat().st_blocks * 512 < LARGE
    assert [p.name for p in tmp_path.iterdir() if placing.is_own(p.name)] == []


def test_stock_tar_restores_the_same_but_for_the_large_files(source: Path, tmp_path: Path) -> None:
    before = state(source / "etc")
    dumped = dump(source, TOPS, tmp_path / "dump")
    target = tmp_path / "by tar"
    target.mkdir()
    subprocess.run(
        ["/bin/tar", "--xattrs", "-xpf", dumped.files / "tree.tar", "-C", target], check=True
    )
    for name, entry in dumped.entries().items():
        if entry.member:
            (target / name).write_bytes((dumped.files / entry.member).read_bytes())
            before.pop(name.removeprefix("etc/"))
    found = state(target / "etc")
    for name in ("neuroca", "neuroca/deep/er"):  # their times: large files were put into them
        assert found.pop(name) != before.pop(name)
    assert {name: found[name] for name in before} == before


def test_in_place_the_tree_is_swapped_by_a_rename_and_the_old_one_kept(
    source: Path, tmp_path: Path
) -> None:
    before = state(source / "etc" / "neuroca")
    dumped = dump(source, TOPS, tmp_path / "dump")
    tree = source / "etc" / "neuroca"
    (tree / "app.env").write_text("MODE=lost\n")
    (tree / "new").touch()
    (tree / "nothing").unlink()
    changed = state(tree)
    units = into_places(dumped.entries().values(), ALL, "mark", base=source)
    placing.refuse(units, replace=True)
    found = {(one.path, one.kind) for one in differences(dumped, units, built=False)}
    assert found == {
        ("etc/neuroca/app.env", "changed"),
        ("etc/neuroca/new", "removed"),
        ("etc/neuroca/nothing", "added"),
    }
    restoring.build(dumped.open, units, ALL)
    assert state(tree) == changed
    (note,) = placing.publish(units, replace=True)
    assert placing.publish(units, replace=True) == []
    assert state(tree) == before
    (kept,) = (p for p in tree.parent.iterdir() if p != tree)
    assert kept.name in note
    assert state(kept) == changed
    assert differences(dumped, units, built=True) == []
    again = dump(source, {"etc": ""}, tmp_path / "again")
    assert not [name for name in again.entries() if "replaced" in name]


def test_a_killed_publish_is_finished_by_a_repeat(source: Path, tmp_path: Path) -> None:
    tops = {"etc/neuroca/app.env": "a", "etc/neuroca/deep": "b", "etc/neuroca/nothing": "c"}
    dumped = dump(source, tops, tmp_path / "dump")
    (source / "etc" / "neuroca").rename(source / "etc" / "gone")
    units = into_places(dumped.entries().values(), ALL, "mark", base=source)
    assert len(units) == 3
    restoring.build(dumped.open, units, ALL)
    units[0].place.parent.mkdir()  # as `publish` does, which is killed after the first of them
    units[0].staging.rename(units[0].place)
    repeated = into_places(dumped.entries().values(), ALL, "mark", base=source)
    placing.publish(repeated, replace=True)
    assert differences(dumped, repeated, built=True) == []
    assert {p.name for p in (source / "etc" / "neuroca").iterdir()} == {
        "app.env",
        "deep",
        "nothing",
    }


def test_a_part_is_restored_with_the_content_of_names_that_were_not_chosen(
    source: Path, tmp_path: Path
) -> None:
    dumped = dump(source, TOPS, tmp_path / "dump")
    chosen = Selection(paths=("etc/neuroca/deep/twin",))
    units = into_directory(tmp_path / "restored", "mark")
    restoring.build(dumped.open, units, chosen)
    placing.publish(units, replace=False)
    twin = tmp_path / "restored" / "etc" / "neuroca" / "deep" / "twin"
    assert twin.read_text() == "MODE=production\n"
    assert stat.S_IMODE(twin.stat().st_mode) == 0o640
    assert [p for p in (tmp_path / "restored").rglob("*") if p.is_file()] == [twin]
    assert differences(dumped, units, built=True, selection=chosen) == []


def test_a_section_within_another_is_not_taken_away_with_it(source: Path, tmp_path: Path) -> None:
    tops = {**TOPS, "etc/neuroca/deep": "security"}
    dumped = dump(source, tops, tmp_path / "dump")
    assert dumped.entries()["etc/neuroca/deep/twin"].section == "security"
    assert dumped.entries()["etc/neuroca/app.env"].section == "environment"
    outer = Selection(sections=("environment",))
    with pytest.raises(ConfigurationError, match="section security"):
        into_places(dumped.entries().values(), outer, "mark", base=source)
    inner = Selection(sections=("security",))
    (unit,) = into_places(dumped.entries().values(), inner, "mark", base=source)
    assert unit.place == source / "etc" / "neuroca" / "deep"


@pytest.mark.parametrize(
    ("harm", "aspect"),
    [
        (lambda tree: (tree / "app.env").write_text("MODE=prodUction\n"), "content"),
        (lambda tree: (tree / "app.env").chmod(0o644), "mode"),
        (lambda tree: (tree / "empty").chmod(0o777), "mode"),
        (lambda tree: os.setxattr(tree / "app.env", "user.note", b"x"), "attributes"),
        (lambda tree: _replace(tree / "link", lambda path: path.symlink_to("/etc")), "target"),
        (lambda tree: _replace(tree / "nothing", Path.mkdir), "kind"),
        (lambda tree: (tree / "nothing").unlink(), "path"),
        (lambda tree: (tree / "more").touch(), "path"),
        (lambda tree: _replace(tree / "deep" / "twin", Path.touch), "target"),
    ],
)
def test_every_change_is_seen_by_its_aspect_and_changes_the_fingerprint(
    source: Path, tmp_path: Path, harm: Callable[[Path], object], aspect: str
) -> None:
    dumped = dump(source, TOPS, tmp_path / "dump")
    units = into_places(dumped.entries().values(), ALL, "mark", base=source)
    assert differences(dumped, units, built=False) == []
    harm(source / "etc" / "neuroca")
    assert aspect in {
        word for one in differences(dumped, units, built=False) for word in one.aspects
    }
    assert fingerprint(source) != dumped.totals.fingerprint


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def fingerprint(base: Path) -> str:
    remarks = Remarks()
    return dumping.fingerprint(walk(base, TOPS, remarks=remarks), remarks=remarks)


def test_touching_and_reading_do_not_change_the_fingerprint(source: Path, tmp_path: Path) -> None:
    dumped = dump(source, TOPS, tmp_path / "dump")
    assert fingerprint(source) == dumped.totals.fingerprint
    for path in (source / "etc").rglob("*"):
        os.utime(path, follow_symlinks=False)
    assert fingerprint(source) == dumped.totals.fingerprint


def test_sockets_pipes_and_devices_are_left_out_and_noted(source: Path, tmp_path: Path) -> None:
    tree = source / "etc" / "neuroca"
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tree / "socket"))
        dumped = dump(source, TOPS, tmp_path / "dump")
    assert "etc/neuroca/pipe" not in dumped.entries()
    (remark,) = dumped.remarks
    assert remark.startswith("/etc/neuroca/pipe, /etc/neuroca/socket is no file")


def test_a_path_that_vanishes_is_noted_and_a_top_that_is_not_there_is_an_error(
    source: Path, tmp_path: Path
) -> None:
    remarks = Remarks("/")
    paths = []
    for found in walk(source, TOPS, remarks=remarks):
        paths.append(found.path)
        if found.path == "etc/neuroca":
            continue
        (source / "etc" / "neuroca" / "nothing").unlink(missing_ok=True)
    assert "etc/neuroca/nothing" not in paths
    assert remarks.sentences() == (
        "/etc/neuroca/nothing vanished between being listed and being read",
    )
    with pytest.raises(NotFoundError, match="etc/absent does not exist"):
        list(walk(source, {"etc/absent": ""}, remarks=remarks))


def test_a_file_that_changes_while_it_is_read_is_read_again(source: Path, tmp_path: Path) -> None:
    large = source / "etc" / "neuroca" / "deep" / "er" / "large.bin"
    writing = threading.Event()

    def write() -> None:
        for number in range(20):
            with large.open("ab") as file:
                file.write(b"%06d" % number)
            writing.set()
            time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait()
    dumped = dump(source, TOPS, tmp_path / "dump")
    writer.join()
    entry = dumped.entries()["etc/neuroca/deep/er/large.bin"]
    content = (dumped.files / entry.member).read_bytes()
    assert content == large.read_bytes()[: entry.size]
    assert (entry.size - LARGE - 17) % 6 == 0
    archive.check(dumped.manifest(), dumped.open)


@pytest.mark.parametrize("name", ["app.env", "deep/er/large.bin"])
def test_a_file_that_never_stops_changing_is_an_error_that_names_it(
    source: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source / "etc" / "neuroca" / name
    confirm = reading.Opened.confirm

    def written_meanwhile(opened: reading.Opened, count: int) -> None:
        if path.stat().st_ino == opened.before.st_ino:
            with path.open("ab") as file:
                file.write(b".")
        confirm(opened, count)

    monkeypatch.setattr(reading.Opened, "confirm", written_meanwhile)
    with pytest.raises(TransientError, match=f"etc/neuroca/{name} was being written"):
        dump(source, TOPS, tmp_path / "dump", seconds=0.3)


def test_a_target_that_holds_something_is_refused_and_so_is_a_mount(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(TargetRefusedError, match="full is there and not empty"):
        placing.refuse(into_directory(tmp_path / "full", "mark"), replace=False)
    placing.refuse(into_directory(tmp_path / "full", "mark"), replace=True)
    with pytest.raises(TargetRefusedError, match="root of a mount"):
        placing.refuse(into_directory(Path("/proc"), "mark"), replace=True)
    with pytest.raises(ConfigurationError, match="file is no directory"):
        placing.refuse(into_directory(tmp_path / "full" / "file" / "x", "mark"), replace=False)


def test_an_unchanged_file_that_is_known_is_not_read(source: Path, tmp_path: Path) -> None:
    first = dump(source, TOPS, tmp_path / "first")
    before = first.entries()
    large = "etc/neuroca/deep/er/large.bin"

    def known(found: Found) -> Entry | None:
        entry = before.get(found.path)
        same = entry is not None and (entry.inode, entry.ctime_ns, entry.mtime_ns) == (
            found.status.st_ino,
            found.status.st_ctime_ns,
            found.status.st_mtime_ns,
        )
        return entry if same and entry is not None and entry.member else None

    second = dump(source, TOPS, tmp_path / "second", known=known)
    assert second.totals.facts() == first.totals.facts()
    assert second.entries() == before
    assert not (second.files / member_of(large)).exists()


def evil(first: Entry, second: Entry) -> list[bytes]:
    return [first.encode(), second.encode()]


def entry(path: str, kind: Kind = Kind.DIRECTORY, **words: object) -> Entry:
    plain = Entry(path=path, kind=kind, mode=0o755, uid=0, gid=0, mtime_ns=0)
    return replace(plain, **words)  # type: ignore[arg-type]  # words of the dataclass


FILE = {"kind": Kind.FILE, "sha256": "0" * 64}
EVIL = {
    "a path that leads out": [entry("../etc").encode()],
    "an absolute path": [entry("/etc").encode()],
    "a path through a link": evil(
        entry("etc", Kind.SYMLINK, target="/etc"),
        entry("etc/passwd", **FILE),  # type: ignore[arg-type]  # as above
    ),
    "a path below a file": evil(
        entry("etc", **FILE),  # type: ignore[arg-type]  # as above
        entry("etc/passwd", **FILE),  # type: ignore[arg-type]  # as above
    ),
    "a directory left out": evil(entry("etc"), entry("etc/a/b")),
    "the same path twice": evil(entry("etc"), entry("etc")),
    "not in order": evil(entry("b"), entry("a")),
    "a hard link out": [entry("a", Kind.HARDLINK, target="../../etc/shadow").encode()],
    "a line cut off": [entry("etc").encode()[:-1]],
    "no JSON": [b"nonsense\n"],
    "a number": [b"7\n"],
    "an unknown word": [b'{"path":"a","kind":"directory","surprise":1}\n'],
    "a wrong mode": [entry("a", mode=0o10000).encode()],
    "a word too few": [b'{"path":"a","kind":"directory"}\n'],
    "a member elsewhere": [
        entry("a", member="../../keys.json", **FILE).encode()  # type: ignore[arg-type]  # as above
    ],
}


@pytest.mark.parametrize("lines", EVIL.values(), ids=EVIL.keys())
def test_an_index_that_could_lead_a_restore_elsewhere_is_damage(
    tmp_path: Path, lines: list[bytes]
) -> None:
    (tmp_path / "index.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(DamagedError, match=r"^index\.jsonl is damaged"):
        list(archive.read_index(lambda name: (tmp_path / name).open("rb")))


def test_a_link_beside_a_top_within_it_is_never_followed(source: Path, tmp_path: Path) -> None:
    """An index whose second tree lies below the link that the first one is."""
    outside = tmp_path / "outside"
    outside.mkdir()
    files = tmp_path / "dump"
    dumped = dump(source, TOPS, files)
    lines = evil(
        entry("a", Kind.SYMLINK, target=str(outside)),
        entry("a-/file", **FILE),  # type: ignore[arg-type]  # words of the dataclass
    )
    (dumped.files / "index.jsonl").write_bytes(b"".join(lines))
    units = into_directory(tmp_path / "restored", "mark")
    with pytest.raises(DamagedError):
        restoring.build(dumped.open, units, ALL)
    assert list(outside.iterdir()) == []


def damages(files: Path) -> Iterator[tuple[str, Path, Callable[[bytes], bytes]]]:
    tar, index = files / "tree.tar", files / "index.jsonl"
    (large,) = (p for p in (files / "files").rglob("large.bin"))
    yield "cut in the middle", tar, lambda data: data[: len(data) // 2]
    yield "cut at the end", tar, lambda data: data[:-20]
    yield "a bit of a content", tar, lambda data: data.replace(b"MODE=p", b"MODE=q")
    yield "a name in the tar", tar, lambda data: data.replace(b"app.env", b"app.enV")
    yield "more behind it", tar, lambda data: data[:-5] + b"extra"
    yield "emptied", tar, lambda _: b""
    yield "a line less", index, lambda data: data[data.index(b"\n") + 1 :]
    yield "the last line less", index, lambda data: data[: data.rindex(b"\n", 0, -1) + 1]
    yield "a mode", index, lambda data: data.replace(b'"mode":493', b'"mode":511', 1)
    yield "emptied index", index, lambda _: b""
    yield "a large file cut", large, lambda data: data[:-1]
    yield "a large file longer", large, lambda data: data + b"x"
    yield "a large file changed", large, lambda data: data[:-1] + bytes([data[-1] ^ 1])


def test_damage_anywhere_is_found_without_any_digest_of_the_stores(
    source: Path, tmp_path: Path
) -> None:
    dumped = dump(source, TOPS, tmp_path / "dump")
    manifest = dumped.manifest()
    for what, path, change in damages(dumped.files):
        whole = path.read_bytes()
        assert change(whole) != whole, what
        path.write_bytes(change(whole))
        with pytest.raises(DamagedError):
            archive.check(manifest, dumped.open)
        path.write_bytes(whole)
    archive.check(manifest, dumped.open)


@pytest.fixture
def ordinary(tmp_path: Path) -> Iterator[None]:
    """Be an ordinary user for a test, who may pass through the folders above."""
    if not AS_ROOT:
        yield
        return
    above = [one for one in tmp_path.parents if one.stat().st_uid == 0 and one != Path("/")]
    modes = {one: stat.S_IMODE(one.stat().st_mode) for one in above}
    for one, mode in modes.items():
        one.chmod(mode | 0o011)
    tmp_path.chmod(0o777)
    nobody = 65534
    os.setegid(nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        for one, mode in modes.items():
            one.chmod(mode)


def test_what_may_not_be_read_is_an_error_that_names_it(
    source: Path, tmp_path: Path, ordinary: None
) -> None:
    if not AS_ROOT:
        (source / "etc" / "neuroca" / "app.env").chmod(0)
    with pytest.raises(AccessDeniedError, match=r"app\.env may not be read by user id"):
        dump(source, TOPS, tmp_path / "dump")


def test_who_is_not_root_restores_everything_but_owners_and_is_told_so(
    source: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    dumped = dump(source, TOPS, tmp_path / "dump")
    for path in (dumped.files.parent, *dumped.files.parent.rglob("*")):
        path.chmod(0o755)
    request.getfixturevalue("ordinary")
    units = into_directory(tmp_path / "restored", "mark")
    notes = restoring.build(dumped.open, units, ALL)
    assert differences(dumped, units, built=True) == []
    placing.publish(units, replace=False)
    script = tmp_path / "restored" / "etc" / "neuroca" / "run.sh"
    assert script.stat().st_uid == os.geteuid()
    if AS_ROOT:  # the test, not who restored
        assert "only root can give files to their owners" in notes[0]
        assert not script.stat().st_mode & stat.S_ISUID


def test_patterns_are_of_names_or_of_whole_paths() -> None:
    matches = matching(["*.pyc", "/etc/neuroca/cache/*", ".git"])
    assert matches("etc/neuroca/x.pyc")
    assert matches("etc/neuroca/cache/a/b")
    assert matches("etc/neuroca/.git")
    assert not matches("etc/neuroca/cache")
    assert not matches("srv/etc/neuroca/cache/a")


def test_the_outermost_tops_are_walked_once() -> None:
    assert outermost(["a/b", "a", "a-b", "c/d", "a/b/c"]) == ["a", "a-b", "c/d"]


names = st.text(st.characters(codec=None, exclude_characters="/\0"), min_size=1, max_size=12).map(
    lambda text: os.fsdecode(text.encode("utf-8", "surrogatepass"))
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join).filter(is_path)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    kind = draw(st.sampled_from(list(Kind)))
    file = kind is Kind.FILE
    path = draw(paths)
    targets = {Kind.SYMLINK: st.text(min_size=1).filter(lambda t: "\0" not in t)}
    return Entry(
        path=path,
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32)),
        gid=draw(st.integers(0, 2**32)),
        mtime_ns=draw(st.integers(-(2**62), 2**62)),
        user=draw(names),
        size=draw(st.integers(0, 2**50)) if file else 0,
        sha256="ab" * 32 if file else "",
        target=draw(targets.get(kind, paths)) if kind in {Kind.SYMLINK, Kind.HARDLINK} else "",
        xattrs=draw(st.dictionaries(names, st.just("AP8="), max_size=2)),
        sparse=file and draw(st.booleans()),
        member=member_of(path) if file and draw(st.booleans()) else "",
    )


@given(entries())
def test_every_entry_is_one_ascii_line_and_comes_back_the_same(one: Entry) -> None:
    line = one.encode()
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert Entry.decode(line, name="index.jsonl") == one
    assert json.loads(line)["path"] == one.path


@given(paths)
def test_every_path_gives_a_member_name_that_any_store_takes(path: str) -> None:
    name = member_of(path)
    assert name.isascii()
    assert name.isprintable()
    assert is_path(name)
    assert len(name) < 900
    assert max(map(len, name.split("/"))) < 256
    assert len({name, member_of(path, 2), member_of(path, 3)}) == 3


@given(paths, paths)
def test_two_paths_never_share_a_member_and_their_order_is_that_of_a_walk(a: str, b: str) -> None:
    assert (member_of(a) == member_of(b)) == (a == b)
    if within(b, a) and a != b:
        assert order(a) < order(b)
