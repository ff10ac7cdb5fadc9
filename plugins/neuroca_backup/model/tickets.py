"""What travels between tasks: ids, sizes and reasons, small enough for XCom whatever the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from neuroca_backup.model.identity import BackupRef, Component


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one stage hands to the next: ids and sizes, small enough for XCom whatever the data.

    `stage` is the stage that is complete; `place` its folder in the spool, "" once the backup is
    in the stores; `size` the bytes that stage gave. `checked_at` (ISO format) is "" but where no
    backup was made because the source was then what `backup_id`, an earlier one, holds.
    """

    backup_id: str
    component: str
    stage: str
    place: str
    members: int
    size: int
    checked_at: str = ""

    @property
    def ref(self) -> BackupRef:
        """Which backup this is."""
        return BackupRef(backup_id=self.backup_id, component=Component(self.component))

    @property
    def stored(self) -> bool:
        """Whether the backup is already in the primary store, so that no stage is left to run."""
        return not self.place

    @property
    def unchanged(self) -> bool:
        """Whether an earlier backup stands for this run's, so that there is nothing to be done."""
        return bool(self.checked_at)

    def to_json(self) -> dict[str, Any]:
        """Return the ticket as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What will be restored from where; small, and free of secrets. `stores` in order of use.

    `chain` are the ids of the full backup and of those after it, up to `backup_id`. `until` is the
    last moment to be restored in ISO format, "" for all; `only` the parts to be restored, () for
    all. Sizes in bytes are of the whole chain. `allow_older` allows an earlier backup in the place
    of one that no store has whole; `passed_over` says which later ones are not restored, and why.
    `as_of` is the moment (ISO format) as of which the stores are read, "" for now.
    """

    restore_id: str
    backup_id: str
    component: str
    source: str
    engine: str
    stores: tuple[str, ...]
    plain_size: int
    members: int
    taken_at: str
    verified: bool
    chain: tuple[str, ...]
    until: str = ""
    only: tuple[str, ...] = ()
    allow_older: bool = False
    passed_over: tuple[str, ...] = ()
    as_of: str = ""

    @property
    def ref(self) -> BackupRef:
        """Which backup it is."""
        return BackupRef(backup_id=self.backup_id, component=Component(self.component))

    @property
    def refs(self) -> tuple[BackupRef, ...]:
        """Every backup of the chain, the full one first."""
        return tuple(
            BackupRef(backup_id=one, component=Component(self.component)) for one in self.chain
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; `RestorePlan.from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RestorePlan:
        """Return the plan in `data`."""
        names = ("stores", "chain", "only", "passed_over")
        return cls(**{**data, **{name: tuple(data[name]) for name in names}})


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What was fetched: bytes of each store used, the fallbacks with their reasons, the place.

    `plan` is that of the backup which was really fetched: every later step works on it.
    """

    plan: RestorePlan
    place: str
    bytes_by_store: Mapping[str, int]
    fallbacks: tuple[str, ...]
    size: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data; `FetchReport.from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FetchReport:
        """Return the report in `data`."""
        plan = RestorePlan.from_json(data["plan"])
        return cls(**{**data, "plan": plan, "fallbacks": tuple(data["fallbacks"])})
