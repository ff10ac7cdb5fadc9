"""An installation with a source of every kind: the backup.yaml of tests that use them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup.sandbox import seed_milvus, seed_mongodb

if TYPE_CHECKING:
    from support.wiring import Places


@dataclass(frozen=True)
class Declared:
    """What backup.yaml says of one source; one of files has no connection."""

    component: str
    engine: str
    connection: str | None
    options: Mapping[str, Any]


def declared(files: Path, *, database: str) -> dict[str, Declared]:
    """Return NCA's sources by name, those of files below `files`, as the seeds of the sandbox fill.

    Their connections are called `postgres`, `mongodb`, `redis` and `milvus`.
    """
    episodic = {"databases": [seed_mongodb.DATABASE]}
    vectors = {"collections": [seed_milvus.COLLECTION]}
    configuration = {"parameters": [str(files / "configuration")]}
    return {
        "postgres": Declared("database", "postgresql", "postgres", {"databases": [database]}),
        "mongodb": Declared("database", "mongodb", "mongodb", episodic),
        "redis": Declared("database", "redis_rdb", "redis", {}),
        "vector": Declared("database", "milvus", "milvus", vectors),
        "working": Declared("memory_tiers", "working_memory", "redis", {}),
        "episodic": Declared("memory_tiers", "episodic_memory", "mongodb", {}),
        "semantic": Declared("memory_tiers", "semantic_memory", "milvus", {}),
        "configuration": Declared("configuration", "filetree", None, configuration),
        "models": Declared(
            "model_weights", "model_weights", None, {"roots": [str(files / "models")]}
        ),
        "logs": Declared("logs", "logs", None, {"application": [str(files / "logs")]}),
    }


def backup_yaml(
    folder: Path, places: Places, sources: Mapping[str, Declared]
) -> dict[str, dict[str, Any]]:
    """Return the document of backup.yaml, with a spool below `folder`."""
    return {
        "backup": {
            "schedule": {"database": "0 2 * * *"},
            "storage": places.storage,
            "retention": {"database": "30d"},
            "encryption": places.encryption,
            "pipeline": {"spool": str(folder / "spool")},
            "compression": {"level": 1, "threads": 1},
            "sources": {
                name: {
                    "component": one.component,
                    "engine": one.engine,
                    "options": dict(one.options),
                    **({} if one.connection is None else {"connection": one.connection}),
                }
                for name, one in sources.items()
            },
        }
    }
