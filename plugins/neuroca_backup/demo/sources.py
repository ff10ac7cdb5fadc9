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
)
