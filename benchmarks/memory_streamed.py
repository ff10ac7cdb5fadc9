"""How much memory does a streamed backup take, for one size of database and for another?

    python benchmarks/memory_streamed.py 256 4096

starts a PostgreSQL of its own, and for each size (in MB of dump) fills a table with bytes that no
compression makes smaller by more than half, streams it into a directory in a process of its own,
and prints one JSON object a line: megabytes, seconds, plain and stored bytes, peak_mb (the
kernel's VmHWM).
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import psycopg
from stand import measured

from neuroca_backup import sandbox
from neuroca_backup.model.endpoint import Endpoint

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
                found = measured(
                    filled,
                    place,
                    engine="postgresql",
                    mode="streamed",
                    options={"databases": [filled.database], "checksums": False},
                )
                print(json.dumps({"megabytes": megabytes, **found}), flush=True)
                with _session(server) as opened:
                    opened.execute(f"DROP DATABASE memory_{number}")


if __name__ == "__main__":
    main()
