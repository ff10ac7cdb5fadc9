"""Where a restore goes: a data directory, what lies beside it meanwhile, and who owns it."""

from __future__ import annotations

import hashlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.errors import ConfigurationError, IncompatibleVersionError, TargetRefusedError
from neuroca_backup.sandbox.process import Account, Process

WORD = "data_directory"


@dataclass(frozen=True, slots=True)
class Place:
    """The final `directory`, the private folder `staging` beside it, and the owner of both.

    Both are on one file system, so that the result gets into its place by one rename. `programs`
    is the folder of the tools of the right version; `locations` are the folders of tablespaces by
    OID; `structure_check` says whether every table and index is read to compare. `gate` and
    `socket` belong to a sandbox that waits for the directory; empty otherwise.
    """

    directory: Path
    staging: Path
    mark: str
    account: Account | None
    programs: Path
    locations: Mapping[str, Path]
    structure_check: bool = True
    gate: str = ""
    socket: str = ""

    @property
    def data(self) -> Path:
        """The rebuilt directory before it is in its place."""
        return self.staging / "data"

    def occupied(self) -> bool:
        """Return whether anything lies in the final directory."""
        return self.directory.is_dir() and any(self.directory.iterdir())

    def kept(self) -> Path:
        """Return a free name for what is replaced: a backup may be restored again and again."""
        first = self.directory.with_name(f"{self.directory.name}.before_{self.mark}")
        others = (first, *(first.with_name(f"{first.name}_{number}") for number in range(2, 1000)))
        return next(other for other in others if not other.exists())

    def refuse_running(self) -> None:
        """Raise `TargetRefusedError` where a server works in the directory.

        https://www.postgresql.org/docs/current/storage-file-layout.html (postmaster.pid)
        """
        try:
            pid = int((self.directory / "postmaster.pid").read_text().splitlines()[0])
        except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
            return
        if Process.find(pid) is not None:
            raise TargetRefusedError(
                f"A server (process {pid}) runs in {self.directory}",
                remedy="Stop it first (pg_ctl stop), or restore into another directory.",
                path=str(self.directory),
                pid=pid,
            )

    def refuse_occupied(self, target: RestoreTarget) -> None:
        """Raise `TargetRefusedError` for a directory with content that may not be replaced."""
        if self.occupied() and not target.replace:
            raise TargetRefusedError(
                f"{self.directory} is not empty",
                remedy="Restore into an empty directory or a sandbox, or confirm an in-place "
                "restore; it keeps the directory under another name.",
                path=str(self.directory),
            )


def find(backup: Restorable, target: RestoreTarget) -> Place:
    """Return where `backup` goes.

    Raises:
        ConfigurationError: The target names no directory, or one that cannot be used.
        IncompatibleVersionError: Our server programs are of another major version.
    """
    extra = target.endpoint.extra
    directory = _absolute(extra.get(WORD))
    parent = directory.parent
    if not parent.is_dir():
        raise ConfigurationError(
            f"{parent}, in which {directory.name} would lie, is no directory",
            remedy=f"Create it, or correct `{WORD}` in the extra of the target's connection.",
            path=WORD,
            value=str(directory),
        )
    until = "" if backup.until is None else backup.until.isoformat()
    mark = hashlib.sha256(f"{backup.last.backup_id}/{until}".encode()).hexdigest()[:12]
    return Place(
        directory=directory,
        staging=directory.with_name(f"{directory.name}.restoring_{mark}"),
        mark=mark,
        account=_account(directory, extra),
        programs=_programs(backup, extra),
        locations=_locations(backup, extra),
        structure_check=extra.get("structure_check", True) is not False,
        gate=str(extra.get("gate", "")),
        socket=str(extra.get("socket", "")),
    )


def _absolute(value: Any) -> Path:
    if not value:
        raise ConfigurationError(
            "The target does not say into which directory a physical backup is restored",
            remedy=f'Add {{"{WORD}": "/path"}} to the extra of the target\'s connection: a '
            "directory on this machine that is absent or empty.",
            path=WORD,
            value=value,
        )
    path = Path(str(value))
    if not path.is_absolute() or path.parent == path:
        raise ConfigurationError(
            f"`{WORD}` of the target is {value!r}, which is no absolute path of a directory",
            remedy="Name it from / on.",
            path=WORD,
            value=str(value),
        )
    return path


def _account(directory: Path, extra: Mapping[str, Any]) -> Account | None:
    """Return who owns the directory and runs servers in it; None for our own, ordinary user.

    As root: who the extra's `owner` names, else who owns the directory or its parent, else the
    user `postgres`, else `nobody`.
    """
    if os.geteuid() != 0:
        return None
    name = str(extra.get("owner", ""))
    if name:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise ConfigurationError(
                f"`owner` of the target is {name!r}, and this system has no such user",
                remedy="Name an existing user, such as postgres.",
                path="owner",
                value=name,
            ) from None
    else:
        owners = (place.stat().st_uid for place in (directory, directory.parent) if place.exists())
        entry = next((pwd.getpwuid(uid) for uid in owners if uid != 0), None) or _usual()
    account = Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    if not account.can("-x", directory.parent):
        raise ConfigurationError(
            f"The user {account.name}, who would own {directory}, cannot get there",
            remedy="Let others pass through its parent folders (mode 0711), or name another "
            "`owner` in the extra of the target's connection.",
            path="owner",
            value=account.name,
        )
    return account


def _usual() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError(
        "PostgreSQL refuses to run as root, and this system has no user postgres or nobody",
        remedy="Name the user who shall own the directory as `owner` in the extra of the "
        "target's connection.",
        path="owner",
        value="",
    )


def _programs(backup: Restorable, extra: Mapping[str, Any]) -> Path:
    version = backup.last.dump.server_version
    if not extra.get("programs"):
        return tools.server_folder(tools.major(version))
    folder = Path(str(extra["programs"]))
    ours = tools.version_of(folder / "postgres")
    if tools.major(ours) != tools.major(version):
        raise IncompatibleVersionError(
            f"The sandbox is PostgreSQL {ours}, and the backup is of version {version}",
            remedy=f"Restore into a directory, where PostgreSQL {tools.major(version)} is "
            "installed.",
            sandbox=ours,
            backup=version,
        )
    return folder


def _locations(backup: Restorable, extra: Mapping[str, Any]) -> dict[str, Path]:
    spaces: Mapping[str, str] = backup.last.dump.facts["tablespaces"]
    mapping = extra.get("tablespace_mapping", {})
    missing = [path for path in spaces.values() if path not in mapping]
    if missing:
        raise ConfigurationError(
            f"The backup has tablespaces at {', '.join(missing)}, and the target does not say "
            "where they go",
            remedy='Add {"tablespace_mapping": {"/old/path": "/new/path"}} to the extra of the '
            "target's connection; each new path has to be absent or empty.",
            path="tablespace_mapping",
            value=missing,
        )
    return {oid: Path(str(mapping[path])) for oid, path in spaces.items()}
