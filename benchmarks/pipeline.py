"""How fast are our pipelines beside the runbook's own commands, on the same database?

    python benchmarks/pipeline.py --scale 1

starts a PostgreSQL of its own, seeds it with NCA-shaped content (scale 1 is 200,000 memories), and
measures in one run, with the same disk under all of them: `pg_dump -F custom`, `gzip` and a copy
(the runbook), our `staged` and our `streamed` pipeline into a directory. MB/s are of the database's
own size, so they compare; the ratio is to the runbook.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
from stand import back_up

from neuroca_backup import postgres_tools as tools
from neuroca_backup import sandbox
from neuroca_backup.commands import minimal_env
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox import seed_postgres

DATABASE = "neuroca"


def runbook(endpoint: Endpoint, root: Path) -> int:
    """Do as the runbook says; return the bytes of the copy."""
    env = minimal_env(tools.environment(endpoint))
    plain, bucket = root / "neuroca.dump", root / "bucket"
    bucket.mkdir()
    dump = [tools.find("pg_dump"), "-d", DATABASE, "-F", "custom", "-f", plain]
    subprocess.run([str(word) for word in dump], env=env, check=True)
    gzip = shutil.which("gzip") or "gzip"
    subprocess.run([gzip, str(plain)], check=True)
    copied = shutil.copy(f"{plain}.gz", bucket)
    return Path(copied).stat().st_size


def ours(endpoint: Endpoint, root: Path, *, mode: str, checksums: bool) -> int:
    """Make a backup in one store; return the bytes of its members there."""
    options = {"databases": [DATABASE], "checksums": checksums}
    return back_up(endpoint, root, engine="postgresql", mode=mode, options=options).stored_size


def main() -> None:
    """Seed, measure every way `--rounds` times in turn, print the best of each."""
    parser = argparse.ArgumentParser(description="Backups beside the runbook's own commands.")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is 200,000 memories")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    ways: Mapping[str, Callable[[Endpoint, Path], int]] = {
        "runbook": runbook,
        "staged": partial(ours, mode="staged", checksums=True),
        "streamed": partial(ours, mode="streamed", checksums=True),
        "streamed, no row checksums": partial(ours, mode="streamed", checksums=False),
    }
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        base.chmod(0o711)  # as root, PostgreSQL's account has to pass through
        with sandbox.running("postgres", base / "sandbox") as server:
            seed_postgres.seed(server, scale=given.scale)
            endpoint = replace(server, database=DATABASE)
            megabytes = _size(endpoint) / 1e6
            best: dict[str, tuple[float, int]] = {}
            for number in range(given.rounds):
                for way, work in ways.items():
                    root = base / f"{number}-{len(way)}-{way.split(',')[0]}"
                    root.mkdir(mode=0o700)
                    begun = time.monotonic()
                    stored = work(endpoint, root)
                    seconds = time.monotonic() - begun
                    shutil.rmtree(root)
                    if way not in best or seconds < best[way][0]:
                        best[way] = (seconds, stored)
    print(f"{DATABASE}: {megabytes:,.0f} MB, best of {given.rounds}")
    for way, (seconds, stored) in best.items():
        print(
            f"{way:28} {seconds:7.1f} s {megabytes / seconds:7.1f} MB/s"
            f" {best['runbook'][0] / seconds:6.2f} x runbook {stored / 1e6:8.1f} MB stored"
        )


def _size(endpoint: Endpoint) -> int:
    with psycopg.connect(
        host=endpoint.host,
        port=endpoint.port,
        user=endpoint.user,
        password=endpoint.password,
        dbname=endpoint.database,
    ) as opened:
        ((size,),) = opened.execute("SELECT pg_database_size(current_database())").fetchall()
        return int(size)


if __name__ == "__main__":
    main()
