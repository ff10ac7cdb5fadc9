"""Publishing for a server that is stopped: the RDB is put where the server will load it from.

The target's connection names the place as `rdb_path`, on this machine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.errors import (
    ConfigurationError,
    PermanentError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.streams import copy

PATH_WORD = "rdb_path"
_PROC = Path("/proc")
_SERVERS = ("redis-server", "valkey-server", "redis-sentinel", "keydb-server")


def wanted(target: RestoreTarget) -> Path | None:
    """Return the path that the connection names, if the server does not answer."""
    named = target.endpoint.extra.get(PATH_WORD)
    if not named:
        return None
    try:
        session.state(target.endpoint)
    except UnreachableError:
        return Path(str(named))
    return None


def require_place(path: Path, target: RestoreTarget) -> None:
    """Raise what keeps a server from loading a file at `path` at its next start.

    Raises:
        ConfigurationError: The path is none for an RDB, or an append-only file would win.
        TargetRefusedError: A server works in that folder, or a file is there to be kept.
    """
    folder = path.parent
    if not path.is_absolute() or not folder.is_dir() or path.is_dir():
        raise ConfigurationError(
            f"{PATH_WORD} of the connection is {str(path)!r}: not a file's path in a folder that "
            "exists",
            remedy="Write the server's `dir` and `dbfilename` as one absolute path.",
            path=PATH_WORD,
            value=str(path),
        )
    logs = sorted(
        one.name for one in folder.iterdir() if one.suffix == ".aof" or one.name == "appendonlydir"
    )
    if logs:
        raise ConfigurationError(
            f"{folder} has append-only files ({', '.join(logs)}): with `appendonly yes` the server "
            f"would load these and ignore {path.name}",
            remedy="Move them away, start the server with `appendonly no`, then switch it on with "
            "CONFIG SET appendonly yes. Or start the server and restore into it.",
            path=str(folder),
        )
    for pid in _servers_in(folder):
        raise TargetRefusedError(
            f"A Redis server (process {pid}) works in {folder}: it would overwrite {path.name} "
            "when it stops",
            remedy="Stop it first, or correct the connection's host and port to restore into it.",
            path=str(path),
        )
    if path.exists() and not target.replace:
        raise TargetRefusedError(
            f"{path} exists",
            remedy="Confirm an in-place restore; it keeps that file under another name.",
            path=str(path),
        )


def publish(backup: Restorable, source: Path, path: Path) -> list[str]:
    """Put a copy of `source` at `path` in one step, keeping what was there beside it.

    Owner and mode are those of the file that was there, or the owner of its folder.

    Raises:
        PermanentError: The disk is full, or may not be written to; what was there is unchanged.
    """
    if path.exists() and _same(source, path):
        return []
    fresh = path.with_name(f".{path.name}.restoring_{_mark(backup)}")
    notes = []
    try:
        _copy(source, fresh, like=path if path.exists() else path.parent)
        if path.exists():
            kept = _kept(backup, path)
            os.link(path, kept)
            notes.append(f"What was in {path} is kept as {kept.name}; remove it when not needed")
        fresh.replace(path)
        _sync(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise PermanentError(
            f"{path} cannot be put in place: {error.strerror}",
            remedy="Make room there, or run this as a user that may write there.",
            path=str(path),
        ) from error
    return notes


def _copy(source: Path, fresh: Path, *, like: Path) -> None:
    # A try that was killed may have left half a copy.
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "wb") as out, source.open("rb") as data:
        copy(data, out)
        model = like.stat()
        if os.geteuid() == 0:
            os.fchown(out.fileno(), model.st_uid, model.st_gid)
        if not like.is_dir():
            os.fchmod(out.fileno(), stat.S_IMODE(model.st_mode))
        out.flush()
        os.fsync(out.fileno())


def _kept(backup: Restorable, path: Path) -> Path:
    """Return a free name: the same backup may be restored again and again."""
    name = f"{path.name}.before_{_mark(backup)}"
    names = (name, *(f"{name}_{number}" for number in range(2, 1000)))
    return next(one for one in map(path.with_name, names) if not _holds(one, path))


def _holds(kept: Path, path: Path) -> bool:
    """Return whether a name is taken; a link that an interrupted try made of `path` is dropped."""
    if not kept.exists():
        return False
    if kept.samefile(path):
        kept.unlink()
        return False
    return True


def _mark(backup: Restorable) -> str:
    return hashlib.sha256(backup.last.backup_id.encode()).hexdigest()[:12]


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    digests = []
    for path in (one, other):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests[0] == digests[1]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _servers_in(folder: Path) -> list[int]:
    """Return the Redis servers that work in `folder`; one that may not be asked counts as one."""
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if (entry / "comm").read_text().strip() not in _SERVERS:
                continue
            if (entry / "cwd").samefile(folder):
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            found.append(int(entry.name))
    return found
