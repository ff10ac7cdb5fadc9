"""Who owns a restored file, as far as this process may decide that."""

from __future__ import annotations

import grp
import os
import pwd
from functools import lru_cache

from neuroca_backup.trees.entries import Entry, Kind

_AS_ANOTHER = 0o6000  # set-user-id and set-group-id


def may_own() -> bool:
    """Return whether this process may give files to others."""
    return os.geteuid() == 0


def owner_of(entry: Entry) -> tuple[int, int]:
    """Return the user and group id on this machine: by name where it has it, else as it was."""
    return _user(entry.user, entry.uid), _group(entry.group, entry.gid)


def mode_of(entry: Entry) -> int:
    """Return the mode to restore; who cannot give a file away must not let it run as its owner."""
    if may_own() or owner_of(entry)[0] == os.geteuid():
        return entry.mode
    return entry.mode if entry.kind is Kind.DIRECTORY else entry.mode & ~_AS_ANOTHER


@lru_cache(maxsize=1024)
def _user(name: str, uid: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else uid
    except KeyError:
        return uid


@lru_cache(maxsize=1024)
def _group(name: str, gid: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else gid
    except KeyError:
        return gid
