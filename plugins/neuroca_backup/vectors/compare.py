"""Comparing a restored collection with its manifest: definition, counts, samples, neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neuroca_backup.vectors import columns, evidence, parts, restore
from neuroca_backup.vectors.database import Key, VectorDatabase
from neuroca_backup.vectors.model import Collection, Name

# What differs, what was expected, what was found.
Found = tuple[str, str, str]
_FETCHED = 256  # keys a request


def differences(backup: restore.Backup, database: VectorDatabase) -> Iterator[Found]:
    """Yield every difference between the loaded collections and the manifest's facts."""
    present = set(database.collections())
    for one in restore.chosen(backup, database):
        at = restore.loaded_name(one, present)
        there = database.describe(at)
        yield from _definition(one, there)
        if there.key != one.collection.key or there.vectors != one.collection.vectors:
            continue  # nothing more can be asked of it
        with database.reading(at):
            yield from _rows(one, at, database)


def _definition(one: restore.Restored, there: Collection) -> Iterator[Found]:
    if there.fingerprint == one.collection.fingerprint:
        return
    ours, theirs = one.collection.definition(), there.definition()
    for word in ours:
        if ours[word] != theirs[word]:
            yield f"{word} of {one.place.label}", str(ours[word]), str(theirs[word])


def _rows(one: restore.Restored, at: Name, database: VectorDatabase) -> Iterator[Found]:
    label = one.place.label
    for partition, expected in one.facts["partitions"].items():
        rows = database.count(at, partition=partition)
        if rows != expected:
            where = f"rows of {label}" + (f", partition {partition}" if partition else "")
            yield where, str(expected), str(rows)
    if one.collection.new_keys:
        copies = _by_content(one, at, database)
    else:
        copies = _by_key(one, at, database)
    for partition, key, digest in one.facts["samples"]:
        there = copies.get((partition, key))
        if there is None or there[0] != digest:
            yield f"row {key} of {label}", digest[:12], there[0][:12] if there else "none"
    yield from _neighbours(one, at, database, copies)


# The digest of a row there, and where its vectors are: a batch and an index into it.
_Copies = dict[tuple[str, Key], tuple[str, Any, int]]


def _by_key(one: restore.Restored, at: Name, database: VectorDatabase) -> _Copies:
    """Fetch samples and probes by their keys; bounded, as both are."""
    wanted: dict[str, list[Key]] = {}
    for partition, key, _ in one.facts["samples"]:
        wanted.setdefault(partition, []).append(key)
    for probe in one.facts["probes"]:
        keys = wanted.setdefault(probe["partition"], [])
        if probe["key"] not in keys:
            keys.append(probe["key"])
    found: _Copies = {}
    for partition, keys in wanted.items():
        for first in range(0, len(keys), _FETCHED):
            asked = keys[first : first + _FETCHED]
            batch = database.fetch(at, one.collection, asked, partition=partition)
            for index, key in enumerate(columns.keys_of(batch, one.collection)):
                digest = columns.digest(one.collection, batch, index)
                found[partition, key] = (digest, batch, index)
    return found


def _by_content(one: restore.Restored, at: Name, database: VectorDatabase) -> _Copies:
    """Find samples and probes among all rows, as their keys are new.

    Rows that hold the same stand for each other.
    """
    found: _Copies = {}
    for partition in one.facts["partitions"]:
        wanted: dict[str, list[Key]] = {}
        for where, key, digest in one.facts["samples"]:
            if where == partition:
                wanted.setdefault(digest, []).append(key)
        for probe in one.facts["probes"]:
            if probe["partition"] == partition:
                wanted.setdefault(probe["row"], []).append(probe["key"])
        batches = database.export(
            at, one.collection, partition=partition, batch_bytes=parts.BATCH_BYTES
        )
        for batch in batches:
            for index in range(batch.num_rows):
                digest = columns.digest(one.collection, batch, index)
                # A slice of its own, so that the batch it came in can be freed.
                for key in wanted.get(digest, ()):
                    found[partition, key] = (digest, batch.slice(index, 1), 0)
    return found


def _neighbours(
    one: restore.Restored, at: Name, database: VectorDatabase, copies: _Copies
) -> Iterator[Found]:
    asked: dict[str, tuple[int, int]] = {}
    for probe in one.facts["probes"]:
        name, partition = probe["field"], probe["partition"]
        field, metric = one.collection.field(name), one.collection.metric(name)
        copy = copies.get((partition, probe["key"]))
        if copy is None:
            yield f"row {probe['key']} of {one.place.label}", "there", "none"
            continue
        vector = columns.vectors_of(copy[1], field)[copy[2]]
        keys = database.nearest(
            at,
            one.collection,
            vector,
            field=name,
            partition=partition,
            limit=len(probe["nearness"]),
        )
        right = 0
        if keys:
            # The server's own scores have as many conventions as there are servers.
            rows = database.fetch(at, one.collection, list(keys), partition=partition)
            near = columns.vectors_of(rows, field)
            right = evidence.found(metric, probe["nearness"], vector, near)
        before = asked.get(name, (0, 0))
        asked[name] = (before[0] + right, before[1] + len(probe["nearness"]))
    for name, (right, total) in asked.items():
        if right < evidence.RECALL * total:
            yield (
                f"nearest neighbours by {name} of {one.place.label}",
                f"at least {evidence.RECALL:.0%} of {total}",
                str(right),
            )
