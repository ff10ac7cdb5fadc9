"""Parquet parts: the files that hold a collection's rows.

A part holds at most about 64 MB, so that a check can hold a whole one in memory: Parquet is read
from its end, and a stream that goes forward only would otherwise need a file in clear. Nothing is
compressed here (vectors hardly are compressible, and zstd follows as a stage); every page has a
checksum of its own. Only Parquet's own types are written, vectors as lists: Milvus imports such
files as they are.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from neuroca_backup.errors import DamagedError
from neuroca_backup.streams import CHUNK_BYTES, Unclosed
from neuroca_backup.vectors.model import Collection, Name

PART_BYTES = 64 * 1024 * 1024
BATCH_BYTES = 8 * 1024 * 1024  # of a row group, and of what is in flight from a server
# A part may be larger than PART_BYTES by one batch and by what Parquet adds.
_LARGEST_PART = 2 * PART_BYTES
SCHEMA = "schema.json"


class Sink(Protocol):
    """What of an engine's sink is needed here."""

    def member(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a member for writing."""
        ...


def folder_of(at: Name) -> str:
    """Return where the members of a collection lie."""
    database = quote(at.database, safe="") or "_"
    # A dot alone, or two, would be another folder.
    return f"collections/{database}/{quote(at.collection, safe='').replace('.', '%2E')}"


def partition_folder(at: Name, collection: Collection, partition: str) -> str:
    """Return where the parts of one partition lie; numbered, as names may be long or strange."""
    if collection.partitions == ("",):
        return folder_of(at)
    return f"{folder_of(at)}/{collection.partitions.index(partition):05d}"


def part_names(names: Iterable[str], folder: str) -> list[str]:
    """Return which of `names` are the parts directly below `folder`, in order."""
    return sorted(
        name
        for name in names
        if name.startswith(f"{folder}/part-") and "/" not in name[len(folder) + 1 :]
    )


def write(sink: Sink, folder: str, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    """Write batches as parts below `folder`; return the number of rows."""
    rows = number = 0
    batch = next(batches, None)
    while batch is not None:
        name = f"{folder}/part-{number:05d}.parquet"
        with sink.member(name) as out, writer(out, schema) as part:
            size = 0
            while batch is not None and (not size or size + batch.nbytes <= PART_BYTES):
                part.write_batch(batch)
                size += batch.nbytes
                rows += batch.num_rows
                batch = next(batches, None)
        number += 1
    return rows


def writer(out: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a writer of one part, a context manager; `out` stays open."""
    return pq.ParquetWriter(
        Unclosed(out),
        schema,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    )


def read_stream(stream: BinaryIO, name: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a part that is read from a forward-only stream, held in memory.

    Raises:
        DamagedError: It is no part of such rows.
    """
    buffer = io.BytesIO()
    while data := stream.read(CHUNK_BYTES):
        buffer.write(data)
        if buffer.tell() > _LARGEST_PART:
            raise damaged(name, f"is larger than any part, {_LARGEST_PART} bytes")
    buffer.seek(0)
    yield from _read(buffer, name, schema)


def read_file(path: Path, name: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a part on disk; raises as `read_stream` does."""
    with path.open("rb") as file:
        yield from _read(file, name, schema)


def _read(source: Any, name: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as part:
            if part.schema_arrow.names != schema.names:
                raise damaged(name, "does not hold the fields of its collection")
            seen = 0
            for group in range(part.num_row_groups):
                for batch in part.read_row_group(group).to_batches():
                    seen += batch.num_rows
                    yield batch.cast(schema)
            if seen != part.metadata.num_rows:
                raise damaged(name, f"holds {seen} rows, it says {part.metadata.num_rows}")
    except (pa.ArrowException, OSError) as error:
        raise damaged(name, f"is not a Parquet file ({_first_line(error)})") from None


def damaged(name: str, what: str) -> DamagedError:
    """Return the error for a member that is not what it should be."""
    return DamagedError(
        f"{name} {what}",
        remedy="Restore from another store or an older backup; then look why it was made so.",
        key=name,
    )


def paths(files: Path, names: Sequence[str]) -> list[Path]:
    """Return where members lie below `files`."""
    return [files.joinpath(*name.split("/")) for name in names]


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
