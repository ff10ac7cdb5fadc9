"""Objects as files under a directory, such as a mounted NAS."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import time
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from neuroca_backup.errors import (
    AlreadyExistsError,
    ConfigurationError,
    NotFoundError,
    StoreUnavailableError,
)
from neuroca_backup.stores import ObjectStat, Store, changed, check_key
from neuroca_backup.stores.local import errors, files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from neuroca_backup.model.endpoint import Connections
    from neuroca_backup.settings import LocalStoreSettings

MARKER = f"{files.RESERVED}store"
_READ_BUFFER = 1024 * 1024
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_INITIALISE = "run `neuroca-backup configure --initialise-stores`"


class LocalStore:
    """Objects under a directory that holds the marker file `.neuroca-backup-store`.

    The marker is on the mounted file system, so a NAS that is not mounted is noticed and never
    replaced by a directory on the root disk. Directories are 0700, files 0600.
    """

    def __init__(self, name: str, path: Path) -> None:
        if not path.is_absolute():
            raise ConfigurationError(
                f"storage.{name}.path is {str(path)!r}, which is not absolute",
                remedy="Write the whole path of the directory.",
                store=name,
                value=str(path),
            )
        self.name = name
        self.location = f"file://{path}"
        self._path = path

    @classmethod
    def from_settings(
        cls,
        name: str,
        settings: LocalStoreSettings,
        connections: Connections,  # noqa: ARG003 - every kind of store is made the same way
    ) -> LocalStore:
        """Return the store that `settings` describe; nothing is created."""
        return cls(name, settings.path)

    def __repr__(self) -> str:
        return f"LocalStore(name={self.name!r}, location={self.location!r})"

    def initialise(self) -> None:
        """Make the directory a store; a store already there is left as it is.

        Raises:
            NotFoundError: The directory's parent does not exist.
            ConfigurationError: The directory holds other files.
        """
        with self._translated(""):
            if not self._path.parent.is_dir():
                raise NotFoundError(
                    f"{self.location} (store {self.name}): {self._path.parent} does not exist",
                    remedy=f"Mount it or create it, then {_INITIALISE}.",
                    store=self.name,
                )
            self._path.mkdir(mode=0o700, exist_ok=True)
            marker = self._path / MARKER
            if marker.is_file():
                return
            if any(self._path.iterdir()):
                raise ConfigurationError(
                    f"{self.location} (store {self.name}) is not a store and not empty",
                    remedy=f"Choose an empty directory; if it is a store whose marker was lost, "
                    f"create the file {marker}.",
                    store=self.name,
                )
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT, 0o600))
            files.sync_directory(self._path)
            files.sync_directory(self._path.parent)

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open `key` for a stream: a temporary file beside it that takes its place at the end."""
        return self._writing(key, create_only=False)

    def put(self, key: str, data: bytes, *, create_only: bool = False) -> None:
        """Write a small object; `create_only` is the hard link that only one caller can make."""
        with self._writing(key, create_only=create_only) as sink:
            sink.write(data)

    @contextmanager
    def reader(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        """Open `key` from byte `start`; a file that shrinks meanwhile is an error."""
        path = self._file(key)
        with contextlib.ExitStack() as stack:
            with self._translated(key):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode):
                    raise errors.missing(self._label(key), store=self.name, key=key)
                os.lseek(fd, start, os.SEEK_SET)
            rest = max(0, status.st_size - start)
            size = rest if length is None else min(rest, length)
            source = files.FileSource(self._label(key), lambda: self._translated(key), fd, size)
            yield stack.enter_context(io.BufferedReader(source, _READ_BUFFER))

    def get(self, key: str) -> bytes:
        """Return a small object's bytes."""
        with self.reader(key) as stream:
            return stream.read()

    def stat(self, key: str) -> ObjectStat:
        """Return size and time of the file."""
        with self._translated(key):
            status = self._file(key).lstat()
        if not stat.S_ISREG(status.st_mode):
            raise errors.missing(self._label(key), store=self.name, key=key)
        return _stat(key, status)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Yield the files below the folder `prefix`, one directory at a time."""
        folder = self._file(prefix.rstrip("/")) if prefix else self._root()
        for path, status in self._walk(folder):
            if not path.name.startswith(files.RESERVED):
                yield _stat(str(path.relative_to(self._root())), status)

    def folders(self, prefix: str = "") -> Iterator[str]:
        """Yield the directories within `prefix` that hold an object at any depth."""
        folder = prefix.rstrip("/")
        entries = self._entries(self._file(folder) if folder else self._root())
        # They come in the order of keys, where `a-b/` is before `a/`.
        for name in sorted(e.name for e in entries if e.is_dir(follow_symlinks=False)):
            inner = f"{folder}/{name}" if folder else name
            if next(self.list(inner), None) is not None:
                yield name

    def delete(self, key: str) -> None:
        """Remove the file, and the directories that this leaves empty."""
        path = self._file(key)
        with self._translated(key):
            try:
                if not stat.S_ISREG(path.lstat().st_mode):
                    return
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            files.sync_directory(path.parent)
            for parent in path.parents:
                if parent == self._root() or not files.remove_if_empty(parent):
                    break

    def replace(self, key: str, data: bytes, *, expected: bytes) -> None:
        """Write while no other process of ours can, having looked at what is there."""
        path = self._file(key)
        with self._translated(key):
            fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with self._translated(key):
                fcntl.flock(fd, fcntl.LOCK_EX)
            found = self.get(key)
            if found == data:
                return
            if found != expected:
                raise changed(self._label(key), store=self.name, key=key)
            self.put(key, data)
        finally:
            os.close(fd)

    def copy_from(self, other: Store, key: str) -> bool:  # noqa: ARG002 - part of the contract
        """Return False: a hard link would make both copies the same bytes on the same disk."""
        return False

    def sweep_uploads(self, *, older_than: timedelta) -> int:
        """Remove the temporary files of dead writers: those not written to for that long."""
        cutoff = time.time() - older_than.total_seconds()
        swept = 0
        for path, status in self._walk(self._root()):
            if path.name.startswith(files.TEMPORARY) and status.st_mtime < cutoff:
                with self._translated(path.name):
                    path.unlink(missing_ok=True)
                swept += 1
        return swept

    def check(self) -> None:
        """Raise unless the directory is a store and may be listed."""
        with self._translated(""), os.scandir(self._root()) as entries:
            next(entries, None)

    def _root(self) -> Path:
        """Return the real path of the store, having seen its marker."""
        with self._translated(""):
            root = Path(os.path.realpath(self._path))
            if not stat.S_ISREG(files.mode(root / MARKER)):
                raise NotFoundError(
                    f"{self.location} (store {self.name}) does not exist, is not mounted, or is "
                    f"not a store: it has no file {MARKER}",
                    remedy=f"Mount it; if it is a new store, {_INITIALISE}.",
                    store=self.name,
                )
        return root

    def _file(self, key: str) -> Path:
        """Return the path of `key`, which is always within the store."""
        check_key(key, store=self.name, reserved=(files.RESERVED,))
        path = self._root().joinpath(*key.split("/"))
        with self._translated(key):
            if os.path.realpath(path) != str(path):
                raise errors.behind_link(path, store=self.name)
        return path

    @contextmanager
    def _writing(self, key: str, *, create_only: bool) -> Iterator[BinaryIO]:
        path = self._file(key)
        with self._translated(key):
            temporary, fd = files.open_temporary(path, below=self._root())
        try:
            try:
                sink = files.FileSink(self._label(key), lambda: self._translated(key), fd)
                yield cast("BinaryIO", sink)
                sink.finish()
            finally:
                with self._translated(key):
                    os.close(fd)  # NFS tells of a full disk here.
            with self._translated(key):
                self._place(temporary, path, key=key, create_only=create_only)
        finally:
            with self._translated(key):
                temporary.unlink(missing_ok=True)

    def _place(self, temporary: Path, path: Path, *, key: str, create_only: bool) -> None:
        if not temporary.exists():
            raise StoreUnavailableError(
                f"{self._label(key)}: its temporary file was removed while it was written",
                remedy="It is tried again; sweep only uploads older than the longest backup.",
                key=key,
            )
        if not create_only:
            temporary.replace(path)
        else:
            try:
                os.link(temporary, path)
            except FileExistsError:
                # Over NFS the answer of a link that was made can be lost, and its repetition
                # fails: the number of links tells (open(2), O_EXCL).
                if temporary.stat().st_nlink != 2:
                    raise AlreadyExistsError(
                        f"{self._label(key)} exists already",
                        remedy="Another attempt at the same work was first; use what it wrote.",
                        key=key,
                    ) from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                raise errors.without_links(self.location, store=self.name) from error
        files.sync_directory(path.parent)

    def _walk(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield every file below `folder` in the order of keys."""
        for entry in self._entries(folder):
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)
                continue
            try:
                with self._translated(path.name):
                    status = path.lstat()
            except NotFoundError:
                continue  # It was deleted since the directory was read.
            if stat.S_ISLNK(status.st_mode):
                raise errors.behind_link(path, store=self.name)
            yield path, status

    def _entries(self, folder: Path) -> Sequence[os.DirEntry[str]]:
        """Return what is in one directory, sorted as S3 sorts keys: `a-b` before `a/`."""
        try:
            with self._translated(folder.name), os.scandir(folder) as found:
                return sorted(
                    found,
                    key=lambda e: f"{e.name}/" if e.is_dir(follow_symlinks=False) else e.name,
                )
        except NotFoundError:
            self._root()  # An unmounted store is an error; a folder without objects is not.
            return []

    def _label(self, key: str) -> str:
        return f"{self.location}/{key} (store {self.name})"

    def _translated(self, key: str) -> AbstractContextManager[None]:
        return errors.translated(self._label(key), store=self.name, key=key, directory=self._path)


def _stat(key: str, status: os.stat_result) -> ObjectStat:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectStat(key=key, size=status.st_size, modified=modified)


STORE = LocalStore
