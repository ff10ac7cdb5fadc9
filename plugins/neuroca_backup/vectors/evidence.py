"""Evidence: what is noted of the rows while they are exported, and asked of a restored copy.

Samples are rows chosen by a hash of their keys, so the same rows give the same samples. Probes are
vectors with their true nearest neighbours among all rows that were exported, found by comparing
with every one of them. Both come from the exported bytes alone: what a busy source did meanwhile
is not in them.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from neuroca_backup.vectors import columns
from neuroca_backup.vectors.database import Key
from neuroca_backup.vectors.model import Collection, Field

SAMPLES = 256  # rows a collection; their digests take 30 KB of the manifest
PROBES = 4  # vectors a field
NEIGHBOURS = 10
# How many of the true neighbours an index has to find: approximate ones are not obliged to more.
RECALL = 0.8
_TOLERANCE = 1e-4  # of a nearness in float32, relative to the largest

Array = np.ndarray[Any, Any]


class Evidence:
    """Gathers samples and probes of one collection; memory does not grow with its rows."""

    def __init__(self, collection: Collection, *, probed: str) -> None:
        """Begin; `probed` is the partition whose rows are probed, best the largest."""
        self._collection = collection
        self._probed = probed
        # Hashes are negative, so that the heap's smallest is the first to go.
        self._samples: list[tuple[int, str, Key, str]] = []
        self._probes: list[_Probe] | None = None

    def see(self, batch: pa.RecordBatch, partition: str) -> None:
        """Take note of exported rows."""
        keys = columns.keys_of(batch, self._collection)
        for index, key in enumerate(keys):
            rank = -_hash(partition, key)
            if len(self._samples) == SAMPLES and rank <= self._samples[0][0]:
                continue
            entry = (rank, partition, key, columns.digest(self._collection, batch, index))
            if len(self._samples) == SAMPLES:
                heapq.heapreplace(self._samples, entry)
            else:
                heapq.heappush(self._samples, entry)
        if partition != self._probed or not batch.num_rows:
            return
        if self._probes is None:
            self._probes = list(_probes(self._collection, batch, keys))
        for probe in self._probes:
            probe.see(batch, keys)

    def facts(self) -> dict[str, Any]:
        """Return what was noted, as JSON: the same rows give the same facts."""
        return {
            "samples": sorted(
                ([partition, key, digest] for _, partition, key, digest in self._samples), key=str
            ),
            "probes": [probe.facts(self._probed) for probe in self._probes or ()],
        }


def nearness(metric: str, probe: Array, vectors: Array) -> Array | None:
    """Return how near each of `vectors` [rows, ...] is to `probe`, larger is nearer.

    None where we do not know the metric, or it is not one of such vectors.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        known = _OF_BITS if vectors.dtype == np.uint8 else _OF_NUMBERS
        return known[metric](probe, vectors) if metric in known else None


def found(metric: str, expected: Sequence[float], probe: Array, vectors: Array) -> int:
    """Return how many of `vectors`, an index's answer, are as near as a true neighbour is."""
    near = nearness(metric, probe, vectors)
    if near is None or not expected:
        return 0
    slack = _TOLERANCE * max(1.0, *(abs(value) for value in expected))
    return int((near >= min(expected) - slack).sum())


class _Probe:
    """One vector, and the nearest rows seen so far."""

    def __init__(self, field: Field, metric: str, *, key: Key, row: str, vector: Array) -> None:
        self._field, self._metric = field, metric
        self._key, self._row, self._vector = key, row, vector
        self._best: list[tuple[float, Key]] = []

    def see(self, batch: pa.RecordBatch, keys: Sequence[Key]) -> None:
        near = nearness(self._metric, self._vector, columns.vectors_of(batch, self._field))
        if near is None:
            return
        near = np.where(np.isnan(near), -np.inf, near)
        best = np.argsort(-near, kind="stable")[:NEIGHBOURS]
        merged = [*self._best, *((float(near[one]), keys[one]) for one in best)]
        # Of equals the one that was seen first stays.
        self._best = sorted(merged, key=lambda pair: -pair[0])[:NEIGHBOURS]

    def facts(self, partition: str) -> dict[str, Any]:
        return {
            "field": self._field.name,
            "partition": partition,
            "key": self._key,
            "row": self._row,
            "neighbours": [key for _, key in self._best],
            "nearness": [round(value, 6) for value, _ in self._best],
        }


def _probes(collection: Collection, batch: pa.RecordBatch, keys: Sequence[Key]) -> Iterator[_Probe]:
    for field in collection.vectors:
        metric = collection.metric(field.name)
        if field.kind not in {"float_vector", "binary_vector"}:
            continue
        vectors = columns.vectors_of(batch, field)
        if nearness(metric, vectors[0], vectors[:1]) is None:
            continue
        column = batch.column(batch.schema.get_field_index(field.name))
        usable = [index for index in range(batch.num_rows) if column[index].is_valid][:PROBES]
        for index in usable:
            yield _Probe(
                field,
                metric,
                key=keys[index],
                row=columns.digest(collection, batch, index),
                vector=vectors[index].copy(),
            )


def _ones(bits: Array) -> Array:
    ones: Array = np.unpackbits(bits, axis=1).sum(axis=1).astype(np.int64)
    return ones


def _cosine(probe: Array, vectors: Array) -> Array:
    sizes = np.linalg.norm(vectors, axis=1) * np.linalg.norm(probe)
    return np.where(sizes > 0, (vectors @ probe) / sizes, 0)


def _jaccard(probe: Array, vectors: Array) -> Array:
    union = _ones(probe | vectors)
    return np.where(union > 0, _ones(probe & vectors) / union, 0)


_OF_NUMBERS: dict[str, Callable[[Array, Array], Array]] = {
    "ip": lambda probe, vectors: vectors @ probe,
    "l2": lambda probe, vectors: -np.square(vectors - probe).sum(axis=1),
    "cosine": _cosine,
}
_OF_BITS: dict[str, Callable[[Array, Array], Array]] = {
    "hamming": lambda probe, vectors: -_ones(probe ^ vectors),
    "jaccard": _jaccard,
}


def _hash(partition: str, key: Key) -> int:
    data = f"{partition}\0{key}".encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
