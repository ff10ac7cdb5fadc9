"""How fast is a physical backup beside a bare `pg_basebackup` that throws everything away?

    python benchmarks/postgresql_physical.py --scale 1

starts a PostgreSQL of its own, seeds it with NCA-shaped content (scale 1 is 200,000 memories), and
measures in one run: `pg_basebackup` to /dev/null, the engine alone into a sink that throws its
bytes away, and the `streamed` pipeline (compressed, sealed, written to a directory). Rows are not
counted. MB/s are of what the engine gave. The last line is the most memory this process ever had.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from neuroca_backup import postgres_tools as tools
from neuroca_backup import sandbox
from neuroca_backup.commands import minimal_env
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines.postgresql_physical import ENGINE
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.sandbox import seed_postgres
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.streams import DigestWriter

OPTIONS = {"point_in_time": False, "checksums": False}


class Nowhere:
    """A sink that digests its members, as every sink does, and keeps nothing."""

    def __init__(self) -> None:
        self.size = 0

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:  # noqa: ARG002 - the protocol
        """Take a member and throw it away."""
        with Path(os.devnull).open("wb") as file:
            writer = DigestWriter(file)
            yield writer
        self.size += writer.digest.size

    def tree(self, name: str) -> None:  # noqa: ARG002 - the protocol
        """Return None: there is no disk."""
        return


def bare(endpoint: Endpoint, root: Path) -> int:  # noqa: ARG001 - as the others
    """Run `pg_basebackup` as the engine does; nothing is stored."""
    argv = [tools.find("pg_basebackup"), "-D", "-", "-Ft", "-X", "fetch", "--checkpoint=fast"]
    argv += ["--manifest-checksums=SHA256"]
    env = minimal_env(tools.environment(endpoint))
    subprocess.run([str(w) for w in argv], env=env, check=True, stdout=subprocess.DEVNULL)
    return 0


def engine(endpoint: Endpoint, root: Path) -> int:  # noqa: ARG001 - as the others
    """Run the engine alone; nothing is stored."""
    ENGINE.dump(endpoint, Nowhere(), ENGINE.options(OPTIONS))
    return 0


def streamed(endpoint: Endpoint, root: Path) -> int:
    """Make a backup in one store; return the bytes of its members there."""
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
                    "engine": ENGINE.kind,
                    "connection": "source",
                    "options": OPTIONS,
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
    return runtime.backups.stream(ref).size


def main() -> None:
    """Seed, measure every way `--rounds` times in turn, print the best of each."""
    parser = argparse.ArgumentParser(description="Physical backups beside pg_basebackup alone.")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 200,000 memories")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    ways: Mapping[str, Callable[[Endpoint, Path], int]] = {
        "pg_basebackup to /dev/null": bare,
        "engine alone": engine,
        "streamed": streamed,
    }
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o711)  # as root, PostgreSQL's account has to pass through
        with sandbox.running("postgres", base / "sandbox") as server:
            seed_postgres.seed(server, scale=given.scale)
            size = Nowhere()
            ENGINE.dump(server, size, ENGINE.options(OPTIONS))
            best: dict[str, tuple[float, int]] = {}
            for number in range(given.rounds):
                for way, work in ways.items():
                    root = base / f"{number}-{work.__name__}"
                    root.mkdir(mode=0o700)
                    begun = time.monotonic()
                    stored = work(server, root)
                    seconds = time.monotonic() - begun
                    shutil.rmtree(root)
                    if way not in best or seconds < best[way][0]:
                        best[way] = (seconds, stored)
    megabytes = size.size / 1e6
    limit = best["pg_basebackup to /dev/null"][0]
    print(f"cluster: {megabytes:,.0f} MB, best of {given.rounds}")
    for way, (seconds, stored) in best.items():
        print(
            f"{way:28} {seconds:7.1f} s {megabytes / seconds:7.1f} MB/s"
            f" {limit / seconds:6.2f} x bare {stored / 1e6:8.1f} MB stored"
        )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"most memory of this process: {most:,.0f} MiB")


if __name__ == "__main__":
    main()
