"""The sidecar: a throwaway server that loads the backup before any target is touched.

It proves that the RDB loads, is compared with what was backed up, and is then what the target
copies from. It writes nothing: no snapshot, no append-only file.
"""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuroca_backup import redis_session as session
from neuroca_backup import sandbox
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.redis_rdb import tools
from neuroca_backup.engines.redis_rdb.snapshot import MEMBER
from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    IncompatibleVersionError,
    SpoolError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import on_free_ports, wait_until_ready
from neuroca_backup.sandbox.server import Launch, new_password

KIND = "redis_sidecar"
LOOPBACK = "127.0.0.1"
HOST_WORD = "sidecar_host"

_MEMORY = Path("/proc/meminfo")
_READY_SECONDS = 60
# A slow machine loads at least so many bytes of an RDB in a second; it is usually ten times that.
_SLOW_BYTES = 5_000_000
_DAMAGE = re.compile(
    r"RDB ERROR DETECTED|RDB checksum|CRC error|Internal error in RDB|Short read|Unexpected EOF"
    r"|Bad data format|Wrong signature|Fatal error loading"
)
_SETTINGS = """\
bind {addresses}
port {port}
requirepass {password}
dir "{folder}"
dbfilename {name}
daemonize no
save ""
appendonly no
maxmemory 0
databases {databases}
repl-diskless-sync yes
repl-diskless-sync-delay 0
client-output-buffer-limit replica 0 0 0
"""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A Redis that loads `rdb` and listens on loopback and on `address`."""

    rdb: Path
    address: str
    databases: int
    kind: str = KIND
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 5
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Start redis-server and return its endpoint once it has loaded everything."""
        (launch.folder / MEMBER).symlink_to(self.rdb.absolute())
        return on_free_ports(1, partial(self._run, launch, new_password()))

    def _run(self, launch: Launch, password: str, ports: Sequence[int]) -> Endpoint:
        (port,) = ports
        settings = launch.write_private(
            "redis.conf",
            _SETTINGS.format(
                addresses=" ".join(dict.fromkeys((LOOPBACK, self.address))),
                port=port,
                password=password,
                folder=launch.folder,
                name=MEMBER,
                databases=self.databases,
            ),
        )
        process = launch.spawn([tools.find("redis-server"), settings])
        endpoint = Endpoint(kind="redis", host=LOOPBACK, port=port, password=password)

        def answers() -> bool:
            if not process.listens_on(port):
                return False
            try:
                session.state(endpoint)
            except BackupError:
                return False
            return True

        seconds = _READY_SECONDS + self.rdb.stat().st_size / _SLOW_BYTES
        wait_until_ready(
            answers, process=process, what="The sidecar", log=launch.log, seconds=seconds
        )
        return endpoint


def member(backup: Restorable) -> Path:
    """Return the path of the fetched RDB.

    Raises:
        SpoolError: It was not fetched.
    """
    path = backup.folders[-1] / MEMBER if backup.folders else Path(MEMBER)
    if not path.is_file():
        raise SpoolError(
            f"{MEMBER} of {backup.last.backup_id} is not there",
            remedy="Run the restore from its fetch step on.",
            path=str(path),
        )
    return path


def launch(backup: Restorable, target: RestoreTarget) -> Endpoint:
    """Start a sidecar with the backup in it, in place of one that an earlier try has left.

    Raises:
        DamagedError: The server does not accept the RDB.
        IncompatibleVersionError: The RDB is newer than our redis-server, or needs a module.
    """
    sandbox.stop(backup.work)
    numbers = [int(number) for number in backup.last.dump.facts["databases"]]
    server = Sidecar(
        rdb=member(backup),
        address=address(target.endpoint),
        databases=max([15, *numbers]) + 1,
    )
    try:
        return sandbox.launch(backup.work, server)
    except UnreachableError as error:
        # The server's log may quote keys: it is read, and not passed on.
        words = str(error)
        if re.search(r"format version|can't load", words):
            raise IncompatibleVersionError(
                f"redis-server {tools.version('redis-server')} of this machine cannot load "
                f"{MEMBER}: it is too new, or needs a module",
                remedy="Install the source's version of Redis here, with its modules, or name "
                "its folder in NEUROCA_REDIS_BIN.",
                key=MEMBER,
            ) from None
        if _DAMAGE.search(words):
            raise DamagedError(
                f"redis-server does not accept {MEMBER}",
                remedy="Restore another copy, or another backup.",
                key=MEMBER,
            ) from None
        raise


def require_memory(needed: int) -> None:
    """Raise `ConfigurationError` where this machine cannot hold `needed` bytes of data."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMORY.read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    # Where the system does not say, the server itself will when it has too little.
    if found is not None and int(found[1]) * 1024 < needed:
        raise ConfigurationError(
            f"The backup takes {needed / 1e6:,.0f} MB of memory in the server that loads it first; "
            f"this machine has {int(found[1]) / 1e3:,.0f} MB to spare",
            remedy="Restore from a machine with more memory.",
            needed=needed,
        )


def running(work: Path) -> Endpoint | None:
    """Return the sidecar that runs below `work`, or None."""
    found = sandbox.status(work).get(KIND)
    return sandbox.endpoints(work)[KIND] if found is not None and found.running else None


def address(target: Endpoint) -> str:
    """Return the address of this machine under which `target` reaches a sidecar.

    The connection's extra may name it; otherwise it is the one from which we reach the target.

    Raises:
        ConfigurationError: There is no way to the target's host.
    """
    named = target.extra.get(HOST_WORD)
    if named:
        return str(named)
    if not target.host or target.host in {"localhost", LOOPBACK, "::1"}:
        return LOOPBACK
    try:
        # A datagram socket sends nothing when it connects; it only asks the routing table.
        family, kind, protocol, _, there = socket.getaddrinfo(
            target.host, target.port, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(there)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigurationError(
            f"The address under which {target.label} reaches this machine is unknown "
            f"({error.strerror})",
            remedy=f"Name it as `{HOST_WORD}` in the connection's extra.",
            path=HOST_WORD,
        ) from None
