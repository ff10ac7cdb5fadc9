"""Exporting a vector store to a file of JSON Lines, and importing one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from neuroca_backup.errors import (
    ConfigurationError,
    EmptySourceError,
    InterruptedToolError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import columns, jsonlines, naming, parts
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.dump import choose
from neuroca_backup.vectors.model import Collection, Name

_BATCH_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Transferred:
    """How many vectors of one collection went."""

    collection: str
    vectors: int


def export(
    database: VectorDatabase, endpoint: Endpoint, output: Path, wanted: str | Sequence[str]
) -> list[Transferred]:
    """Write collections to the new file `output`; on any error there is none.

    Raises:
        InterruptedToolError: Fewer or more vectors came than the store counts.
    """
    chosen = {at.label: database.describe(at) for at in choose(database, endpoint, wanted)}
    if not chosen:
        raise EmptySourceError(
            f"The vector store at {endpoint.label} has no collection",
            remedy="Check that the connection names the right server.",
        )
    done = []
    with jsonlines.opened(output, "xb") as file:
        file.write(jsonlines.header(chosen))
        for label, collection in chosen.items():
            at, rows = collection.at, 0
            with database.reading(at):
                before = database.count(at)
                for partition in collection.partitions:
                    for batch in database.export(
                        at, collection, partition=partition, batch_bytes=parts.BATCH_BYTES
                    ):
                        for row in columns.to_rows(collection, batch):
                            file.write(jsonlines.line_of(collection, row, partition=partition))
                        rows += batch.num_rows
                after = database.count(at)
            if not min(before, after) <= rows <= max(before, after):
                raise InterruptedToolError(
                    f"{rows} vectors of {label} were exported, the store itself counts {after}",
                    remedy="Run the export again.",
                    collection=label,
                )
            done.append(Transferred(label, rows))
    return done


def load(
    database: VectorDatabase, endpoint: Endpoint, source: Path, *, add: bool
) -> list[Transferred]:
    """Import a file; every line is checked before anything is touched.

    A collection that is not there is loaded under another name, counted, and renamed where the
    store can. With `add` vectors go into collections that hold some.

    Raises:
        ConfigurationError: A line is wrong; names it. Or nothing says what collections are like.
        TargetRefusedError: A collection holds vectors, and `add` was not given.
        InterruptedToolError: The store counts other vectors afterwards than were sent.
    """
    reader = jsonlines.Reader(source)
    places = {label: database.place(one.at) for label, one in reader.collections.items()}
    present = set(database.collections())
    if not reader.collections:
        there = [database.describe(at) for at in sorted(present)]
        reader = jsonlines.Reader(source, {one.at.label: one for one in there})
        places = {one.at.label: one.at for one in there}
    if not reader.collections:
        raise ConfigurationError(
            f"{source} has no header, and {endpoint.label} has no collection",
            remedy="Export the file with `vector-export`, or create the collection first.",
            file=str(source),
        )
    counts = Counter(label for label, _, _ in reader.rows())
    if not counts:
        raise EmptySourceError(
            f"{source} holds no vector",
            remedy="Look how it was made; nothing was imported.",
            file=str(source),
        )
    before = _refuse(database, endpoint, reader.collections, places, counts, add=add)
    into = {label: places[label] for label in counts}
    for label in counts:
        if places[label] in present:
            continue
        collection, place = reader.collections[label], places[label]
        mark = naming.mark(str(source), place)
        if database.beside:
            into[label] = naming.staging(str(source), place, place)
        if into[label] in present:
            database.drop(into[label])
        database.create(collection, into[label], mark=mark)
    for label, partition, rows in _batches(reader):
        collection = reader.collections[label]
        batch = columns.from_rows(collection, rows)
        database.insert(into[label], collection, batch, partition=partition)
    return [
        _finished(
            database,
            reader.collections[label],
            place=places[label],
            loaded=into[label],
            expected=before.get(label, 0) + count,
            count=count,
        )
        for label, count in counts.items()
    ]


def _refuse(
    database: VectorDatabase,
    endpoint: Endpoint,
    collections: Mapping[str, Collection],
    places: Mapping[str, Name],
    counts: Mapping[str, int],
    *,
    add: bool,
) -> dict[str, int]:
    """Refuse what cannot work; return how many vectors are where some are."""
    found: dict[str, int] = {}
    present = set(database.collections())
    for label in counts:
        place = places[label]
        if place not in present:
            database.refuse(collections[label], place)
            continue
        there = database.describe(place)
        if columns.schema_of(there) != columns.schema_of(collections[label]):
            raise ConfigurationError(
                f"{place.label} has other fields or dimensions than the file",
                remedy="Import into a store without that collection.",
                collection=place.label,
            )
        with database.reading(place):
            found[label] = database.count(place)
    full = [places[label].label for label, rows in found.items() if rows]
    if full and not add:
        raise TargetRefusedError(
            f"{endpoint.label} has collections with vectors: {', '.join(full)}",
            remedy="Give --add to import beside what is there, or import elsewhere.",
            collections=full,
        )
    return found


def _batches(reader: jsonlines.Reader) -> Iterator[tuple[str, str, list[jsonlines.Row]]]:
    for (label, partition), group in groupby(reader.rows(), key=lambda one: one[:2]):
        rows = (row for _, _, row in group)
        while batch := list(islice(rows, _BATCH_ROWS)):
            yield label, partition, batch


def _finished(
    database: VectorDatabase,
    collection: Collection,
    *,
    place: Name,
    loaded: Name,
    expected: int,
    count: int,
) -> Transferred:
    database.build(loaded, collection)
    with database.reading(loaded):
        rows = database.count(loaded)
    if rows != expected:
        raise InterruptedToolError(
            f"{place.label} has {rows} vectors after the import, {expected} were expected",
            remedy="Look who else writes there, and for ids that were there before.",
            collection=place.label,
            expected=expected,
            found=rows,
        )
    if loaded != place:
        database.swap(collection, place, loaded=loaded, kept=place)
    return Transferred(place.label, count)
