"""What the demo backs up and restores: one line a source, and how its content is counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from neuroca_backup.model.manifest import Manifest

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DemoSource:
    """A source of the demo's backup.yaml.

    `seeded` is the kind of store that `sandbox.seed.expected` speaks of; `counts` says how many
    `noun` the backup holds, under the very names that `expected` uses.
    """

    name: str
    engine: str
    connection: str
    seeded: str
    noun: str
    counts: Callable[[Manifest], Counts]


def postgresql_rows(manifest: Manifest) -> Counts:
    """Return the rows of every `database.schema.table`."""
    return {
        f"{database}.{table}": found["rows"]
        for database, facts in manifest.dump.facts["databases"].items()
        for table, found in facts["tables"].items()
    }


def mongodb_documents(manifest: Manifest) -> Counts:
    """Return the documents of every `database.collection`, without users and views."""
    return {
        name: one["documents"]
        for name, one in manifest.dump.facts["collections"].items()
        if one["documents"] is not None and not name.startswith("admin.")
    }


def redis_keys(manifest: Manifest) -> Counts:
    """Return the keys of every logical database by its number."""
    return {number: one["keys"] for number, one in manifest.dump.facts["databases"].items()}


def vector_rows(manifest: Manifest) -> Counts:
    """Return the vectors of every collection, which are all in one database."""
    return {
        name.rpartition(".")[2]: one["count"]
        for name, one in manifest.dump.facts["collections"].items()
    }


# A further source is one more line here, with a function above that reads its engine's facts.
SOURCES = (
    DemoSource(
        name="postgres",
        engine="postgresql",
        connection="neuroca_postgres",
        seeded="postgres",
        noun="rows",
        counts=postgresql_rows,
    ),
    DemoSource(
        name="mongodb",
        engine="mongodb",
        connection="neuroca_mongodb",
        seeded="mongodb",
        noun="documents",
        counts=mongodb_documents,
    ),
    DemoSource(
        name="redis",
        engine="redis_rdb",
        connection="neuroca_redis",
        seeded="redis",
        noun="keys",
        counts=redis_keys,
    ),
    DemoSource(
        name="vector",
        engine="milvus",
        connection="neuroca_milvus",
        seeded="milvus",
        noun="vectors",
        counts=vector_rows,
    ),
)
