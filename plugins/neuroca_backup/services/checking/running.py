"""Carrying a plan out, one source at a time: reading copies back, and saying which have fallen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from neuroca_backup.catalog import AuditEvent, Catalog
from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    ConfigurationError,
    EmptySourceError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.model.identity import Component, is_part_of
from neuroca_backup.model.status import Level
from neuroca_backup.services.checking import planning
from neuroca_backup.services.checking.planning import Check, Plan, Rules
from neuroca_backup.services.checking.report import Report
from neuroca_backup.services.checking.survey import survey
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.sets import Sets
from neuroca_backup.services.verify import Verifier
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


class Checking:
    """Reads the copies of backups back within their window.

    Args:
        stores: Every configured store by name.
        verifier: Checks one copy, and records the result.
        rules: How often, and how deep.
        catalog: Where runs are noted.
        clock: What time it is, aware.
        stopwatch: Seconds that only grow, for how long a run takes.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        verifier: Verifier,
        rules: Rules,
        catalog: Catalog,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        stopwatch: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stores = stores
        self._verifier = verifier
        self._rules = rules
        self._ledger = Ledger(catalog)
        self._clock = clock
        self._stopwatch = stopwatch

    def sources(
        self, *, component: Component | None = None, source: str = ""
    ) -> Sequence[tuple[Component, str]]:
        """Return what there are backups of in any store that answers, of those asked for.

        `source` may be one that is many things; "" is all.

        Raises:
            EmptySourceError: There are no backups at all: then nothing can be checked.
            ConfigurationError: There are none of those asked for; lists what there is.
            StoreUnavailableError: There are none in the stores that answer, or none answers.
        """
        inventory = Inventory(self._stores)
        held = list(inventory.sources())
        found = [
            (one, name)
            for one, name in held
            if component in {None, one}
            and (not source or name == source or is_part_of(name, source))
        ]
        if found:
            return found
        silent = "; ".join(inventory.unreachable.values())
        if silent:
            raise StoreUnavailableError(
                f"The stores that answer have no such backups: {silent}",
                remedy="Mend the network or the credentials of the others.",
            )
        if held:
            known = ", ".join(f"{one}/{name}" for one, name in held)
            raise ConfigurationError(
                f"There are no backups of {component or 'any component'}, {source or 'any source'}",
                remedy=f"There are backups of: {known}.",
                value=source or component,
            )
        raise EmptySourceError(
            f"There is no backup in {', '.join(self._stores)}, so nothing could be checked",
            remedy="Make the first backup; if there were some, find out who deleted them.",
        )

    def plan(
        self,
        component: Component,
        source: str,
        *,
        whole: bool = False,
        level: Level | None = None,
    ) -> Plan:
        """Return which copies of `source` a run would read now, and how deep; nothing is read."""
        return self._plan(component, source, whole=whole, level=level)[0]

    def check(
        self,
        component: Component,
        source: str,
        *,
        whole: bool = False,
        level: Level | None = None,
    ) -> Report:
        """Plan anew and carry that out; what was found is in the report, and in the stores.

        May be killed and repeated: what was read counts, and is not read again at once.
        """
        plan, unknown = self._plan(component, source, whole=whole, level=level)
        report = Report(
            component,
            source,
            overdue=plan.overdue,
            coming=len(plan.coming),
            later=len(plan.later),
        )
        for name, error in unknown.items():
            report.not_checked(name, error)
        silent = set(unknown)
        for copy in plan.archived:
            report.not_checkable(copy)
        begun = self._stopwatch()
        longest = self._rules.longest.total_seconds()
        for one in plan.checks:
            if (self._stopwatch() - begun >= longest and not whole) or one.copy.store in silent:
                report.later += 1
                report.left += one.overdue
            elif not self._read(one, report):
                silent.add(one.copy.store)
        return report

    def doubtful_sets(self) -> Sequence[str]:
        """Return a sentence for every document of a backup set that a store has damaged.

        Raises:
            StoreUnavailableError: No store answers.
        """
        sets = Sets(self._stores)
        return [
            why
            for component in Component
            for listed in sets.newest_first(component)
            for store, why in listed.problems.items()
            if store not in sets.unreachable
        ]

    def note_run(self, *, actor: str, details: Mapping[str, object]) -> None:
        """Note in the audit trail that a run has come to its end."""
        event = AuditEvent(
            at=self._clock(), actor=actor, action="verify", subject="all sources", details=details
        )
        self._ledger.note("the audit of verify", lambda catalog: catalog.record_event(event))

    def _plan(
        self, component: Component, source: str, *, whole: bool, level: Level | None
    ) -> tuple[Plan, Mapping[str, BackupError]]:
        now = self._clock()
        seen = survey(self._stores, component, source, rules=self._rules, now=now)
        plan = planning.plan(
            component,
            source,
            seen.copies,
            rules=self._rules,
            now=now,
            whole=whole,
            level=level,
            unknown=[f"{name}: {error}" for name, error in seen.unknown.items()],
        )
        return plan, seen.unknown

    def _read(self, one: Check, report: Report) -> bool:
        """Check one copy; return False where its store does not answer any more."""
        copy = one.copy
        try:
            result = self._verifier.check(copy.ref, copy.store, level=one.level)
        except ArchivedError:
            report.not_checkable(copy)
        except BackupError as error:
            report.left += one.overdue
            report.not_checked(f"{copy.ref.backup_id} in {copy.store}", error)
            return not isinstance(error, TransientError)
        else:
            report.add(result, depth=one.level)
        return True
