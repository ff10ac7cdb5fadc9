"""What the benchmarks share: backups into directories, each measured in a process of its own."""

# ruff: noqa: INP001 - scripts, not a package

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from neuroca_backup.connections import FileConnections
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore

SOURCE = "source"


def back_up(
    endpoint: Endpoint, root: Path, *, engine: str, mode: str, options: Mapping[str, Any]
) -> Manifest:
    """Back `endpoint` up into a directory below `root`; return the manifest that was written."""
    for name in ("primary", "secondary"):
        LocalStore(name, root / name).initialise()
    LocalKeyFile.generate(root / "local.key")
    settings = Settings.model_validate(
        {
            "schedule": {},
            "storage": {
                name: {"type": "local", "path": str(root / name)}
                for name in ("primary", "secondary")
            },
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": str(root / "local.key")},
            "pipeline": {"mode": mode, "spool": str(root / "spool")},
            "sources": {
                SOURCE: {
                    "component": "database",
                    "engine": engine,
                    "connection": "source",
                    "options": dict(options),
                }
            },
        }
    )
    connection = {
        "conn_type": endpoint.kind,
        "host": endpoint.host,
        "port": endpoint.port,
        "login": endpoint.user,
        "password": endpoint.password,
        "schema": endpoint.database,
        "extra": dict(endpoint.extra),
    }
    environ = {"AIRFLOW_CONN_SOURCE": json.dumps(connection)}
    runtime = Runtime.build(settings, FileConnections(environ=environ))
    backups = runtime.backups
    ref = runtime.ref(set_id(at=datetime.now(UTC), run=str(root)), SOURCE)
    if mode == "streamed":
        backups.stream(ref)
    else:
        backups.upload(backups.encrypt(backups.compress(backups.dump(ref))))
    return read_manifest(runtime.stores["primary"], ref).manifest


def measured(
    endpoint: Endpoint, root: Path, *, engine: str, mode: str, options: Mapping[str, Any]
) -> dict[str, float]:
    """Make that backup in a process of its own.

    Returns `seconds`, `plain` and `stored` in bytes, and `peak_mb`, the kernel's VmHWM of that
    process.
    """
    task = {
        "endpoint": {**asdict(endpoint), "extra": dict(endpoint.extra)},
        "root": str(root),
        "words": {"engine": engine, "mode": mode, "options": dict(options)},
    }
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _main() -> None:
    task = json.load(sys.stdin)
    begun = time.monotonic()
    manifest = back_up(Endpoint(**task["endpoint"]), Path(task["root"]), **task["words"])
    seconds = time.monotonic() - begun
    (spoken,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    # ru_maxrss would begin with the peak of the process that started this one.
    peak = int(spoken.split()[1]) / 1024
    found = {
        "seconds": round(seconds, 2),
        "plain": manifest.plain_size,
        "stored": manifest.stored_size,
        "peak_mb": round(peak, 1),
    }
    print(json.dumps(found))  # noqa: T201 - read by `measured`


if __name__ == "__main__":
    _main()
