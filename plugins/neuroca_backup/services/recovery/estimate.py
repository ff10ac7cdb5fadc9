"""How each recovery time objective looks before anything is restored."""

from __future__ import annotations

from collections.abc import Sequence

from neuroca_backup.model.identity import Component
from neuroca_backup.services.recovery.plan import Estimate, PlannedSource
from neuroca_backup.settings import RtoSettings


def estimates(
    objectives: RtoSettings,
    sources: Sequence[PlannedSource],
    priorities: Sequence[tuple[str, Sequence[str]]],
    *,
    used: float,
) -> tuple[Estimate, ...]:
    """Return an estimate for each objective that concerns one of `sources`.

    Priorities are added up to the last that holds a source of the objective, for each waits for
    the one before it. `used` are the seconds since the disaster.
    """
    concerned = {
        "database": [one for one in sources if one.component is Component.DATABASE],
        "memory_tiers": [one for one in sources if one.component is Component.MEMORY_TIERS],
        "full_system": list(sources),
    }
    found = []
    for objective, mine in concerned.items():
        if not mine:
            continue
        names = {one.source for one in mine}
        holding = [at for at, (_, chosen) in enumerate(priorities) if names & set(chosen)]
        best = worst = 0.0
        known = True
        for _, chosen in priorities[: max(holding, default=-1) + 1]:
            here = [one for one in sources if one.source in chosen and not one.left_to]
            seconds = [one.forecast.seconds for one in here if one.forecast is not None]
            best += max(seconds, default=0.0)
            worst += sum(seconds)
            known = known and all(one.forecast and one.forecast.measured for one in here)
        found.append(
            Estimate(
                objective=objective,
                limit_seconds=getattr(objectives, objective).total_seconds(),
                used_seconds=used,
                best_seconds=best,
                worst_seconds=worst,
                known=known,
            )
        )
    return tuple(found)
