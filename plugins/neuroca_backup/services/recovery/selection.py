"""Which backups bring a component back together: a set where there is one, else each by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from neuroca_backup.errors import NotFoundError
from neuroca_backup.model.backup_set import BackupSet
from neuroca_backup.model.identity import Component, is_part_of
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.sets import Sets
from neuroca_backup.stores import Store


@dataclass(frozen=True, slots=True)
class Chosen:
    """What was chosen for one component.

    `backups` are ids by source, None for the newest verified one (before the moment); `problems`
    say why a source has none.
    """

    component: Component
    backups: Mapping[str, str | None]
    set_id: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    moment: datetime | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Chooses backups; `sets` gives the sets afresh, for they remember who did not answer."""

    stores: Mapping[str, Store]
    sets: Callable[[], Sets]

    def newest(self, component: Component, sources: Sequence[str]) -> Chosen:
        """Choose the newest complete set; where there is none the newest verified backups."""
        try:
            found = self.sets().newest_complete(component, sources=sources)
        except NotFoundError as error:
            return self._one_by_one(component, sources, note=error.problem)
        return self._of_set(found, sources)

    def before(self, component: Component, sources: Sequence[str], moment: datetime) -> Chosen:
        """Choose the newest complete set that brings back nothing later than `moment`."""
        for listed in self.sets().newest_first(component):
            found = listed.found
            if (
                found is not None
                and found.complete
                and all(found.has(source) for source in sources)
                and max(one.consistent_at for one in found.members.values()) <= moment
            ):
                return self._of_set(found, sources, moment=moment)
        note = f"There is no complete set of {component} from before {moment.isoformat()}"
        return self._one_by_one(component, sources, note=note, moment=moment)

    def named(self, set_id: str) -> tuple[BackupSet, datetime]:
        """Return the set `set_id`, and the latest moment that it brings back.

        Raises:
            NotFoundError: There is no such set, or it has no backup.
            DamagedError: Every copy of it is damaged.
        """
        found = self.sets().find(set_id, components=tuple(Component))
        if not found.members:
            raise NotFoundError(
                f"The set {set_id} of {found.component} has no backup",
                remedy="`neuroca-backup sets` shows others.",
                set_id=set_id,
            )
        return found, max(one.consistent_at for one in found.members.values())

    def of_set(self, found: BackupSet, sources: Sequence[str]) -> Chosen:
        """Choose what a set holds of `sources`; what it lacks is a problem."""
        return self._of_set(found, sources)

    def _of_set(
        self, found: BackupSet, sources: Sequence[str], *, moment: datetime | None = None
    ) -> Chosen:
        backups: dict[str, str | None] = {}
        problems: dict[str, str] = {}
        lacking = f"The set {found.set_id} has no backup of it"
        for source in sources:
            members = {
                name: one.backup_id
                for name, one in found.members.items()
                if name == source or is_part_of(name, source)
            }
            backups |= members
            missing = [one for one in found.missing if one == source or is_part_of(one, source)]
            problems |= dict.fromkeys(missing, lacking)
            if not members and not missing:
                problems[source] = lacking
        return Chosen(found.component, backups, found.set_id, problems, moment=moment)

    def _one_by_one(
        self,
        component: Component,
        sources: Sequence[str],
        *,
        note: str,
        moment: datetime | None = None,
    ) -> Chosen:
        held = [name for one, name in Inventory(self.stores).sources() if one is component]
        backups: dict[str, str | None] = {}
        for source in sources:
            parts = [name for name in held if is_part_of(name, source)]
            backups |= dict.fromkeys(parts or [source])
        return Chosen(
            component,
            backups,
            notes=(f"{note}: each source's own newest backup is taken, not of one moment",),
            moment=moment,
        )
