"""Backup sets: recording what a run gave, and finding what is restored together."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.model.backup_set import PREFIX, BackupSet, SetMember, key_of
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

LATEST = "latest"
_SET_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class ListedSet:
    """One set as the stores show it; `problems` says, by store, why a store could not tell.

    Where the stores differ, `found` is what was recorded last.
    """

    set_id: str
    component: Component
    found: BackupSet | None
    problems: Mapping[str, str]


@dataclass(slots=True)
class Sets:
    """The backup sets in all stores that answer; who does not answer is remembered and named."""

    stores: Mapping[str, Store]
    unreachable: dict[str, str] = field(default_factory=dict)

    def record(
        self,
        set_id: str,
        component: Component,
        sources: Sequence[str],
        *,
        whole: Sequence[str] = (),
        unchanged: Mapping[str, str] = MappingProxyType({}),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> BackupSet:
        """Write what became of `sources` in the run `set_id` into every store.

        `whole` are the sources of which these are all parts. `unchanged` are those of which no
        backup was made, each with the id of the earlier one that stands for it. Where that is all
        of them, and a complete set already says so, that set is returned and none is written. A
        repeat that finds the same writes the same bytes again.

        Raises:
            BackupError: A store's own, after all others were written.
            PermanentError: Some source has no verified backup; the set was recorded as incomplete.
        """
        if sources and unchanged.keys() == set(sources):
            earlier = self._earlier(component, unchanged, whole)
            if earlier is not None:
                log.info("Nothing has changed: the set %s of %s stands", earlier.set_id, component)
                return earlier
        recorded = self._gather(set_id, component, sources, unchanged, whole, recorded_at=clock())
        before = self.look(component, set_id).found
        if before is not None and before.says_the_same(recorded):
            recorded = before
        self._write(recorded)
        if not recorded.complete:
            raise PermanentError(
                f"The set {set_id} of {component} is incomplete: no verified backup of "
                f"{', '.join(recorded.unverified) or 'any source'}",
                remedy="Mend what their own errors say and repeat them; the set is then recorded "
                "anew.",
                set_id=set_id,
            )
        log.info(
            "The set %s of %s is complete: %s, consistent within %.1f s",
            set_id,
            component,
            ", ".join(recorded.members),
            recorded.skew_seconds or 0,
        )
        return recorded

    def look(self, component: Component, set_id: str) -> ListedSet:
        """Return what every store says of one set; `found` is None where none can be read."""
        found: list[BackupSet] = []
        problems: dict[str, str] = {}
        key = key_of(component, set_id)
        for name, store in self._answering():
            try:
                data = store.get(key)
                one = BackupSet.decode(
                    data, name=f"{name}:{key}", component=component, set_id=set_id
                )
            except NotFoundError:
                continue
            except DamagedError as error:
                problems[name] = str(error)
            except BackupError as error:
                self._lost(name, error)
                problems[name] = str(error)
            else:
                found.append(one)
        newest = max(found, key=lambda one: one.recorded_at, default=None)
        return ListedSet(set_id=set_id, component=component, found=newest, problems=problems)

    def newest_first(self, component: Component) -> Iterator[ListedSet]:
        """Yield the sets of a component from the newest to the oldest; a damaged one, too."""
        ids: set[str] = set()
        for name, store in self._answering():
            try:
                ids.update(self._ids(store, component))
            except BackupError as error:
                self._lost(name, error)
        self._require_an_answer()
        for set_id in sorted(ids, reverse=True):
            yield self.look(component, set_id)

    def newest_complete(self, component: Component, *, sources: Sequence[str]) -> BackupSet:
        """Return the newest complete set that holds all of `sources`, with all parts of them.

        So a set of one source alone, made by hand, does not stand for the whole component.

        Raises:
            NotFoundError: There is none; says what the newest set lacks.
        """
        newest = ""
        for listed in self.newest_first(component):
            found = listed.found
            if found is None:
                lacks = "; ".join(listed.problems.values()) or "cannot be read"
            elif not found.complete:
                lacks = f"has no verified backup of {', '.join(found.unverified)}"
            elif absent := [one for one in sources if not found.has(one)]:
                lacks = f"lacks {', '.join(absent)}"
            elif gone := self._gone(found):
                lacks = f"names backups that were deleted or have expired: {', '.join(gone)}"
            else:
                return found
            log.warning("The set %s of %s is passed over: it %s", listed.set_id, component, lacks)
            newest = newest or f"; the newest, {listed.set_id}, {lacks}"
        raise NotFoundError(
            f"There is no complete set of {component} with {', '.join(sources) or 'any source'}"
            f"{newest}" + self._silent(),
            remedy="`neuroca-backup sets` shows what there is; name a set by its id to restore "
            "what it has.",
        )

    def find(self, set_id: str, *, components: Sequence[Component]) -> BackupSet:
        """Return the set `set_id` of the first of `components` that has it.

        Raises:
            ConfigurationError: This is not the id of a set.
            DamagedError: Every copy of it is damaged.
            NotFoundError: No store that answers has it.
        """
        if _SET_ID.fullmatch(set_id) is None:
            raise ConfigurationError(
                f"{set_id!r} is not the id of a backup set",
                remedy="They look like 20261123T020000Z-1f0c9a3e; `neuroca-backup sets` prints "
                "them.",
                value=set_id,
            )
        for component in components:
            listed = self.look(component, set_id)
            if listed.found is not None:
                return listed.found
            if listed.problems.keys() - self.unreachable.keys():
                raise DamagedError(
                    f"The set {set_id} of {component} cannot be read: "
                    + "; ".join(listed.problems.values()),
                    remedy="Its backups can be restored one by one.",
                    set_id=set_id,
                )
        self._require_an_answer()
        raise NotFoundError(
            f"There is no set {set_id} in {', '.join(self.stores)}" + self._silent(),
            remedy="`neuroca-backup sets` shows what there is.",
            set_id=set_id,
        )

    def _gone(self, found: BackupSet) -> list[str]:
        """Return the ids of the backups of a set that cannot be restored any more."""
        inventory = Inventory(self.stores)
        listed = [
            inventory.look(BackupRef(backup_id=one.backup_id, component=found.component))
            for one in found.members.values()
        ]
        # What no store that answers holds may be in one that does not: then it is not called gone.
        return [
            one.ref.backup_id
            for one in listed
            if one.expired or not (one.manifests or one.problems or inventory.unreachable)
        ]

    def _earlier(
        self, component: Component, standing: Mapping[str, str], whole: Sequence[str]
    ) -> BackupSet | None:
        """Return the newest complete set of exactly these backups by source, if there is one."""
        refs = [BackupRef(backup_id=one, component=component) for one in standing.values()]
        oldest = max(ref.set_id for ref in refs)  # no set before it can have this backup
        for listed in self.newest_first(component):
            if listed.set_id < oldest:
                break
            found = listed.found
            if found is None or not found.complete:
                continue
            members = {name: one.backup_id for name, one in found.members.items()}
            if members == standing and set(found.whole) == set(whole):
                return found
        return None

    def _gather(
        self,
        set_id: str,
        component: Component,
        sources: Sequence[str],
        unchanged: Mapping[str, str],
        whole: Sequence[str],
        *,
        recorded_at: datetime,
    ) -> BackupSet:
        inventory = Inventory(self.stores)
        members: dict[str, SetMember] = {}
        for source in sources:
            standing = unchanged.get(source)
            listed = inventory.look(
                BackupRef.of(set_id, component, source)
                if standing is None
                else BackupRef(backup_id=standing, component=component)
            )
            manifest = listed.manifest
            if manifest is not None:
                members[source] = SetMember(
                    backup_id=manifest.backup_id,
                    kind=manifest.kind,
                    consistent_at=manifest.dump.consistent_at
                    if standing is None
                    else listed.current_at or manifest.dump.consistent_at,
                    verified=listed.verified,
                )
        return BackupSet.of(
            set_id,
            component,
            members,
            missing=tuple(source for source in sources if source not in members),
            whole=tuple(whole),
            recorded_at=recorded_at,
        )

    def _write(self, recorded: BackupSet) -> None:
        errors: list[BackupError] = []
        for name, store in self.stores.items():
            try:
                store.put(recorded.key, recorded.encode())
            except BackupError as error:
                log.error("The set %s is not in %s: %s", recorded.set_id, name, error)  # noqa: TRY400 - raised below
                errors.append(error)
        if errors:
            # A store that may answer at the next try must not be lost behind one that will not.
            raise next((one for one in errors if isinstance(one, TransientError)), errors[0])

    def _ids(self, store: Store, component: Component) -> Iterator[str]:
        prefix = f"{PREFIX}/{component}"
        for found in store.list(prefix):
            set_id = found.key.removeprefix(f"{prefix}/").removesuffix(".json")
            if found.key == key_of(component, set_id) and _SET_ID.fullmatch(set_id):
                yield set_id
            else:
                log.warning("%s: %s is not a backup set", store.name, found.key)

    def _answering(self) -> list[tuple[str, Store]]:
        return [(name, one) for name, one in self.stores.items() if name not in self.unreachable]

    def _require_an_answer(self) -> None:
        if len(self.unreachable) == len(self.stores):
            raise StoreUnavailableError(
                "No store answers: " + "; ".join(self.unreachable.values()),
                remedy="Mend the network or the credentials of one of them.",
            )

    def _silent(self) -> str:
        told = "; ".join(self.unreachable.values())
        return f"; not all stores answered: {told}" if told else ""

    def _lost(self, name: str, error: BackupError) -> None:
        log.warning("Store %s is left out: %s", name, error)
        self.unreachable[name] = str(error)
