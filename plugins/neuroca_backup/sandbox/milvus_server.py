"""A Milvus server (standalone, with its own etcd and storage) from the wheel `milvus`.

The wheel's own launcher is not used: it leaves etcd's peer port at 2380, waits by sleeping and
knows no password. Milvus can bind its coordinators to every address only, so the sandbox asks for
accounts; keep it on a machine whose ports are not open to others.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from neuroca_backup.errors import UnreachableError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.readiness import (
    PortTakenError,
    missing_package,
    on_free_ports,
    wait_until_ready,
)
from neuroca_backup.sandbox.server import Launch

_READY_SECONDS = 120
# Where Milvus notes its pid and its roles, whatever TMPDIR and MILVUS_RUN_DIR say.
_NOTES = (Path("/run/milvus"), Path("/tmp/milvus"))  # noqa: S108 - Milvus's own choice
_PACKAGE = "milvus==2.3.5"
_USER = "root"
_FIRST_PASSWORD = "Milvus"  # noqa: S105 - the product's public default, replaced at once
_PORT_KEYS = (
    *("proxy_port", "proxy_internal_port", "etcd_port", "root_coord_port", "query_coord_port"),
    *("query_node_port", "index_coord_port", "index_node_port", "data_coord_port"),
    "data_node_port",
)
# https://etcd.io/docs/v3.5/op-guide/configuration/
_ETCD = """\
name: default
data-dir: {folder}/data/etcd.data
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""


@dataclass(frozen=True, slots=True)
class MilvusServer:
    """Milvus with a password and free ports, so that several may run beside each other."""

    kind: str = "milvus"
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 3
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Start Milvus, wait for its health, and replace its first password."""
        programs = _programs()
        return on_free_ports(len(_PORT_KEYS) + 2, partial(self._run, launch, programs))

    def _run(self, launch: Launch, programs: Path, ports: Sequence[int]) -> Endpoint:
        proxy, health = ports[0], ports[-1]
        folder = launch.folder / "server"
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that lost its port
        folder.mkdir(mode=0o700)
        _configure(folder, ports)
        process = launch.spawn(
            [programs / "milvus", "run", "standalone"],
            env={
                "HOME": str(folder),
                "DEPLOY_MODE": "STANDALONE",
                "METRICS_PORT": str(health),
                "MILVUS_RUN_DIR": str(folder / "run"),
                "MILVUSCONF": str(folder / "configs"),
                "LD_LIBRARY_PATH": str(programs),
            },
        )
        wait_until_ready(
            lambda: process.listens_on(proxy) and process.listens_on(health) and _healthy(health),
            process=process,
            what="Milvus",
            log=launch.log,
            seconds=_READY_SECONDS,
        )
        # At least one of each class that Milvus may ask a password for, at most 72 characters.
        password = f"Aa1_{secrets.token_hex(12)}"
        _replace_password(proxy, password)
        for notes in _NOTES:
            _remove_notes(notes, process.pid)
        # Milvus reads what a restore puts there by itself, many times as fast as it takes rows.
        imports = folder / "data" / "import"
        imports.mkdir(mode=0o700, parents=True)
        return Endpoint(
            kind="milvus",
            host="127.0.0.1",
            port=proxy,
            user=_USER,
            password=password,
            extra={"bulk_import_path": str(imports)},
        )


def _remove_notes(folder: Path, pid: int) -> None:
    """Remove what the Milvus of `pid` noted for tools of its own, once it has started."""
    (folder / f"server_id_{pid}").unlink(missing_ok=True)
    with suppress(OSError, ValueError):  # no such file, or another user's: then it is not ours
        noted = folder / "standalone.pid"
        if int(noted.read_text()) == pid:
            noted.unlink()
    with suppress(OSError):  # none there, or another Milvus has a note in it
        folder.rmdir()


def _configure(folder: Path, ports: Sequence[int]) -> None:
    """Write Milvus's configuration; the last two ports are etcd's peer and Milvus's health."""
    from milvus import MilvusServerConfig  # noqa: PLC0415 - importing the sandbox must stay cheap

    named = dict(zip(_PORT_KEYS, ports, strict=False))
    config: Any = MilvusServerConfig(  # type: ignore[no-untyped-call]  # no types
        data_dir=str(folder), **named
    )
    config.set("authorization_enabled", True)
    try:
        config.resolve()
    except RuntimeError as error:  # the wheel's word for a port that is taken
        config.cleanup_listen_ports()
        raise PortTakenError(
            f"Milvus cannot have its ports: {error}", remedy="Start the sandbox again."
        ) from error
    etcd = folder / "configs" / "etcd.yaml"
    etcd.write_text(_ETCD.format(folder=folder, client=named["etcd_port"], peer=ports[-2]))
    settings = folder / "configs" / "milvus.yaml"
    text = settings.read_text()
    # Without this key Milvus's etcd takes port 2380 whatever else it is told.
    settings.write_text(
        text.replace(
            "\netcd:\n  endpoints: localhost:",
            f"\netcd:\n  config:\n    path: {etcd}\n  endpoints: 127.0.0.1:",
            1,
        )
    )


def _healthy(port: int) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return b"OK" in answer.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _replace_password(port: int, password: str) -> None:
    # Takes seconds to import; and its stubs are not valid Python, which stops the type checker.
    pymilvus: Any = import_module("pymilvus")
    try:
        client = pymilvus.MilvusClient(
            uri=f"http://127.0.0.1:{port}", user=_USER, password=_FIRST_PASSWORD, timeout=30
        )
        client.update_password(_USER, _FIRST_PASSWORD, password)
        client.close()
    except pymilvus.MilvusException as error:
        raise UnreachableError(
            f"Milvus did not take its password: {error.message}",
            remedy="Start the sandbox again; the server's log says more.",
        ) from error


def _programs() -> Path:
    """Return the folder of Milvus's program and libraries, unpacked once into the user's cache."""
    try:
        import milvus  # noqa: PLC0415 - an optional package
    except ImportError:
        raise missing_package("Milvus", _PACKAGE) from None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuroca-backup"
    target = cache / f"milvus-{milvus.__version__}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fresh:
            milvus._initialize_data_files(fresh)  # noqa: SLF001 - has no public name
            try:
                Path(fresh, "bin").rename(target)
            except OSError:
                if not target.exists():  # else another process was quicker, with the same files
                    raise
    return target
