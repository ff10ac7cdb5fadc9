"""PostgreSQL on a data directory that came from elsewhere.

Nothing of the directory's own configuration is used: it may name files, libraries, archives and
primaries that must not be touched from here. Who may log in is decided by the operating system
(peer authentication over an abstract socket), so no password of the directory has to be known or
changed.
"""

from __future__ import annotations

import os
import pwd
import secrets
import signal
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.postgres import installed_programs, reachable
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import on_free_ports, wait_until_ready
from neuroca_backup.sandbox.server import Launch, new_password

SANDBOX_USER = "neuroca_sandbox"
_PORT = 5432  # of an abstract socket: a part of its name, and nobody's port
_SHUTDOWN_SECONDS = 900  # a clean end writes everything in memory to disk
# Opening a named pipe waits for who opens its other end. Then the shell becomes the server: the
# process that `servers.json` knows stays the same.
_GATE = 'read -r _go <"$1" && shift && exec "$@"'
# https://www.postgresql.org/docs/current/runtime-config.html
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
    "ssl": "off",
    "archive_mode": "off",
    "hot_standby": "off",
    "wal_level": "replica",
    "shared_buffers": "128MB",
    "huge_pages": "off",
    "max_connections": "20",
    "autovacuum": "off",
    "shared_preload_libraries": "",
    "recovery_init_sync_method": "syncfs",
}


@dataclass(frozen=True, slots=True)
class DirectoryServer:
    """A server on `data`, reachable by this operating system user alone, as `superuser`.

    `programs` is the folder of the right version's programs. `settings` come on top of those that
    every such server has. It may first have to recover for up to `ready_seconds`.
    """

    data: Path
    programs: Path
    superuser: str
    account: Account | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    ready_seconds: float = 24 * 3600
    kind: str = "postgres_directory"
    stop_signal: int = signal.SIGINT
    grace_seconds: float = _SHUTDOWN_SECONDS

    def start(self, launch: Launch) -> Endpoint:
        """Start the server and log in once it has recovered."""
        socket = new_socket()
        argv = _command(
            launch,
            reachable(self.programs, launch),
            self.data,
            {**self.settings, "unix_socket_directories": socket},
            access=_peer_access(),
            superuser=self.superuser,
        )
        process = launch.spawn(argv)
        endpoint = peer_endpoint(socket, self.superuser)
        wait_until_ready(
            lambda: answers(endpoint),
            process=process,
            what=f"PostgreSQL on {self.data}",
            log=launch.log,
            seconds=self.ready_seconds,
        )
        return endpoint


@dataclass(frozen=True, slots=True)
class WaitingPostgres:
    """A process that becomes a server as soon as a data directory was restored for it.

    The endpoint's extra says where: `data_directory`; the named pipe `gate` lets the server
    start, with the `programs` in that folder; over `socket` the owner of the sandbox gets in
    without a password.
    """

    kind: str = "postgres_directory"
    stop_signal: int = signal.SIGINT
    grace_seconds: float = 10

    @property
    def account(self) -> Account | None:
        """`nobody` when we are root."""
        return Account.unprivileged()

    def start(self, launch: Launch) -> Endpoint:
        """Start the waiting process and choose where the server will listen."""
        programs = reachable(installed_programs(), launch)
        return on_free_ports(1, lambda ports: self._wait(launch, programs, ports))

    def _wait(self, launch: Launch, programs: Path, ports: Sequence[int]) -> Endpoint:
        (port,) = ports
        data, gate, socket = launch.folder / "data", launch.folder / "gate", new_socket()
        gate.unlink(missing_ok=True)
        os.mkfifo(gate, stat.S_IRUSR | stat.S_IWUSR)
        if launch.account is not None:
            os.chown(gate, launch.account.uid, launch.account.gid)
        server = _command(
            launch,
            programs,
            data,
            {
                "listen_addresses": "127.0.0.1",
                "port": str(port),
                "unix_socket_directories": socket,
                "fsync": "off",  # nothing of a sandbox outlives it
            },
            access=(*_peer_access(), "host all all 127.0.0.1/32 scram-sha-256"),
            superuser="all",
        )
        launch.spawn(["/bin/sh", "-c", _GATE, "sh", gate, *server])
        return Endpoint(
            kind="postgres",
            host="127.0.0.1",
            port=port,
            user=SANDBOX_USER,
            password=new_password(),
            database="postgres",
            extra={
                "sslmode": "disable",
                "data_directory": str(data),
                "gate": str(gate),
                "socket": socket,
                "programs": str(programs),
            },
        )


def peer_endpoint(socket: str, superuser: str, *, port: int = _PORT) -> Endpoint:
    """Return how to log in over `socket` as `superuser` without a password."""
    return Endpoint(
        kind="postgres",
        host=socket,
        port=port,
        user=superuser,
        database="postgres",
        extra={"require_auth": "none"},
    )


def new_socket() -> str:
    """Return the name of an abstract socket: it needs no file, whose path might be too long.

    The colon keeps psycopg from asking the DNS for it, as it does for all but paths.
    """
    return f"@:neuroca-{secrets.token_hex(8)}"


def answers(endpoint: Endpoint) -> bool:
    """Return whether the server lets us in."""
    import psycopg  # noqa: PLC0415 - importing the sandbox must stay cheap

    try:
        with psycopg.connect(
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.user,
            dbname=endpoint.database,
            connect_timeout=2,
        ) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


def _command(
    launch: Launch,
    programs: Path,
    data: Path,
    settings: Mapping[str, str],
    *,
    access: Sequence[str],
    superuser: str,
) -> list[str | Path]:
    """Write the server's configuration and return the command that starts it with it."""
    hba = launch.write_private("pg_hba.conf", "".join(f"{line}\n" for line in access))
    # Who owns the sandbox may be anybody in the cluster; nobody else gets in over the socket.
    ident = launch.write_private(
        "pg_ident.conf", f'owner "{pwd.getpwuid(os.geteuid()).pw_name}" {_quoted(superuser)}\n'
    )
    everything = {
        **_SETTINGS,
        "port": str(_PORT),
        **settings,
        "hba_file": str(hba),
        "ident_file": str(ident),
    }
    lines = (f"{name} = '{_escaped(value)}'\n" for name, value in everything.items())
    config = launch.write_private("postgresql.conf", "".join(lines))
    return [programs / "postgres", "-D", data, "-c", f"config_file={config}"]


def _peer_access() -> tuple[str, ...]:
    return ("local all all peer map=owner",)


def _quoted(superuser: str) -> str:
    if superuser == "all":
        return superuser
    return '"' + superuser.replace('"', '""') + '"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
