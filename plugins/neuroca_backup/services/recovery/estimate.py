"""How each recovery time objective looks before anything is restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from neuroca_backup.model.recovery import Objective
from neuroca_backup.services.recovery.plan import Estimate, PlannedSource


def estimates(
    objectives: Mapping[str, Objective],
    sources: Sequence[PlannedSource],
    priorities: Sequence[tuple[str, Sequence[str]]],
    *,
    used: float,
) -> tuple[Estimate, ...]:
    """Return an estimate for each of the objectives in force.

    Priorities are added up to the last that holds a source of the objective, for each waits for
    the one before it. `used` are the seconds since the disaster.
    """
    found = []
    for name, objective in objectives.items():
        concerned = set(objective.sources)
        holding = [at for at, (_, chosen) in enumerate(priorities) if concerned & set(chosen)]
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
                objective=name,
                limit_seconds=objective.limit_seconds,
                used_seconds=used,
                best_seconds=best,
                worst_seconds=worst,
                known=known,
            )
        )
    return tuple(found)
