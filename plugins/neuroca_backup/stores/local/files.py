"""The files behind a local store: written under a temporary name, made durable, read whole."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from typing import TYPE_CHECKING

from neuroca_backup.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from typing_extensions import Buffer

    _Translated = Callable[[], AbstractContextManager[None]]

RESERVED = ".neuroca-backup-"
"""How the names begin that belong to the store itself."""
TEMPORARY = f"{RESERVED}part-"


class FileSink(io.RawIOBase):
    """Writes to a descriptor; closing it ends the writing, `finish` makes it durable."""

    def __init__(self, label: str, translated: _Translated, fd: int) -> None:
        self._label, self._translated, self._fd = label, translated, fd
        self._whole = True

    def writable(self) -> bool:
        """Return True: bytes may be written."""
        return True

    def write(self, data: Buffer) -> int:
        """Write all of `data`."""
        if self.closed:
            raise ValueError("write to a closed object writer")
        self._refuse_if_broken()
        view = memoryview(data).cast("B")
        written = 0
        self._whole = False
        with self._translated():
            while written < len(view):
                written += os.write(self._fd, view[written:])
        self._whole = True
        return written

    def finish(self) -> None:
        """Bring the bytes to the disk."""
        self._refuse_if_broken()
        with self._translated():
            os.fsync(self._fd)

    def _refuse_if_broken(self) -> None:
        """Keep a caller who swallowed the error of a write from storing a shortened object."""
        if not self._whole:
            raise StoreUnavailableError(
                f"{self._label}: a write failed, and writing went on",
                remedy="Write it again from the start.",
            )


class FileSource(io.RawIOBase):
    """Reads as many bytes as were promised, or raises."""

    def __init__(self, label: str, translated: _Translated, fd: int, remaining: int) -> None:
        self._label, self._translated, self._fd = label, translated, fd
        self._remaining = remaining

    def readable(self) -> bool:
        """Return True: bytes may be read."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read some bytes; 0 only at the end of what was asked for."""
        view = memoryview(buffer).cast("B")[: self._remaining]
        if not len(view):
            return 0
        with self._translated():
            count = os.readv(self._fd, [view])
        if count == 0:
            raise StoreUnavailableError(
                f"{self._label} became shorter by {self._remaining:,} bytes while it was read",
                remedy="Read it again; objects of a store must not be changed in place.",
            )
        self._remaining -= count
        return count


def open_temporary(path: Path, *, below: Path) -> tuple[Path, int]:
    """Return a new file beside `path`, and its descriptor, making the directories it needs."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    for _ in range(5):
        for folder in reversed(path.relative_to(below).parents):
            with contextlib.suppress(FileExistsError):
                (below / folder).mkdir(mode=0o700)
                sync_directory((below / folder).parent)
        # A `delete` may remove the directory while it is still empty.
        try:
            return temporary, os.open(temporary, flags, 0o600)
        except FileNotFoundError:
            continue
        except NotADirectoryError as error:
            raise FileExistsError(errno.EEXIST, error.strerror, str(path.parent)) from error
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))


def sync_directory(path: Path) -> None:
    """Make what was created, renamed or removed directly in the directory `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove_if_empty(path: Path) -> bool:
    """Remove the directory `path`; return False where it is not empty or gone already."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            return False
        raise
    return True


def mode(path: Path) -> int:
    """Return the `st_mode` of `path` itself, 0 where there is nothing."""
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
