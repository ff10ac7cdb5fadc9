"""How fast is each engine, dump to uploaded object, beside the bare tool that only reads?

    python benchmarks/engines.py --scales 1 4 --rounds 2 redis_rdb mongodb

starts a server for each engine, fills it with NCA-shaped content, once for each scale, and measures
in one run: the bare tool reading everything into /dev/null, our `staged` and our `streamed`
pipeline into a directory, each backup in a process of its own. Prints seconds, MB/s of what the
engine gave, the ratio to the bare tool, and the peak memory (the kernel's VmHWM), which should not
grow with the scale.
"""

# ruff: noqa: INP001, T201, PLC0415 - a script, which prints, and imports only the clients it uses

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stand import measured

from neuroca_backup import sandbox
from neuroca_backup.commands import minimal_env
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.seed import seed


def _to_nowhere(argv: list[str | Path], env: Mapping[str, str]) -> None:
    subprocess.run(
        [str(word) for word in argv],
        env=minimal_env(env),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def pg_dump(endpoint: Endpoint) -> None:
    """Dump the seeded databases one after the other."""
    from neuroca_backup import postgres_tools as tools

    for database in ("neuroca", "neuroca_memory"):
        argv = [tools.find("pg_dump"), "--format=custom", "--compress=none", f"--dbname={database}"]
        _to_nowhere(argv, tools.environment(endpoint))


def pg_basebackup(endpoint: Endpoint) -> None:
    """Copy the whole cluster."""
    from neuroca_backup import postgres_tools as tools

    argv = [tools.find("pg_basebackup"), "--pgdata=-", "--format=tar", "--wal-method=fetch"]
    _to_nowhere([*argv, "--checkpoint=fast"], tools.environment(endpoint))


def raw_batches(endpoint: Endpoint) -> None:
    """Read every collection in raw batches: no mongodump is in any package index."""
    import pymongo
    from pymongo.cursor_shared import CursorType

    with pymongo.MongoClient[dict[str, Any]](
        endpoint.host,
        endpoint.port,
        username=endpoint.user,
        password=endpoint.password,
        **endpoint.extra,
    ) as client:
        for database in set(client.list_database_names()) - {"admin", "config", "local"}:
            for one in client[database].list_collections(filter={"type": "collection"}):
                found = client[database][one["name"]]
                with found.find_raw_batches(cursor_type=CursorType.EXHAUST) as cursor:
                    for _ in cursor:
                        pass


def redis_cli(endpoint: Endpoint) -> None:
    """Let redis-cli fetch a snapshot."""
    from neuroca_backup.engines.redis_rdb import tools

    _to_nowhere([*tools.cli(endpoint), "--rdb", "-"], tools.environment(endpoint))


def query_iterator(endpoint: Endpoint) -> None:
    """Read every collection as Milvus's own client does it."""
    import pymilvus

    client = pymilvus.MilvusClient(
        uri=f"http://{endpoint.host}:{endpoint.port}",
        user=endpoint.user,
        password=endpoint.password,
    )
    try:
        for name in client.list_collections():
            reading = client.query_iterator(name, batch_size=4000, output_fields=["*"])
            while reading.next():
                pass
            reading.close()
    finally:
        client.close()


@dataclass(frozen=True)
class Way:
    """An engine, the sandbox server that it reads, and the bare tool beside it."""

    server: str
    bare: Callable[[Endpoint], None]
    options: Mapping[str, Any] = field(default_factory=dict)


WAYS: Mapping[str, Way] = {
    "postgresql": Way("postgres", pg_dump),
    "postgresql_physical": Way("postgres", pg_basebackup),
    "mongodb": Way("mongodb", raw_batches),
    "redis_rdb": Way("redis", redis_cli),
    "milvus": Way("milvus", query_iterator),
}


def main() -> None:
    """Measure the engines that were named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("engines", nargs="*", choices=[*WAYS, []], help="default: all")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0])
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for engine in given.engines or WAYS:
        for scale in given.scales:
            with tempfile.TemporaryDirectory() as folder:
                base = Path(folder)
                base.chmod(0o711)  # as root, PostgreSQL's account has to pass through
                way = WAYS[engine]
                with sandbox.running(way.server, base / "sandbox") as server:
                    seed({way.server: server}, scale=scale)
                    _measure(engine, way, server, base, scale=scale, rounds=given.rounds)


def _measure(
    engine: str, way: Way, server: Endpoint, base: Path, *, scale: float, rounds: int
) -> None:
    bare = float("inf")
    best: dict[str, dict[str, float]] = {}
    for number in range(rounds):
        begun = time.monotonic()
        way.bare(server)
        bare = min(bare, time.monotonic() - begun)
        for mode in ("staged", "streamed"):
            root = base / f"{mode}-{number}"
            root.mkdir(mode=0o700)
            found = measured(server, root, engine=engine, mode=mode, options=way.options)
            shutil.rmtree(root)
            if mode not in best or found["seconds"] < best[mode]["seconds"]:
                best[mode] = found
    megabytes = best["staged"]["plain"] / 1e6
    print(f"{engine}, scale {scale:g}: {megabytes:,.1f} MB, best of {rounds}")
    print(f"  bare tool {bare:8.2f} s {megabytes / bare:8.1f} MB/s")
    for mode, found in best.items():
        print(
            f"  {mode:9} {found['seconds']:8.2f} s {megabytes / found['seconds']:8.1f} MB/s "
            f"{bare / found['seconds']:6.2f} x bare {found['stored'] / 1e6:9.1f} MB stored "
            f"{found['peak_mb']:6.0f} MB peak",
            flush=True,
        )


if __name__ == "__main__":
    main()
