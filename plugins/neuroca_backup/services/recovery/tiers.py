"""Memory tiers are views of databases: what a database's restore brings back is not restored twice.

A tier and a database are the same data where both are reached through the same connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from neuroca_backup.model.identity import Component, whole_source
from neuroca_backup.services.recovery.plan import PlannedSource
from neuroca_backup.settings import Settings


def covering(source: str, settings: Settings) -> str:
    """Return the database source that holds the data of the memory tier `source`, "" for none."""
    tier = settings.sources.get(whole_source(source))
    if tier is None or tier.component is not Component.MEMORY_TIERS or tier.connection is None:
        return ""
    return next(
        (
            name
            for name, one in settings.sources_of(Component.DATABASE).items()
            if one.connection == tier.connection
        ),
        "",
    )


def related(found: Sequence[PlannedSource], settings: Settings) -> tuple[PlannedSource, ...]:
    """Return `found` with what covers each tier, and whether the tier brings back a later moment.

    A tier whose database is not recovered by this plan, or cannot be, is covered by nothing.
    """
    moments = {
        one.source: one.brings_back
        for one in found
        if one.component is Component.DATABASE and one.plan is not None
    }
    related = []
    for one in found:
        by = covering(one.source, settings)
        there = moments.get(by)
        if there is None:
            related.append(one)
            continue
        newer = one.plan is not None and one.brings_back is not None and one.brings_back > there
        related.append(one.model_copy(update={"covered_by": by, "newer": newer}))
    return tuple(related)
