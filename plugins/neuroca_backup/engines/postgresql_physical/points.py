"""Which backups of a chain a restore needs, and at which point of the WAL it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.postgresql_physical.dump import WAL
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Point:
    """The first `bases` backups are combined; the WAL of the last of them and all after follows.

    `settings` are the server's words for where recovery stops.
    """

    bases: int
    settings: Mapping[str, str]
    words: str


def find(backup: Restorable) -> Point:
    """Return how to reach the chosen moment.

    Raises:
        ConfigurationError: A part was chosen, or a moment out of reach; names those within reach.
    """
    if backup.only:
        raise ConfigurationError(
            f"A physical backup is a whole cluster, {', '.join(backup.only)} cannot be taken out "
            "of it",
            remedy="Restore it into a sandbox or a directory of its own and copy from there, or "
            "use a backup of the engine `postgresql`.",
            value=list(backup.only),
        )
    chain = backup.chain
    with_base = [one.dump.facts["method"] != WAL for one in chain].count(True)
    if backup.until is None:
        return Point(
            bases=with_base,
            # Excluding the record after the marker: the state is the one the facts were taken of.
            settings={
                "recovery_target_lsn": backup.last.dump.consistency["lsn"],
                "recovery_target_inclusive": "off",
            },
            words=f"LSN {backup.last.dump.consistency['lsn']} "
            f"({backup.last.dump.consistent_at.isoformat()})",
        )
    until = backup.until.astimezone(UTC)
    _refuse_out_of_reach(chain, until)
    before = [one.dump.consistent_at <= until for one in chain].count(True)
    return Point(
        bases=min(before, with_base),
        settings={
            "recovery_target_time": until.isoformat(sep=" "),
            "recovery_target_inclusive": "on",
        },
        words=until.isoformat(),
    )


def _refuse_out_of_reach(chain: tuple[Manifest, ...], until: datetime) -> None:
    first, last = chain[0].dump.consistent_at, chain[-1].dump.consistent_at
    if not first <= until <= last:
        raise ConfigurationError(
            f"{until.isoformat()} cannot be restored from {chain[-1].backup_id}: its chain reaches "
            f"from {first.isoformat()} to {last.isoformat()}",
            remedy="Choose a moment between them, or another backup.",
            value=until.isoformat(),
            oldest=first.isoformat(),
            newest=last.isoformat(),
        )
    for earlier, later in pairwise(chain):
        reached, following = earlier.dump.consistent_at, later.dump.consistent_at
        if reached < until < following and not later.dump.facts["continues"]:
            raise ConfigurationError(
                f"{until.isoformat()} cannot be restored: {later.backup_id} was made with "
                "`point_in_time: false` and has no WAL of the time before it",
                remedy=f"Choose {reached.isoformat()} or {following.isoformat()}.",
                value=until.isoformat(),
                oldest=reached.isoformat(),
                newest=following.isoformat(),
            )
