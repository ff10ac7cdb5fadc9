"""Dumping any vector store: every collection's schema, then its rows as Parquet parts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import EmptySourceError, InterruptedToolError, NotFoundError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.vectors import columns, parts
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.evidence import Evidence
from neuroca_backup.vectors.model import Collection, Name
from neuroca_backup.vectors.naming import STAGING

if TYPE_CHECKING:
    import pyarrow as pa

    from neuroca_backup.vectors.engine import Options

log = logging.getLogger(__name__)


def dump(database: VectorDatabase, endpoint: Endpoint, sink: parts.Sink, options: Options) -> Dump:
    """Dump the chosen collections to `sink`.

    Raises:
        NotFoundError: A listed collection does not exist, or one was dropped meanwhile.
        EmptySourceError: There is no collection, or none of them holds a row.
        InterruptedToolError: Fewer or more rows came than the store counts.
    """
    begun = datetime.now(UTC)
    chosen = choose(database, endpoint, options.collections)
    notes: list[str] = []
    found = {at.label: _collection(database, at, sink, notes) for at in chosen}
    empty = not any(one["count"] for one in found.values())
    if empty and not options.allow_empty:
        raise EmptySourceError(
            f"The vector store at {endpoint.label} has no row in "
            f"{', '.join(found) or 'any collection: there is none'}",
            remedy="Look whether the source has lost its data. If it is new and still empty, set "
            "`allow_empty: true` in the source's options until it is not.",
            server=endpoint.label,
            collections=list(found),
        )
    return Dump(
        server_version=database.version(),
        tools=dict(database.tools()),
        consistency={"time": begun.isoformat()},
        facts={"collections": found},
        empty=empty,
        notes=tuple(notes),
    )


def choose(database: VectorDatabase, endpoint: Endpoint, wanted: str | Sequence[str]) -> list[Name]:
    """Return the collections to be dumped; what an interrupted restore left is nobody's data."""
    present = [at for at in database.collections() if not STAGING.fullmatch(at.collection)]
    if isinstance(wanted, str):
        return present
    missing = sorted(
        one for one in wanted if not any(one in (at.label, at.collection) for at in present)
    )
    if missing or not wanted:
        raise NotFoundError(
            f"The vector store at {endpoint.label} has no collection "
            f"{', '.join(missing) or '(none named)'}; it has "
            f"{', '.join(at.label for at in present) or 'none'}",
            remedy="Correct the source's `collections` option in backup.yaml.",
            server=endpoint.label,
            collections=missing,
        )
    return [at for at in present if at.label in wanted or at.collection in wanted]


def _collection(
    database: VectorDatabase, at: Name, sink: parts.Sink, notes: list[str]
) -> dict[str, Any]:
    collection = database.describe(at)
    with sink.member(f"{parts.folder_of(at)}/{parts.SCHEMA}") as out:
        described = collection.model_dump(mode="json")
        out.write(json.dumps(described, indent=2, sort_keys=True).encode() + b"\n")
    with database.reading(at):
        before = _counts(database, at, collection)
        evidence = Evidence(collection, probed=max(before, key=lambda name: before[name]))
        exported = {
            partition: parts.write(
                sink,
                parts.partition_folder(at, collection, partition),
                columns.schema_of(collection),
                _seen(database, at, collection, partition, evidence),
            )
            for partition in collection.partitions
        }
        after = _counts(database, at, collection)
    for partition, rows in exported.items():
        bounds = sorted((before[partition], after[partition]))
        if not bounds[0] <= rows <= bounds[1]:
            raise _short(at, partition, rows, _Bounds(*bounds))
    if before != after:
        notes.append(
            f"{at.label} was written to meanwhile ({sum(before.values()):,} rows before, "
            f"{sum(after.values()):,} after): {sum(exported.values()):,} rows were taken, those "
            "written during the dump may be missing."
        )
    log.info("%s: %d rows exported", at.label, sum(exported.values()))
    return {
        "schema": described,
        "fingerprint": collection.fingerprint,
        "count": sum(exported.values()),
        "counted": {"before": sum(before.values()), "after": sum(after.values())},
        "partitions": exported,
        "vectors": {
            field.name: {"dimension": field.dimension, "metric": collection.metric(field.name)}
            for field in collection.vectors
        },
        **evidence.facts(),
    }


def _counts(database: VectorDatabase, at: Name, collection: Collection) -> Mapping[str, int]:
    return {one: database.count(at, partition=one) for one in collection.partitions}


def _seen(
    database: VectorDatabase, at: Name, collection: Collection, partition: str, evidence: Evidence
) -> Iterator[pa.RecordBatch]:
    batches = database.export(at, collection, partition=partition, batch_bytes=parts.BATCH_BYTES)
    for batch in batches:
        if batch.num_rows:
            evidence.see(batch, partition)
            yield batch


@dataclass(frozen=True, slots=True)
class _Bounds:
    least: int
    most: int


def _short(at: Name, partition: str, rows: int, counted: _Bounds) -> InterruptedToolError:
    where = f"{at.label}, partition {partition}" if partition else at.label
    bounds = " to ".join(map(str, dict.fromkeys((counted.least, counted.most))))
    return InterruptedToolError(
        f"{rows} rows of {where} were exported, the store itself counts {bounds}",
        remedy="It is tried again. If it stays so, look for rows that share a primary key, and "
        "for a node of the store that does not answer.",
        collection=at.label,
        exported=rows,
        counted=[counted.least, counted.most],
    )
