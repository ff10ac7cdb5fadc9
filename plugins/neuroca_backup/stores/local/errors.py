"""What the errors of the operating system mean in this project's errors."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNUSABLE = {errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}


@contextmanager
def translated(where: str, *, store: str, key: str, directory: Path) -> Iterator[None]:
    """Turn every `OSError` of the block into an error about `where`, an object of `store`.

    `directory` is the store's own, which the remedies name.
    """
    try:
        yield
    except OSError as error:
        raise _failure(error, where, store=store, key=key, directory=directory) from error


def missing(where: str, *, store: str, key: str) -> NotFoundError:
    """Return the error for a key without an object."""
    return NotFoundError(
        f"{where}: there is no such object",
        remedy="Look for it in another store.",
        store=store,
        key=key,
    )


def behind_link(path: Path, *, store: str) -> PermanentError:
    """Return the error for a symbolic link within the store."""
    return PermanentError(
        f"{path} (store {store}) is, or is behind, a symbolic link",
        remedy="Links could lead out of the store: put the files themselves there, or mount "
        "the other disk with `mount --bind`.",
        store=store,
    )


def without_links(location: str, *, store: str) -> PermanentError:
    """Return the error for a file system that cannot create a file for one caller only."""
    return PermanentError(
        f"{location} (store {store}): its file system has no hard links, "
        "without which two attempts could overwrite each other",
        remedy="Use a file system that has them (ext4, XFS, ZFS, NFS; not SMB or FAT).",
        store=store,
    )


def _failure(error: OSError, where: str, *, store: str, key: str, directory: Path) -> BackupError:
    """Return what an error of the operating system means."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return missing(where, store=store, key=key)
    if error.errno in _FULL:
        return PermanentError(
            f"{where}: no space is left ({reason})",
            remedy=f"Free space at {directory}, enlarge it or its quota, or shorten the "
            "retention; then run this again.",
            store=store,
            key=key,
        )
    if error.errno in _DENIED:
        return AccessDeniedError(
            f"{where}: {reason}",
            remedy=f"Give this user read and write access to {directory}.",
            store=store,
            key=key,
        )
    if error.errno in _UNUSABLE:
        return PermanentError(
            f"{where}: {reason}",
            remedy="Choose another key: a file and a folder cannot have the same name.",
            store=store,
            key=key,
        )
    return StoreUnavailableError(
        f"{where}: {reason}",
        remedy="Look at the disk, or at the NAS and its mount.",
        store=store,
        key=key,
    )
