"""How fast is Milvus dumped and restored, beside a bare loop of queries in the same run?

    python benchmarks/milvus_store.py 30000 100000

starts a Milvus of its own, and for each number of rows (768 dimensions, text, JSON) fills a
collection and prints one JSON object a line: seconds of a bare query loop, of a dump, a check, a
load by the server's own import and one by batches, each without and with its index; and the peak
of memory (VmHWM) of the process that dumped.
"""

# ruff: noqa: INP001, T201 - a script, which prints its result

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from neuroca_backup import sandbox
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.milvus import ENGINE
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import Component, set_id
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder

DIMENSION = 768
BATCH = 2000


@dataclass
class Timed:
    """Seconds by what they were spent for."""

    seconds: dict[str, float]

    def run(self, what: str, work: Callable[[], Any]) -> Any:
        """Return what `work` returns, and note how long it took."""
        begun = time.monotonic()
        result = work()
        self.seconds[what] = round(time.monotonic() - begun, 2)
        return result


def client(endpoint: Endpoint) -> Any:
    """Return a session with Milvus."""
    return import_module("pymilvus").MilvusClient(
        uri=f"http://{endpoint.host}:{endpoint.port}",
        user=endpoint.user,
        password=endpoint.password,
        db_name=endpoint.database,
    )


def fill(endpoint: Endpoint, rows: int) -> None:
    """Create a collection of `rows` rows with an HNSW index, loaded."""
    kinds: Any = import_module("pymilvus").DataType
    opened = client(replace(endpoint, database="default"))
    opened.create_database(endpoint.database)
    opened = client(endpoint)
    schema = opened.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", kinds.INT64, is_primary=True)
    schema.add_field("content", kinds.VARCHAR, max_length=200)
    schema.add_field("metadata", kinds.JSON)
    schema.add_field("embedding", kinds.FLOAT_VECTOR, dim=DIMENSION)
    opened.create_collection("memories", schema=schema)
    for first in range(0, rows, BATCH):
        vectors = np.random.default_rng(first).random((BATCH, DIMENSION), dtype=np.float32)
        opened.insert(
            "memories",
            [
                {
                    "id": first + n,
                    "content": f"memory {first + n}",
                    "metadata": {"topic": n % 17},
                    "embedding": vectors[n],
                }
                for n in range(min(BATCH, rows - first))
            ],
        )
    opened.flush("memories")
    index = opened.prepare_index_params()
    index.add_index(
        "embedding", "HNSW", "near", metric_type="COSINE", params={"M": 16, "efConstruction": 100}
    )
    opened.create_index("memories", index)
    opened.load_collection("memories")


def bare_loop(endpoint: Endpoint) -> int:
    """Read every row by keyset and do nothing with it; return how many there were."""
    opened, last, rows = client(endpoint), -1, 0
    while True:
        found = list(
            opened.query(
                "memories",
                filter=f"id > {last}",
                output_fields=["*"],
                limit=2700,
                consistency_level="Strong",
            )
        )
        if not found:
            return rows
        rows, last = rows + len(found), found[-1]["id"]


def dump(endpoint: Endpoint, root: Path) -> Restorable:
    """Dump into a folder and return it as a restore gets it."""
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    sink, begun = SpoolSink(folder, Progress("dump")), datetime.now(UTC)
    found = ENGINE.dump(endpoint, sink, ENGINE.options({}))
    of = set_id(at=begun, run=str(root))
    manifest = Manifest(
        backup_id=f"{of}-vector",
        set_id=of,
        component=Component.DATABASE,
        source="vector",
        engine="milvus",
        attempt="a1b2c3d4",
        stages=(),
        dump=found,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
        ),
        started_at=begun,
        finished_at=datetime.now(UTC),
        product="benchmark",
    )
    return Restorable(chain=(manifest,), folders=(folder.files,), work=root / "work")


def measure(endpoint: Endpoint, rows: int, root: Path) -> dict[str, Any]:
    """Return what one size took."""
    timed = Timed({})
    source = replace(endpoint, database=f"rows_{rows}")
    timed.run("filled", lambda: fill(source, rows))
    assert timed.run("bare loop", lambda: bare_loop(source)) == rows  # noqa: S101 - or nothing counts
    # Of a process of its own: this one has filled the server.
    words = [sys.executable, __file__, "--dump", str(root), source.database]
    timed.seconds |= json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
    backup = dump(source, root / "again")
    files = backup.folders[0]
    manifest = backup.last
    timed.run("check", lambda: ENGINE.check(manifest, lambda name: (files / name).open("rb")))
    notes = []
    for how, extra in (("import", endpoint.extra), ("batches", {})):
        target = RestoreTarget(replace(endpoint, database=f"{how}_{rows}", extra=extra))
        notes += timed.run(f"load by {how}", lambda to=target: ENGINE.load(backup, to))
        found = timed.run(f"compare {how}", lambda to=target: ENGINE.compare(backup, to))
        assert not found, found  # noqa: S101 - or nothing counts
        client(target.endpoint).drop_collection(client(target.endpoint).list_collections()[0])
    return {"rows": rows, "MB": round(manifest.plain_size / 1e6), **timed.seconds, "notes": notes}


def main() -> None:
    """Start a server, measure every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int)
    parser.add_argument("--dump", nargs=2)
    given = parser.parse_args()
    if given.dump:
        root, database = Path(given.dump[0]), given.dump[1]
        timed = Timed({})
        endpoint = replace(sandbox.endpoints(root / "sandbox")["milvus"], database=database)
        timed.run("dump", lambda: dump(endpoint, root / "dump"))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps(timed.seconds | {"dump peak MB": round(peak)}))
        return
    for rows in given.rows or [30_000]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            with sandbox.running("milvus", root / "sandbox") as endpoint:
                print(json.dumps(measure(endpoint, rows, root)), flush=True)


if __name__ == "__main__":
    main()
