"""Logs that are written, rotated and backed up, and chains of their backups to restore."""

from __future__ import annotations

import gzip
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from neuroca_backup.engines import Parent, Restorable, RestoreTarget
from neuroca_backup.engines.logs import ENGINE
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Link:
    """One backup of a chain, in a folder."""

    manifest: Manifest
    files: Path

    @property
    def facts(self) -> Any:
        return self.manifest.dump.facts

    @property
    def parent(self) -> Parent:
        return Parent(self.manifest, self.open)

    def open(self, name: str) -> BinaryIO:
        return (self.files / name).open("rb")


@dataclass
class Chain:
    """The backups of some paths, below `root`; a new full one begins anew."""

    root: Path
    options: dict[str, Any]
    links: list[Link] = field(default_factory=list)

    def back_up(self, *, full: bool = False) -> Link:
        """Make a backup that continues the last one, check it, and return it."""
        if full:
            self.links = []
        number = sum(1 for _ in self.root.glob("backup-*"))
        folder = Folder(self.root / f"backup-{number}")
        folder.files.mkdir(parents=True)
        sink = SpoolSink(folder, Progress("dump"))
        parent = self.links[-1].parent if self.links else None
        found = ENGINE.dump(Endpoint.this_machine(), sink, ENGINE.options(self.options), parent)
        # Ids sort by their time, of which every backup needs one of its own.
        at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=number)
        ref = BackupRef.of(set_id(at=at, run="logs"), Component.LOGS, "logs")
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=set_id(at=at, run="logs"),
            component=ref.component,
            source=ref.source,
            engine=ENGINE.kind,
            attempt="a1b2c3d4",
            kind="incremental" if parent else "full",
            parent=parent.manifest.backup_id if parent else None,
            stages=(),
            dump=found,
            members=tuple(
                Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
            ),
            started_at=datetime.now(UTC),
            finished_at=datetime.now(UTC),
            product="test",
        )
        link = Link(Manifest.model_validate_json(manifest.model_dump_json()), folder.files)
        ENGINE.check(link.manifest, link.open)
        self.links.append(link)
        return link

    def restorable(
        self, *only: str, upto: int | None = None, until: datetime | None = None
    ) -> Restorable:
        """The chain as a restore gets it, up to the link of that index."""
        links = self.links[: None if upto is None else upto + 1]
        return Restorable(
            chain=tuple(one.manifest for one in links),
            folders=tuple(one.files for one in links),
            work=self.root / "work",
            until=until,
            only=only,
        )

    def restore(self, *only: str, upto: int | None = None, until: datetime | None = None) -> Path:
        """Restore to a new directory with every step, and return it."""
        directory = self.root / "restored"
        if directory.exists():
            shutil.rmtree(directory)
        backup = self.restorable(*only, upto=upto, until=until)
        restore_to(backup, Endpoint.this_machine(directory))
        return directory


def restore_to(backup: Restorable, endpoint: Endpoint, *, replace: bool = False) -> Sequence[str]:
    """Restore with every step; return all notes."""
    target = RestoreTarget(endpoint, replace=replace)
    notes = [*ENGINE.preflight(backup, target), *ENGINE.load(backup, target)]
    assert list(ENGINE.compare(backup, target)) == []
    notes += ENGINE.publish(backup, target)
    assert list(ENGINE.compare(backup, target)) == []
    return notes


@dataclass
class Writer:
    """A program that writes numbered lines to `app.log`, and what rotates it."""

    folder: Path
    written: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        return self.folder / "app.log"

    def write(self, count: int, *, words: int = 1) -> None:
        """Append `count` lines."""
        with self.log.open("a") as file:
            for number in range(self.written, self.written + count):
                file.write(f"line {number} {'memory ' * words}\n")
        self.written += count

    def rotate(self, *, copytruncate: bool = False, create: bool = True) -> None:
        """Shift the numbers of rotated logs, and begin `app.log` anew."""
        if not self.log.exists():
            return
        for number, path in sorted(self.rotated(), reverse=True):
            suffix = path.name.removeprefix(f"app.log.{number}")
            path.rename(self.folder / f"app.log.{number + 1}{suffix}")
        first = self.folder / "app.log.1"
        if copytruncate:
            shutil.copy2(self.log, first)
            os.truncate(self.log, 0)
            return
        self.log.rename(first)
        if create:
            self.log.touch()

    def compress(self, *, delay: bool = False) -> None:
        """Compress what is rotated, with `delay` all but the newest."""
        for number, path in self.rotated():
            if path.suffix != ".gz" and not (delay and number == 1):
                packed = path.with_name(f"{path.name}.gz")
                packed.write_bytes(gzip.compress(path.read_bytes(), mtime=1))
                shutil.copystat(path, packed)
                path.unlink()

    def drop_oldest(self) -> None:
        """Delete the oldest rotated log."""
        if found := self.rotated():
            max(found)[1].unlink()

    def rotated(self) -> list[tuple[int, Path]]:
        """The rotated logs with their numbers."""
        return sorted(
            (int(path.name.split(".")[2]), path) for path in self.folder.glob("app.log.*")
        )


def lines_of(path: Path) -> list[str]:
    """Return the lines of a log, be it compressed or not."""
    data = path.read_bytes()
    return (gzip.decompress(data) if ".gz" in path.name else data).decode().splitlines()


def lines_below(folder: Path) -> Counter[str]:
    """Count every line in the files below a folder."""
    return Counter(
        line
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for line in lines_of(path)
    )


def tree_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Return kind, metadata and bytes of every path in a folder, and of the folder itself."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = (
            status.st_mode,
            status.st_uid,
            status.st_gid,
            None if path.is_symlink() else status.st_mtime_ns,
            content,
        )
    return found
