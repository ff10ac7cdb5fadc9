"""The form of a restore test: what a person asked for, or the schedule, checked."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.services.restore_tests import choosing
from neuroca_backup.services.restore_tests.choosing import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.settings import Settings

SANDBOXES = ("process", "connection")
FIELDS = ("components", "sources", "backup", "sandbox", "sanitise", "keep", "dry_run")


def parse(params: Mapping[str, Any], settings: Settings) -> Request:
    """Return what `params`, the DAG's, ask for; an empty field means what backup.yaml says.

    Raises:
        ConfigurationError: A field is unknown or impossible, or two contradict each other.
        TargetRefusedError: An unsanitised copy would be kept.
    """
    unknown = sorted(set(params) - set(FIELDS))
    if unknown:
        raise ConfigurationError(
            f"The form of a restore test has no field {', '.join(map(repr, unknown))}",
            remedy=f"Its fields are: {', '.join(FIELDS)}.",
        )
    for name in ("sanitise", "dry_run"):
        _require(name, params.get(name, True), isinstance(params.get(name, True), bool))
    keep = params.get("keep") or 0
    _require("keep", keep, isinstance(keep, int | float) and not isinstance(keep, bool))
    sandbox = params.get("sandbox") or settings.restore_test.sandbox
    _require("sandbox", sandbox, sandbox in SANDBOXES)
    components = _words(params.get("components"))
    for one in components:
        _require("components", one, one in set(Component))
    request = Request(
        components=tuple(Component(one) for one in components),
        sources=_words(params.get("sources")),
        backup=(params.get("backup") or "").strip(),
        sandbox=sandbox,
        sanitise=params.get("sanitise", True),
        keep=timedelta(hours=keep),
    )
    choosing.check(request, settings)
    return request


def _words(value: Any) -> tuple[str, ...]:
    """Return the lines of a field; the form gives a line of its own for each."""
    return tuple(one.strip() for one in value or () if one.strip())


def _require(name: str, value: Any, fits: bool) -> None:  # noqa: FBT001 - one call a line
    if not fits:
        raise ConfigurationError(
            f"{name}: {value!r} is not a choice",
            remedy="Choose it in the form, or leave it empty for what backup.yaml says.",
            value=value,
        )
