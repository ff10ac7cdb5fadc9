"""The section `sources` of `backup.yaml`: what is dumped, by which engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from neuroca_backup.model.identity import Classification, Component
from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import ConnectionId, Duration, refused

_LOGICAL, _PHYSICAL = "postgresql", "postgresql_physical"

Refusal = tuple[tuple[str, ...], Any, PydanticCustomError]


class SourceSettings(Strict):
    """One thing to dump: its component, engine and connection; `options` are the engine's.

    Files of this machine have no connection. `classification` goes into the manifest of every
    backup; without it configuration is restricted and everything else confidential.
    `full_every` is how old a full backup may be for incremental ones to continue it, or stored
    bytes for later backups to refer to them. `method` is for PostgreSQL alone; with `both` the
    physical backup is a source of its own, whose name ends in `_physical` and whose options are
    `physical_options`.
    """

    component: Component
    engine: str
    connection: ConnectionId | None = None
    classification: Classification = Classification.CONFIDENTIAL
    method: Literal["logical", "physical", "both"] | None = None
    full_every: Duration = timedelta(days=7)
    options: dict[str, Any] = Field(default_factory=dict)
    physical_options: dict[str, Any] = Field(default_factory=dict)

    @property
    def written_full_every(self) -> timedelta | None:
        """`full_every` where the file has it; None where the default is the engine's to choose."""
        return self.full_every if "full_every" in self.model_fields_set else None

    @model_validator(mode="before")
    @classmethod
    def _configuration_is_restricted(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("component") == Component.CONFIGURATION:
            return {"classification": Classification.RESTRICTED, **given}
        return given


def default_sources() -> dict[str, SourceSettings]:
    """Return NCA's own databases, and the files and the Airflow of the machine it runs on."""
    database, configuration = Component.DATABASE, Component.CONFIGURATION
    said: dict[str, tuple[Component, str, str | None, dict[str, Any]]] = {
        "postgres": (database, "postgresql", "neuroca_postgres", {}),
        "mongodb": (database, "mongodb", "neuroca_mongodb", {}),
        "redis": (database, "redis_rdb", "neuroca_redis", {}),
        "vector": (database, "milvus", "neuroca_milvus", {}),
        "configuration": (configuration, "filetree", None, {"parameters": ["/etc/neuroca"]}),
        "airflow": (configuration, "airflow_metadata", "neuroca_airflow", {}),
        "models": (
            Component.MODEL_WEIGHTS,
            "model_weights",
            None,
            {"roots": ["/var/lib/neuroca/models"]},
        ),
        "logs": (Component.LOGS, "logs", None, {"application": ["/var/log/neuroca"]}),
    }
    return {
        name: SourceSettings.model_validate(
            {
                "component": component,
                "engine": engine,
                "connection": connection,
                "options": options,
            }
        )
        for name, (component, engine, connection, options) in said.items()
    }


def by_method(sources: Mapping[str, SourceSettings]) -> dict[str, SourceSettings]:
    """Return `sources` with the engine that each one's `method` means, and without the word."""
    refusals = [one for name, source in sources.items() for one in _refusals(name, source, sources)]
    if refusals:
        raise disagreement("sources", refusals)
    return dict(one for name, source in sources.items() for one in _sources(name, source))


def _sources(name: str, source: SourceSettings) -> Iterator[tuple[str, SourceSettings]]:
    plain = source.model_copy(update={"method": None, "physical_options": {}})
    if source.method == "physical":
        yield name, plain.model_copy(update={"engine": _PHYSICAL})
        return
    yield name, plain
    if source.method == "both":
        options = source.physical_options
        yield _second(name), plain.model_copy(update={"engine": _PHYSICAL, "options": options})


def _refusals(
    name: str, source: SourceSettings, sources: Mapping[str, SourceSettings]
) -> Iterator[Refusal]:
    if source.method is not None and source.engine != _LOGICAL:
        error = refused(
            f"is a word for PostgreSQL, and the engine is {source.engine}",
            f"Remove it, or write engine: {_LOGICAL}.",
        )
        yield (name, "method"), source.method, error
    if source.physical_options and source.method != "both":
        error = refused(
            "needs method: both", "Write `options`: the source has one engine and one set of them."
        )
        yield (name, "physical_options"), "...", error
    if source.method == "both" and _second(name) in sources:
        error = refused(
            f"makes a source {_second(name)}, and there is one", "Give one of them another name."
        )
        yield (name, "method"), source.method, error


def _second(name: str) -> str:
    return f"{name}_physical"
