"""The spool: private, short-lived folders that carry a backup from one stage to the next.

A folder is written under a `.partial` name and renamed when it is complete, so a stage killed at
any point leaves nothing that could be mistaken for its result.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import SpoolError, TransientError
from neuroca_backup.model.identity import attempt_token
from neuroca_backup.model.manifest import Digest, Dump, Origin
from neuroca_backup.model.tickets import Ticket

_RECORD = "record.json"
_PARTIAL = ".partial"
_CLEARED = ".cleared-"
_SANDBOX = "sandbox-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SpooledMember(BaseModel):
    """A member between stages: what the engine gave, and what lies in the folder now.

    With an `origin` nothing lies there: `current` is what an earlier backup has stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    plain: Digest
    current: Digest
    origin: Origin | None = None


class StageRecord(BaseModel):
    """What a complete folder holds; `consumed` is the folder it was made from.

    `parent` is the id of the backup that this one continues, None for a full one;
    `before_restore` as in the manifest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    consumed: str = ""
    started_at: AwareDatetime
    dump: Dump
    members: tuple[SpooledMember, ...]
    stages: tuple[str, ...] = ()
    parent: str | None = None
    before_restore: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """One stage's folder: member files below `files`, documents beside them."""

    path: Path

    @property
    def place(self) -> str:
        """The folder's name once it is complete."""
        return self.path.name.removesuffix(_PARTIAL)

    @property
    def files(self) -> Path:
        """Where the members are, by name."""
        return self.path / "files"

    def create(self, member: str) -> Path:
        """Return the path for `member`, its folders made; the name cannot lead out of the spool."""
        path = member_path(self.files, member)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def record(self) -> StageRecord:
        """Return what a complete folder says of itself."""
        try:
            return StageRecord.model_validate_json((self.path / _RECORD).read_bytes())
        except (OSError, ValidationError) as error:
            raise SpoolError(
                f"{self.path / _RECORD} cannot be read ({type(error).__name__})",
                remedy="Clear the backup's tasks from `dump` on, so that it is dumped again.",
                path=str(self.path),
            ) from None


class Spool:
    """The spool below `root`, one folder a backup, in it one folder a stage attempt."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def claim(self, backup_id: str, stage: str) -> Folder:
        """Return a new, empty folder for `stage`; earlier attempts at it are removed.

        Raises:
            SpoolError: The spool cannot be written or is open to others.
        """
        with translated(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_private()
            home = self.root / backup_id
            home.mkdir(mode=0o700, exist_ok=True)
            for earlier in home.glob(f"{stage}-*"):
                self._destroy(earlier)
            folder = Folder(home / f"{stage}-{attempt_token()}{_PARTIAL}")
            folder.path.mkdir(mode=0o700)
            folder.files.mkdir(mode=0o700)
            return folder

    def complete(self, folder: Folder, record: StageRecord) -> Folder:
        """Write the record, then give the folder its final name."""
        with translated(self.root):
            with (folder.path / _RECORD).open("wb") as file:
                file.write(record.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            return Folder(folder.path.rename(folder.path.with_name(folder.place)))

    def open(self, ticket: Ticket) -> Folder:
        """Return the folder a ticket names.

        Raises:
            SpoolError: It is not there, most often because another machine wrote it.
        """
        folder = Folder(self.root / ticket.backup_id / ticket.place)
        if not folder.path.is_dir():
            raise SpoolError(
                f"The spool {self.root} has no {ticket.backup_id}/{ticket.place}, "
                f"which stage {ticket.stage} left there",
                remedy="Give every worker the same spool (a shared volume, or one queue for all "
                "stages: pipeline.queue), or set pipeline.mode: streamed. If the spool was "
                "cleared, clear the tasks from `dump` on.",
                path=str(folder.path),
            )
        return folder

    def latest(self, backup_id: str, stage: str) -> Folder:
        """Return the complete folder of `stage`.

        Raises:
            SpoolError: There is none.
        """
        for path in (self.root / backup_id).glob(f"{stage}-*"):
            if not path.name.endswith(_PARTIAL):
                return Folder(path)
        raise SpoolError(
            f"The spool {self.root} has nothing that stage {stage} of {backup_id} has finished",
            remedy=f"Run it from `{stage}` on, where every step sees the same spool.",
            path=str(self.root / backup_id),
        )

    def made_from(self, ticket: Ticket, stage: str) -> Folder | None:
        """Return the complete folder of `stage` that an earlier try made from `ticket`, if any."""
        for path in (self.root / ticket.backup_id).glob(f"{stage}-*"):
            folder = Folder(path)
            if not path.name.endswith(_PARTIAL) and folder.record().consumed == ticket.place:
                return folder
        return None

    def remove(self, folder: Folder) -> None:
        """Delete one folder."""
        with translated(self.root):
            self._destroy(folder.path)

    def discard(self, ticket: Ticket) -> None:
        """Delete the folder that a ticket names, if it is still there."""
        self.remove(Folder(self.root / ticket.backup_id / ticket.place))

    @contextmanager
    def held(self, backup_id: str) -> Iterator[None]:
        """Keep every other process from holding the same backup or restore for the block's length.

        The lock is on the directory itself, so it leaves no file, and its holder's end, even by
        SIGKILL, frees it.

        Raises:
            TransientError: Another process holds it.
        """
        with translated(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_private()
            home = self.root / backup_id
            home.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with translated(self.root):
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise TransientError(
                        f"Another process is working on {backup_id} in the spool {self.root}",
                        remedy="It is tried again; wait for the other one to end.",
                        path=str(home),
                    ) from None
            yield
        finally:
            os.close(descriptor)

    def clear(self, backup_id: str) -> None:
        """Delete all that the spool holds of one backup or restore; nothing there is not an error.

        The folder is renamed first, so that a task still writing to it fails at once.
        """
        home = self.root / backup_id
        with translated(self.root):
            self._destroy(home)
            for path in self.root.glob(f"{_CLEARED}{backup_id}-*"):
                _delete(path)

    def shared(self, name: str) -> Path:
        """Return the private folder `name`, made where it is not there; `clear` deletes it."""
        with translated(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_private()
            home = self.root / name
            home.mkdir(mode=0o700, exist_ok=True)
        return home

    def backups(self) -> list[str]:
        """Return the ids of all backups and restores that the spool holds anything of."""
        if not self.root.is_dir():
            return []
        found = set()
        for path in self.root.iterdir():
            name = path.name
            if name.startswith(_CLEARED):  # `clear` was killed half way
                name = name.removeprefix(_CLEARED).rpartition("-")[0]
            if not name.startswith(_SANDBOX):
                found.add(name)
        return sorted(found)

    def sandbox(self, restore_id: str) -> Path:
        """Return the folder below which a restore's throwaway servers live."""
        return self.root / f"{_SANDBOX}{restore_id}"

    def work(self, restore_id: str) -> Path:
        """Return the folder in which an engine may run servers of its own during a restore."""
        return self.root / f"{_SANDBOX}{restore_id}-work"

    def stale_sandboxes(self, *, older_than: timedelta) -> list[Path]:
        """Return the folders of sandboxes that were started longer than `older_than` ago."""
        limit = datetime.now(UTC) - older_than
        return [
            path
            for path in sorted(self.root.glob(f"{_SANDBOX}*"))
            if datetime.fromtimestamp(path.stat().st_mtime, UTC) < limit
        ]

    def sweep(self, *, older_than: timedelta) -> list[str]:
        """Delete what runs that never came to their teardown left; return the names.

        Sandboxes are left alone: their servers may still run, and have to be stopped first.
        """
        if not self.root.is_dir():
            return []
        limit = datetime.now(UTC) - older_than
        swept = []
        with translated(self.root):
            for home in sorted(self.root.iterdir()):
                if home.name.startswith(_SANDBOX):
                    continue
                newest = _newest_change(home, depth=2)
                if newest is not None and newest < limit:
                    self._destroy(home)
                    swept.append(home.name)
        return swept

    def _destroy(self, path: Path) -> None:
        """Delete a folder, or nothing where it is gone; whoever still writes to it fails at once.

        The name goes first: a tool whose process outlived ours cannot add files while they are
        being deleted.
        """
        relative = path.relative_to(self.root).parts
        name = f"{_CLEARED}{relative[0].removeprefix(_CLEARED)}-{attempt_token()}"
        try:
            doomed = path.rename(self.root / name)
        except FileNotFoundError:
            return
        _delete(doomed)

    def require_free(self, size: int) -> None:
        """Raise `SpoolError` unless `size` bytes are free where the spool is."""
        with translated(self.root):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self.root).free
        if free < size:
            raise SpoolError(
                f"The spool {self.root} has {free:,} bytes free, {size:,} are needed",
                remedy="Free space there or point pipeline.spool at a larger disk.",
                path=str(self.root),
            )

    def _check_private(self) -> None:
        mode = stat.S_IMODE(self.root.stat().st_mode)
        if mode & 0o077:
            raise SpoolError(
                f"The spool {self.root} is open to others (mode {mode:o}); it holds data in clear",
                remedy=f"chmod 700 {self.root}",
                path=str(self.root),
            )


def _delete(path: Path) -> None:
    """Delete a file or a folder that another process may be deleting, too."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        if path.exists():
            _delete(path)


def _newest_change(path: Path, *, depth: int) -> datetime | None:
    """Return when `path`, or what is in it down to `depth`, changed last; None if it is gone."""
    found = []
    with suppress(FileNotFoundError, NotADirectoryError):
        found.append(datetime.fromtimestamp(path.lstat().st_mtime, UTC))
        if depth and path.is_dir() and not path.is_symlink():
            inner = [_newest_change(one, depth=depth - 1) for one in path.iterdir()]
            found += [change for change in inner if change is not None]
    return max(found, default=None)


def member_path(base: Path, member: str) -> Path:
    """Return where `member` lies below `base`; refuse a name that leads out of it."""
    path = base.joinpath(*member.split("/"))
    if member.startswith("/") or ".." in member.split("/") or "\0" in member:
        raise SpoolError(
            f"The member name {member!r} leads out of its folder",
            remedy="The manifest was not written by this program; do not restore from it.",
            path=member,
        )
    return path


@contextmanager
def translated(root: Path) -> Iterator[None]:
    """Turn what the disk says into a `SpoolError` with its remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise SpoolError(
                f"The disk of the spool {root} is full",
                remedy="Free space there, point pipeline.spool at a larger disk, or set "
                "pipeline.mode: streamed, which needs none.",
                path=str(root),
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
            raise SpoolError(
                f"The spool {root} cannot be used: {error.strerror} ({error.filename})",
                remedy="Make it a directory that belongs to the user who runs the tasks.",
                path=str(root),
            ) from error
        raise
