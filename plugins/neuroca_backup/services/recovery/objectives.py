"""Which recovery time objectives are in force when something is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from neuroca_backup.model.identity import Component, is_part_of
from neuroca_backup.model.recovery import Objective
from neuroca_backup.settings import RtoSettings

FULL_SYSTEM = "full_system"


def in_force(
    rto: RtoSettings, lost: Mapping[Component, Sequence[str]], *, checks: Sequence[str] = ()
) -> dict[str, Objective]:
    """Return the objectives of a recovery by name, the one with the least time first.

    An objective of which nothing is lost is not in force. Of a source that is many things its parts
    count.

    Args:
        rto: The limits that backup.yaml sets.
        lost: The sources that are to be restored, by component.
        checks: The checks of the whole system that have to pass for it to be back.
    """
    everything = tuple(source for sources in lost.values() for source in sources)
    wanted: dict[str, tuple[timedelta, tuple[str, ...], tuple[str, ...]]] = {
        Component.DATABASE.value: (rto.database, tuple(lost.get(Component.DATABASE, ())), ()),
        Component.MEMORY_TIERS.value: (
            rto.memory_tiers,
            tuple(lost.get(Component.MEMORY_TIERS, ())),
            (),
        ),
        FULL_SYSTEM: (rto.full_system, everything, tuple(checks)),
    }
    for name, own in rto.also.items():
        meant = (
            one
            for one in everything
            if one in own.sources or any(is_part_of(one, source) for source in own.sources)
        )
        wanted[name] = (own.within, tuple(meant), ())
    return {
        name: Objective(limit_seconds=limit.total_seconds(), sources=sources, checks=required)
        for name, (limit, sources, required) in sorted(wanted.items(), key=lambda item: item[1][0])
        if sources
    }
