"""From the members of a chain to one data directory, with the server's own tools.

https://www.postgresql.org/docs/current/app-pgcombinebackup.html
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from neuroca_backup import commands
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines.postgresql_physical import basebackup
from neuroca_backup.errors import DamagedError, ToolFailedError
from neuroca_backup.sandbox.process import Account
from neuroca_backup.streams import copy

MANIFEST_NAME = "backup_manifest"
_TABLESPACES = "pg_tblspc"
_LINK_SINCE = 18


def rebuild(
    folders: Sequence[Path], staging: Path, *, programs: Path, locations: Mapping[str, Path]
) -> Path:
    """Unpack the base backups in `folders` below `staging`, combine them, and return the result.

    `locations` are the folders of tablespaces by OID; they are filled. The result has been
    compared file by file with its manifest.

    Raises:
        DamagedError: A member is no such backup, or the result is not what its manifest says.
    """
    data = staging / "data"
    if len(folders) == 1:
        _unpack(folders[0], data, locations)
    else:
        parts = []
        for number, folder in enumerate(folders):
            part = staging / f"part{number}"
            spaces = {oid: staging / f"part{number}_{oid}" for oid in locations}
            _unpack(folder, part, spaces)
            parts.append(part)
        _combine(parts, data, programs=programs, locations=locations, spaces=spaces)
        for leftover in staging.glob("part*"):
            shutil.rmtree(leftover)
    try:
        # WAL is left out: what a backup's own WAL lacks its slices bring, and recovery reads all.
        commands.run([programs / "pg_verifybackup", "--no-parse-wal", "--quiet", data])
    except ToolFailedError as error:
        raise DamagedError(
            f"The rebuilt cluster is not what its manifest says: {error.facts['stderr']}",
            remedy="Restore from another store, or an older backup.",
        ) from error
    (data / MANIFEST_NAME).unlink()
    # Recovery would make the links of tablespaces anew from it, to where they were.
    (data / "tablespace_map").unlink(missing_ok=True)
    return data


def give(root: Path, account: Account | None) -> None:
    """Make `account` the owner of everything below `root`; symbolic links are not followed."""
    if account is None:
        return
    os.chown(root, account.uid, account.gid)
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            os.chown(Path(folder) / name, account.uid, account.gid, follow_symlinks=False)


def _unpack(folder: Path, data: Path, locations: Mapping[str, Path]) -> None:
    data.mkdir(mode=0o700)
    base = folder / basebackup.FOLDER
    _extract(folder / basebackup.TAR, data)
    shutil.copyfile(base / MANIFEST_NAME, data / MANIFEST_NAME)
    for oid, location in locations.items():
        location.mkdir(mode=0o700, exist_ok=True)
        _extract(folder / basebackup.member_of(oid), location)
        link = data / _TABLESPACES / oid
        link.unlink(missing_ok=True)
        link.symlink_to(location)


def _extract(tar: Path, into: Path) -> None:
    """Extract files and folders, private ones, into `into` and nowhere else.

    The links of tablespaces are left out: they name folders of the machine that was backed up.
    """
    with tar.open("rb") as raw:
        for entry, content in basebackup.entries(raw, name=tar.name):
            path = into / _safe(entry.name, tar.name)
            if entry.isdir():
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif content is not None and entry.name != MANIFEST_NAME:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(path, content)
            elif content is None and not (entry.issym() and path.parent.name == _TABLESPACES):
                raise _unsafe(entry.name, tar.name)


def _write(path: Path, content: BinaryIO) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        copy(content, out)


def _safe(name: str, tar: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise _unsafe(name, tar)
    return path


def _unsafe(name: str, tar: str) -> DamagedError:
    return DamagedError(
        f"{tar} holds {name!r}, which no base backup holds",
        remedy="Restore from another store, and find out who wrote this backup.",
        key=tar,
    )


def _combine(
    parts: Sequence[Path],
    data: Path,
    *,
    programs: Path,
    locations: Mapping[str, Path],
    spaces: Mapping[str, Path],
) -> None:
    combine = programs / "pg_combinebackup"
    # The parts are thrown away afterwards: what did not change need not be copied once more.
    link = tools.major(tools.version_of(combine)) >= _LINK_SINCE
    for location in locations.values():
        if location.is_dir():
            location.rmdir()  # it is made by the tool, and was empty
    argv: list[str | Path] = [
        combine,
        f"--output={data}",
        "--no-sync",
        *(["--link"] if link else []),
        *(f"--tablespace-mapping={spaces[oid]}={path}" for oid, path in locations.items()),
        *parts,
    ]
    try:
        commands.run(argv)
    except ToolFailedError as error:
        raise DamagedError(
            f"The base backups of the chain do not fit together: {error.facts['stderr']}",
            remedy="Restore from another store, or an older backup.",
        ) from error
