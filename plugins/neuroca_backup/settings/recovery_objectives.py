"""Recovery time objectives: the runbook's three, and any of your own."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import Duration, SourceName, format_duration, refused

_RUNBOOK = ("database", "memory_tiers", "full_system")


class OwnObjectiveSettings(Strict):
    """`sources` have to be restored and checked `within` so long after a disaster was declared."""

    within: Duration
    sources: tuple[SourceName, ...] = Field(min_length=1)


class RtoSettings(Strict):
    """How long a recovery may take at most; the defaults are the runbook's.

    `also` are objectives of your own, by name, such as one for the sources that come first.
    """

    database: Duration = timedelta(hours=4)
    memory_tiers: Duration = timedelta(hours=6)
    full_system: Duration = timedelta(hours=12)
    also: dict[SourceName, OwnObjectiveSettings] = Field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Every objective there is."""
        return (*_RUNBOOK, *self.also)

    @property
    def longest(self) -> timedelta:
        """The objective that leaves the most time."""
        own = (one.within for one in self.also.values())
        return max(self.database, self.memory_tiers, self.full_system, *own)

    @model_validator(mode="after")
    def _names_of_their_own(self) -> RtoSettings:
        found = []
        for name, one in self.also.items():
            if name in _RUNBOOK:
                error = refused(f"is an objective already: `{name}`", "Give yours another name.")
                found.append((("also", name), format_duration(one.within), error))
        if found:
            raise disagreement("objectives.rto", found)
        return self
