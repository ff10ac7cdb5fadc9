"""The form of the DAG `verify_backups`, as a task gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component, is_source_name
from neuroca_backup.model.status import Level

EVERY = "all"
SAMPLE = "sample"
# What a check without a server can prove; a sandbox is another DAG's.
DEPTHS = ("intact", "readable", "parsed")
COMPONENTS = (EVERY, *(one.value for one in Component))
LEVELS = (SAMPLE, *DEPTHS)


@dataclass(frozen=True, slots=True)
class VerificationRequest:
    """What is checked: `component` and `source` (None and "": all), how deep, and which copies.

    `level` is how deep every copy is read; None reads a sample of them deeper than INTACT. `whole`
    reads all copies, and not just those whose turn it is. A `dry_run` reads none.
    """

    component: Component | None = None
    source: str = ""
    level: Level | None = None
    whole: bool = False
    dry_run: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> VerificationRequest:
        """Return the request that `params` describe; none of them is a scheduled run's.

        Raises:
            ConfigurationError: A field is unknown or means nothing; names it and its value.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The verification form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        source = params.get("source") or ""
        if source and not (isinstance(source, str) and is_source_name(source)):
            raise ConfigurationError(
                f"source: {source!r} is not the name of a source",
                remedy="Write it as in backup.yaml, or leave it empty for all.",
                value=source,
            )
        component = _choice(params, "component", COMPONENTS)
        level = _choice(params, "level", LEVELS)
        return cls(
            component=None if component == EVERY else Component(component),
            source=source,
            level=None if level == SAMPLE else Level[level.upper()],
            whole=_flag(params, "whole"),
            dry_run=_flag(params, "dry_run"),
        )


def _choice(params: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    value = params.get(name, choices[0])
    if value not in choices:
        raise ConfigurationError(
            f"{name}: {value!r} is not a choice",
            remedy=f"Choose one of: {', '.join(choices)}.",
            value=value,
        )
    return str(value)


def _flag(params: Mapping[str, Any], name: str) -> bool:
    value = params.get(name, False)
    if not isinstance(value, bool):
        raise ConfigurationError(
            f"{name}: {value!r} is neither true nor false",
            remedy="Write true or false, without quotes.",
            value=value,
        )
    return value
