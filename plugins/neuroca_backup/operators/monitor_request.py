"""The form of `monitor_objectives`: its fields, and what they mean once they are checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import EVERYTHING, Component

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class MonitorRequest:
    """The fields of the form; the DAG's params have the same names. No component is all of them."""

    component: Component | None = None
    dry_run: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> MonitorRequest:
        """Return the request that `params` describe; none of them is a scheduled run's.

        Raises:
            ConfigurationError: A field is unknown, or its value is no choice.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The monitor's form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        component, dry_run = params.get("component", EVERYTHING), params.get("dry_run", False)
        if component not in {EVERYTHING, *Component}:
            raise ConfigurationError(
                f"component: {component!r} is not a component",
                remedy=f"Use {EVERYTHING}, or one of: {', '.join(Component)}.",
                value=component,
            )
        if not isinstance(dry_run, bool):
            raise ConfigurationError(
                f"dry_run: {dry_run!r} is neither true nor false",
                remedy="Write true or false, without quotes.",
                value=dry_run,
            )
        return cls(None if component == EVERYTHING else Component(component), dry_run=dry_run)
