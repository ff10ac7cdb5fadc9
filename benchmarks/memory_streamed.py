"""How much memory does a streamed backup take, for one size of database and for another?

    python benchmarks/memory_streamed.py 256 4096

starts a PostgreSQL of its own, and for each size (in MB of dump) fills a table with bytes that no
compression makes smaller by more than half, streams it into a directory in a process of its own,
and prints one JSON object a line: megabytes, seconds, peak_mb (the kernel's VmHWM).
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from neuroca_backup import sandbox
from neuroca_backup.connections import FileConnections
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore

ROW_BYTES = 4096  # two characters of the dump stand for each


def fill(endpoint: Endpoint, database: str, megabytes: int) -> Endpoint:
    """Create `database` with a table that is dumped as `megabytes` MB; return its endpoint."""
    made = replace(endpoint, database=database)
    with _session(endpoint) as opened:
        opened.execute(f"CREATE DATABASE {database}")
    with _session(made) as opened:
        opened.execute("CREATE EXTENSION pgcrypto")
        opened.execute("CREATE UNLOGGED TABLE noise (payload bytea STORAGE EXTERNAL)")
        opened.execute(
            "INSERT INTO noise SELECT string_agg(gen_random_bytes(1024), '')"
            " FROM generate_series(1, %s) AS n GROUP BY n / 4",
            [megabytes * 1_000_000 // 2 // (ROW_BYTES // 4)],
        )
    return made


def stream(endpoint: Endpoint, root: Path) -> dict[str, float]:
    """Stream `endpoint`'s database into a directory below `root`; return what it took."""
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
            "pipeline": {"mode": "streamed", "spool": str(root / "spool")},
            "sources": {
                "postgres": {
                    "component": "database",
                    "engine": "postgresql",
                    "connection": "source",
                    "options": {"databases": [endpoint.database], "checksums": False},
                }
            },
        }
    )
    connection = {
        "conn_type": "postgres",
        "host": endpoint.host,
        "port": endpoint.port,
        "login": endpoint.user,
        "password": endpoint.password,
        "schema": endpoint.database,
        "extra": dict(endpoint.extra),
    }
    environ = {"AIRFLOW_CONN_SOURCE": json.dumps(connection)}
    runtime = Runtime.build(settings, FileConnections(environ=environ))
    ref = runtime.ref(set_id(at=datetime.now(UTC), run=str(root)), "postgres")
    begun = time.monotonic()
    runtime.backups.stream(ref)
    seconds = time.monotonic() - begun
    (spoken,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    # ru_maxrss would begin with the peak of the process that started this one.
    return {"seconds": round(seconds, 1), "peak_mb": round(int(spoken.split()[1]) / 1024, 1)}


def _session(endpoint: Endpoint) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=endpoint.database,
        autocommit=True,
    )


def main() -> None:
    """Measure every size given."""
    if sys.argv[1:] == ["--child"]:
        task = json.load(sys.stdin)
        print(json.dumps(stream(Endpoint(**task["endpoint"]), Path(task["root"]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("megabytes", type=int, nargs="+", help="size of the dump in MB")
    sizes: list[int] = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o711)  # as root, PostgreSQL's account has to pass through
        with sandbox.running("postgres", root / "sandbox") as server:
            for number, megabytes in enumerate(sizes):
                filled = fill(server, f"memory_{number}", megabytes)
                place = root / str(number)
                place.mkdir(mode=0o700)
                task = {
                    "endpoint": {**asdict(filled), "extra": dict(filled.extra)},
                    "root": str(place),
                }
                done = subprocess.run(
                    [sys.executable, __file__, "--child"],
                    input=json.dumps(task),
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if done.returncode:
                    sys.exit(done.stderr)
                print(json.dumps({"megabytes": megabytes, **json.loads(done.stdout)}), flush=True)
                with _session(server) as opened:
                    opened.execute(f"DROP DATABASE memory_{number}")


if __name__ == "__main__":
    main()
