"""How fast a backup of Redis is, from the server to sealed objects, beside redis-cli alone.

    python benchmarks/redis_pipeline.py --keys 1000000 --rounds 2

Only the ratios within one run mean something; they are what docs/reference/benchmarks.md records.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis

from neuroca_backup import sandbox
from neuroca_backup.commands import minimal_env
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines.redis_rdb import rdb, tools
from neuroca_backup.engines.redis_rdb.reader import Reader
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.settings import Settings
from neuroca_backup.stores.local import LocalStore

_BATCH = 2000


def fill(endpoint: Endpoint, keys: int) -> int:
    """Write NCA-shaped keys, two of three with an expiry; return the memory they take in bytes."""
    with _client(endpoint) as client:
        client.flushall()
        writing = client.pipeline(transaction=False)
        for n in range(keys // 2):
            item = f"memory:stm:{n:032x}"
            writing.hset(item, mapping={"id": n, "content": f"{n:08x} " * 30, "importance": n / 7})
            writing.set(f"memory:stm:metadata:{n:032x}", json.dumps({"n": n, "tags": ["a"] * 9}))
            if n % 3:
                writing.expire(item, 10**7 + n)
            if len(writing) >= _BATCH:
                writing.execute()
        writing.execute()
        info: Any = client.info("memory")
        return int(info["used_memory"])


def alone(endpoint: Endpoint, root: Path) -> int:
    """Let redis-cli fetch a snapshot and throw it away."""
    argv = [str(word) for word in (*tools.cli(endpoint), "--rdb", "-")]
    env = minimal_env(tools.environment(endpoint))
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return len(list(root.iterdir()))


def walked(endpoint: Endpoint, root: Path) -> int:
    """Let redis-cli fetch a snapshot into a file, then walk through that."""
    path = root / "dump.rdb"
    argv = [str(word) for word in (*tools.cli(endpoint), "--rdb", path)]
    env = minimal_env(tools.environment(endpoint))
    subprocess.run(argv, env=env, check=True, stderr=subprocess.DEVNULL)
    with path.open("rb") as file:
        return rdb.walk(Reader(file.read), name=path.name).size


def ours(endpoint: Endpoint, root: Path, *, mode: str) -> int:
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
            "pipeline": {"mode": mode, "spool": str(root / "spool")},
            "sources": {
                "redis": {"component": "database", "engine": "redis_rdb", "connection": "source"}
            },
        }
    )
    connection = {
        "conn_type": "redis",
        "host": endpoint.host,
        "port": endpoint.port,
        "password": endpoint.password,
    }
    environ = {"AIRFLOW_CONN_SOURCE": json.dumps(connection)}
    runtime = Runtime.build(settings, FileConnections(environ=environ))
    backups = runtime.backups
    ref = runtime.ref(set_id(at=datetime.now(UTC), run=str(root)), "redis")
    if mode == "streamed":
        return backups.stream(ref).size
    return backups.upload(backups.encrypt(backups.compress(backups.dump(ref)))).size


def measured(
    work: Callable[[Endpoint, Path], int], endpoint: Endpoint, root: Path
) -> tuple[float, int, float]:
    """Do `work` in a process of its own; return seconds, bytes and its greatest memory in MB."""
    context = multiprocessing.get_context("fork")
    results: Any = context.SimpleQueue()

    def run() -> None:
        begun = time.monotonic()
        size = work(endpoint, root)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        results.put((time.monotonic() - begun, size, peak))

    process = context.Process(target=run)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"A measurement ended with {process.exitcode}")
    found: tuple[float, int, float] = results.get()
    return found


def _client(endpoint: Endpoint) -> redis.Redis:
    return redis.Redis(
        host=endpoint.host, port=endpoint.port or 6379, password=endpoint.password, protocol=2
    )


def main() -> None:
    """Fill, measure every way `--rounds` times in turn, print the best of each."""
    parser = argparse.ArgumentParser(description="Backups of Redis beside redis-cli alone.")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    ways: Mapping[str, Callable[[Endpoint, Path], int]] = {
        "redis-cli alone": alone,
        "redis-cli, then the walk": walked,
        "staged": lambda one, root: ours(one, root, mode="staged"),
        "streamed": lambda one, root: ours(one, root, mode="streamed"),
    }
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        with sandbox.running("redis", base / "sandbox") as server:
            megabytes = fill(server, given.keys) / 1e6
            best: dict[str, tuple[float, int, float]] = {}
            for number in range(given.rounds):
                for place, (way, work) in enumerate(ways.items()):
                    root = base / f"{number}-{place}"
                    root.mkdir(mode=0o700)
                    found = measured(work, server, root)
                    shutil.rmtree(root)
                    best[way] = min(best.get(way, found), found)
    print(f"{given.keys:,} keys, {megabytes:,.0f} MB of memory, best of {given.rounds}")
    for way, (seconds, stored, peak) in best.items():
        print(
            f"{way:26} {seconds:6.1f} s {megabytes / seconds:7.1f} MB/s"
            f" {best['redis-cli alone'][0] / seconds:6.2f} x alone {stored / 1e6:8.1f} MB"
            f" {peak:6.0f} MB peak"
        )


if __name__ == "__main__":
    main()
