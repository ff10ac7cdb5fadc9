"""Ways to damage the dump of a vector store that re-sealing would hide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq


def structural_damage(files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield them, each with the member it hits; see `support.engines.Adapter`."""
    for path in sorted(files.rglob("*")):
        if path.is_dir():
            continue
        name, data = path.relative_to(files).as_posix(), path.read_bytes()
        yield name, path.unlink
        yield name, lambda path=path: _write(path, b"")
        yield name, lambda path=path, data=data: _write(path, data[: len(data) // 2])
        if path.suffix == ".json":
            described = json.loads(data)
            described["fields"] = described["fields"][:-1]
            yield name, lambda path=path, one=described: _write(path, json.dumps(one).encode())
        elif pq.read_metadata(path).num_rows:
            # Still a sound Parquet file, but not with the rows that were exported.
            yield name, lambda path=path: pq.write_table(pq.read_table(path).slice(1), path)
            yield name, lambda path=path: pq.write_table(pq.read_table(path).remove_column(0), path)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
