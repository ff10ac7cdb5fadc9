"""What the demo backs up and restores: one line a source, and how its content is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroca_backup.model.identity import Component
from neuroca_backup.model.manifest import Manifest

Counts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DemoSource:
    """A source of the demo's backup.yaml.

    `seeded` is the kind that `sandbox.seed.expected` or `sandbox.seed_files.counts` speaks of, ""
    for what is different each time; `counts` says how many `noun` the backup holds, under the very
    names that are used there.
    `options` are the engine's, for sources that are files below the folder it is given.
    """

    name: str
    engine: str
    connection: str | None
    seeded: str
    noun: str
    counts: Callable[[Manifest], Counts]
    component: Component = Component.DATABASE
    options: Callable[[Path], dict[str, Any]] | None = None

    def settings(self, files: Path) -> dict[str, Any]:
        """Return what backup.yaml says of it; `files` is where the demo's files are."""
        said: dict[str, Any] = {"component": self.component.value, "engine": self.engine}
        if self.connection is not None:
            said["connection"] = self.connection
        if self.options is not None:
            said["options"] = self.options(files)
        return said


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


def tier_documents(manifest: Manifest) -> Counts:
    """Return the documents of every collection of a tier; a view has none of its own."""
    return {
        name: one["documents"]
        for name, one in manifest.dump.facts["collections"].items()
        if json.loads(one["definition"])["type"] != "view"
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


def airflow_rows(manifest: Manifest) -> Counts:
    """Return the connections, variables and pools."""
    return {name: one["rows"] for name, one in manifest.dump.facts["tables"].items()}


def files(manifest: Manifest) -> Counts:
    """Return the files of a tree; of a part under the part's name."""
    facts = manifest.dump.facts
    return {facts.get("part", "files"): facts["files"]}


def log_lines(manifest: Manifest) -> Counts:
    """Return the lines of every category of logs."""
    categories = manifest.dump.facts["categories"]
    return {name: one["lines"] for name, one in categories.items()}


def configuration_lists(root: Path) -> dict[str, Any]:
    """Return the options of the configuration: a folder for each of the runbook's four kinds."""
    kinds = ("environment", "parameters", "integrations", "security")
    return {kind: [str(root / "configuration" / kind)] for kind in kinds}


def log_lists(root: Path) -> dict[str, Any]:
    """Return the options of the logs: a folder for each of the runbook's four kinds."""
    kinds = ("application", "metrics", "audit", "performance")
    return {kind: [str(root / "logs" / kind)] for kind in kinds}


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
    DemoSource(
        name="working",
        engine="working_memory",
        connection="neuroca_redis",
        seeded="",
        noun="keys",
        counts=redis_keys,
        component=Component.MEMORY_TIERS,
    ),
    DemoSource(
        name="episodic",
        engine="episodic_memory",
        connection="neuroca_mongodb",
        seeded="mongodb",
        noun="documents",
        counts=tier_documents,
        component=Component.MEMORY_TIERS,
    ),
    DemoSource(
        name="semantic",
        engine="semantic_memory",
        connection="neuroca_milvus",
        seeded="milvus",
        noun="vectors",
        counts=vector_rows,
        component=Component.MEMORY_TIERS,
    ),
    DemoSource(
        name="configuration",
        engine="filetree",
        connection=None,
        seeded="configuration",
        noun="files",
        counts=files,
        component=Component.CONFIGURATION,
        options=configuration_lists,
    ),
    DemoSource(
        name="airflow",
        engine="airflow_metadata",
        connection="neuroca_airflow",
        seeded="",
        noun="rows",
        counts=airflow_rows,
        component=Component.CONFIGURATION,
    ),
    DemoSource(
        name="models",
        engine="model_weights",
        connection=None,
        seeded="models",
        noun="files",
        counts=files,
        component=Component.MODEL_WEIGHTS,
        options=lambda root: {"roots": [str(root / "models")]},
    ),
    DemoSource(
        name="logs",
        engine="logs",
        connection=None,
        seeded="",
        noun="lines",
        counts=log_lines,
        component=Component.LOGS,
        options=log_lists,
    ),
)


def components() -> tuple[Component, ...]:
    """Return the components that the demo has sources of, in the order of their backups."""
    return tuple(dict.fromkeys(source.component for source in SOURCES))
