"""Starting, finding and stopping the servers of a sandbox, from any process."""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    NotFoundError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account, Process
from neuroca_backup.sandbox.readiness import tail
from neuroca_backup.sandbox.server import LOG_NAME, Entry, Launch, Server
from neuroca_backup.sandbox.state import State, locked

ALL = (
    "postgres",
    "postgres_twin",
    "mongodb",
    "mongodb_twin",
    "redis",
    "redis_twin",
    "milvus",
    "s3_us_west_2",
    "s3_eu_central_1",
)
# Started only when asked for by name: they have nothing to serve before something is restored.
ON_REQUEST = ("postgres_directory", "airflow_metadata", "directory")
SUPERUSER = "nca_admin"
TWIN_SUPERUSER = "nca_twin_admin"


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """One server of a sandbox: whether its process runs, its pid, address and log."""

    kind: str
    running: bool
    pid: int | None
    address: str
    log: Path


def start(
    root: Path,
    kinds: Sequence[str] = ALL,
    *,
    superuser: str = SUPERUSER,
    twin_superuser: str = TWIN_SUPERUSER,
) -> dict[str, Endpoint]:
    """Start servers in parallel and return the endpoints of `kinds`, in that order.

    Those that already run are left as they are, those found dead are replaced. On any failure, or
    an interrupt, everything that this call started is stopped and removed again.

    Raises:
        ConfigurationError: A kind is unknown, or the root cannot be used.
        ToolMissingError: A server's program is not installed.
        UnreachableError: A server died or did not answer; holds the tail of its log.
    """
    servers = [_server(kind, superuser, twin_superuser) for kind in dict.fromkeys(kinds)]
    return _started(Path(root).absolute(), servers)


def launch(root: Path, server: Server) -> Endpoint:
    """Start a server that was made for a purpose below `root`; if it runs, return its endpoint.

    `stop(root)` ends it like any other. Raises what `start` raises.
    """
    return _started(Path(root).absolute(), [server])[server.kind]


def _started(root: Path, servers: Sequence[Server]) -> dict[str, Endpoint]:
    try:
        with locked(root, create=True) as made:
            state = State.read(root)
            state.owns_root = state.owns_root or made
            _remove(state, [e for e in state.entries.values() if not _usable(e)])
            missing = [server for server in servers if server.kind not in state.entries]
            _start_all(state, missing)
            found = state.entries
            return {server.kind: _endpoint(root, found, server.kind) for server in servers}
    except OSError as error:
        raise _unusable(root, error) from error


def endpoints(root: Path) -> dict[str, Endpoint]:
    """Return the endpoint of every server that was started below `root`, by kind."""
    entries = State.read(Path(root).absolute()).entries
    return {kind: e.endpoint for kind, e in entries.items() if e.endpoint is not None}


def status(root: Path) -> dict[str, ServerStatus]:
    """Return how every server that was started below `root` is, by kind."""
    return {
        kind: ServerStatus(
            kind=kind,
            running=_usable(entry),
            pid=None if entry.process is None else entry.process.pid,
            address="" if entry.endpoint is None else entry.endpoint.label,
            log=entry.folder / LOG_NAME,
        )
        for kind, entry in State.read(Path(root).absolute()).entries.items()
    }


def stop(root: Path, kinds: Sequence[str] | None = None) -> None:
    """Stop `kinds`, or everything, and remove all that they left; stopping twice is no error.

    Once no server is left nothing of the sandbox is: no process, no port, no file, and no root
    unless that was there before.

    Raises:
        AccessDeniedError: The sandbox belongs to another user.
        UnreachableError: A process survived SIGKILL.
    """
    root = Path(root).absolute()
    for kind in kinds or ():
        _check_kind(kind)
    try:
        with locked(root, create=False):
            state = State.read(root)
            chosen = [e for k, e in state.entries.items() if kinds is None or k in kinds]
            _remove(state, chosen)
            state.close()
    except OSError as error:
        raise _unusable(root, error) from error


@contextmanager
def running(kind: str, root: Path, *, superuser: str | None = None) -> Iterator[Endpoint]:
    """Run one server below `root` for the length of the block.

    Raises:
        AlreadyExistsError: One of that kind runs there already, and is not ours to stop.
    """
    root = Path(root).absolute()
    if kind in endpoints(root):
        raise AlreadyExistsError(
            f"A server of kind {kind} already runs below {root}",
            remedy="Use another root, or stop that server first.",
            kind=kind,
        )
    names = {} if superuser is None else {"superuser": superuser, "twin_superuser": superuser}
    try:
        yield start(root, [kind], **names)[kind]
    finally:
        stop(root, [kind])


def _start_all(state: State, servers: Sequence[Server]) -> None:
    if not servers:
        return
    cancelled = threading.Event()
    with ThreadPoolExecutor(len(servers), thread_name_prefix="sandbox") as pool:
        try:
            started = [pool.submit(_start_one, state, s, cancelled) for s in servers]
            for future in started:
                future.result()
        except BaseException:
            # Whatever is still waiting for its server sees that one end, and returns at once.
            cancelled.set()
            kinds = {server.kind for server in servers}
            _end([e for kind, e in state.entries.items() if kind in kinds])
            pool.shutdown(wait=True)
            _remove(state, [e for kind, e in state.entries.items() if kind in kinds])
            state.close()
            raise


def _start_one(state: State, server: Server, cancelled: threading.Event) -> None:
    account = server.account
    folder = _folder(state.root, server.kind, account)
    entry = Entry(
        kind=server.kind,
        folder=folder,
        stop_signal=server.stop_signal,
        grace_seconds=server.grace_seconds,
    )
    if folder.exists():
        raise AlreadyExistsError(
            f"{folder} exists, and is not the sandbox's to replace",
            remedy="Choose another root, or move that folder away.",
            path=str(folder),
        )
    state.put(entry)
    folder.mkdir(mode=0o700)
    if account is not None:
        shutil.chown(folder, account.uid, account.gid)

    def report(process: Process) -> None:
        if cancelled.is_set():
            raise _cancelled(server.kind)
        nonlocal entry
        entry = dataclasses.replace(entry, process=process)
        state.put(entry)

    launch = Launch(folder=folder, report=report, account=account)
    try:
        endpoint = server.start(launch)
    except (BackupError, OSError):
        raise
    except Exception as error:
        # Four drivers' errors have no common base; their texts may quote what was sent.
        raise UnreachableError(
            f"{server.kind} answered, then failed while it was prepared "
            f"({type(error).__name__}); its log ends: {tail(launch.log)}",
            remedy="Start the sandbox again.",
        ) from error
    state.put(dataclasses.replace(entry, endpoint=endpoint))


def _folder(root: Path, kind: str, account: Account | None) -> Path:
    """Return where a server keeps its files: below the root if its account can get there."""
    if account is None or account.can("-x", root):
        return root / kind
    for place in dict.fromkeys((Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp"))):  # noqa: S108 - with a secret name
        if account.can("-x", place):
            return place / f"neuroca-sandbox-{kind}-{secrets.token_hex(8)}"
    raise ConfigurationError(
        f"The user {account.name}, under which {kind} runs, can enter neither {root} nor the "
        "system's temporary folders",
        remedy="Choose a root whose parent folders let other users through (mode 0711).",
        root=str(root),
    )


def _remove(state: State, entries: Sequence[Entry]) -> None:
    _end(entries)
    for entry in entries:
        if entry.folder.exists():
            shutil.rmtree(entry.folder)
        state.remove(entry.kind)


def _end(entries: Sequence[Entry]) -> None:
    """Stop the processes in parallel; all are tried before the first error is raised."""
    stops: list[Callable[[], None]] = [_stopper(e, e.process) for e in entries if e.process]
    if not stops:
        return
    with ThreadPoolExecutor(len(stops), thread_name_prefix="sandbox") as pool:
        for future in [pool.submit(stop) for stop in stops]:
            future.result()


def _stopper(entry: Entry, process: Process) -> Callable[[], None]:
    return lambda: process.stop(first=entry.stop_signal, grace_seconds=entry.grace_seconds)


def _usable(entry: Entry) -> bool:
    # What has answered and has no process is a directory, which is there as long as its folder.
    alive = entry.folder.is_dir() if entry.process is None else entry.process.alive()
    return entry.endpoint is not None and alive


def _endpoint(root: Path, entries: dict[str, Entry], kind: str) -> Endpoint:
    endpoint = entries[kind].endpoint
    if endpoint is None:
        raise NotFoundError(
            f"{kind} was not started below {root}", remedy="Start the sandbox again.", kind=kind
        )
    return endpoint


def _server(kind: str, superuser: str, twin_superuser: str) -> Server:  # noqa: PLR0911 - a table
    """Return the server of `kind`; its module is imported here, so that only what runs is paid."""
    # ruff: noqa: PLC0415 - see above
    _check_kind(kind)
    if kind in {"postgres", "postgres_twin"}:
        from neuroca_backup.sandbox.postgres import PostgresServer

        name = superuser if kind == "postgres" else twin_superuser
        return PostgresServer(kind=kind, superuser=name)
    if kind == "postgres_directory":
        from neuroca_backup.sandbox.postgres_directory import WaitingPostgres

        return WaitingPostgres()
    if kind == "airflow_metadata":
        from neuroca_backup.sandbox.airflow_metadata import AirflowMetadataServer

        return AirflowMetadataServer(superuser=superuser)
    if kind == "directory":
        from neuroca_backup.sandbox.directory import PrivateDirectory

        return PrivateDirectory()
    if kind in {"mongodb", "mongodb_twin"}:
        from neuroca_backup.sandbox.mongod import MongoServer

        twin = MongoServer(kind=kind, replica_set="rs_twin", user="nca_twin_admin")
        return MongoServer() if kind == "mongodb" else twin
    if kind in {"redis", "redis_twin"}:
        from neuroca_backup.sandbox.redis_server import RedisServer

        return RedisServer(kind=kind)
    if kind == "milvus":
        from neuroca_backup.sandbox.milvus_server import MilvusServer

        return MilvusServer()
    from neuroca_backup.sandbox.object_store import ObjectStoreServer

    if kind == "s3_us_west_2":
        return ObjectStoreServer(kind=kind, region="us-west-2", bucket="neuroca-backups")
    return ObjectStoreServer(kind=kind, region="eu-central-1", bucket="neuroca-dr-backups")


def _check_kind(kind: str) -> None:
    if kind not in ALL + ON_REQUEST:
        raise ConfigurationError(
            f"{kind!r} is not a server of the sandbox",
            remedy=f"Use one of: {', '.join(ALL + ON_REQUEST)}.",
            value=kind,
        )


def _cancelled(kind: str) -> BackupError:
    return NotFoundError(
        f"{kind} was not started, because another server failed or the start was interrupted",
        remedy="Mend the first error, then start the sandbox again.",
        kind=kind,
    )


def _unusable(root: Path, error: OSError) -> BackupError:
    kind = AccessDeniedError if isinstance(error, PermissionError) else ConfigurationError
    return kind(
        f"The sandbox's root {root} cannot be used: {error.strerror} ({error.filename})",
        remedy="Choose a root on a disk with space that this user may write to.",
        root=str(root),
    )
