"""Reading a file until what was read is one state of it, and its metadata."""

from __future__ import annotations

import base64
import errno
import grp
import os
import pwd
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO, TypeVar

from neuroca_backup.errors import TransientError
from neuroca_backup.trees.entries import shown
from neuroca_backup.trees.walking import Found, readable

Result = TypeVar("Result")

STABLE_SECONDS = 60.0
# A second write within the clock tick of the first leaves the times as they are:
# https://www.kernel.org/doc/html/latest/timers/timekeeping.html. A tick is at most 10 ms.
_TICK_NS = 20_000_000
_FIRST_PAUSE = 0.02  # seconds
_LONGEST_PAUSE = 1.0  # seconds
_NO_ATTRIBUTES = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA, errno.EPERM, errno.EACCES}


class ChangedError(Exception):
    """The file changed while it was read; it is read again."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open regular file and its status before it was read."""

    stream: BinaryIO
    before: os.stat_result
    attempt: int

    def confirm(self, count: int) -> None:
        """Raise `ChangedError` unless the `count` bytes that were read are one state of it."""
        after = os.fstat(self.stream.fileno())
        if _state(after) != _state(self.before) or count != after.st_size:
            raise ChangedError
        if 0 <= time.time_ns() - after.st_ctime_ns < _TICK_NS:
            raise ChangedError


def stable(
    found: Found, attempt: Callable[[Opened], Result], *, seconds: float = STABLE_SECONDS
) -> Result:
    """Return what `attempt` makes of the open file; it calls `confirm` when it has read all.

    Where that fails it is called again, on the file of that name by then, for up to `seconds`.

    Raises:
        FileNotFoundError: The file is gone.
        TransientError: It kept changing, or became something else than a file.
        AccessDeniedError: It may not be read.
    """
    deadline = time.monotonic() + seconds
    pause, number = _FIRST_PAUSE, 1
    while True:
        descriptor = _opened(found)
        with os.fdopen(descriptor, "rb", buffering=0) as stream, readable(f"/{found.path}"):
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _other(found)
            try:
                return attempt(Opened(stream, status, number))
            except ChangedError:
                pass
        if time.monotonic() + pause > deadline:
            raise TransientError(
                f"{shown(found.path)} was being written to for {seconds:.0f} s, and never read "
                "in one state",
                remedy="It is tried again; a file that is always written to belongs to the logs, "
                "or to a database's own backup: exclude it here.",
                path=shown(found.path),
            )
        time.sleep(pause)
        pause, number = min(pause * 2, _LONGEST_PAUSE), number + 1


def attributes(descriptor: int) -> Mapping[str, str]:
    """Return the extended attributes of an open file that may be read, values in base64."""
    try:
        names = sorted(os.listxattr(descriptor))
        return {
            name: base64.b64encode(os.getxattr(descriptor, name)).decode()
            for name in names
            if not name.startswith("security.selinux")  # the policy of the target gives its own
        }
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return {}
        raise


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user id, "" where the system has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


@lru_cache(maxsize=1024)
def group_name(gid: int) -> str:
    """Return the name of a group id, "" where the system has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _opened(found: Found) -> int:
    # A pipe that took the file's place must not keep us waiting.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with readable(f"/{found.path}"):
        try:
            return os.open(found.name, flags | os.O_NOATIME, dir_fd=found.folder)
        except PermissionError:
            # Only the owner may keep the time of the last access as it is.
            return os.open(found.name, flags, dir_fd=found.folder)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                raise _other(found) from None
            raise


def _other(found: Found) -> TransientError:
    return TransientError(
        f"{shown(found.path)} was a file when it was listed, and is something else now",
        remedy="It is tried again.",
        path=shown(found.path),
    )
