"""A whole test in one process, step by step, for the command; Airflow has a task for each step."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import BackupError, NotFoundError
from neuroca_backup.model.restore_test import PASSED, Sanitised, SourceTest
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.services.restore_tests.choosing import Choice, Request
from neuroca_backup.services.restore_tests.testing import Testing

log = logging.getLogger(__name__)

Told = Callable[[str, str, float], None]  # a step, how it ended, the seconds it took


@dataclass
class SourceRun:
    """The test of one source; what is found grows with its steps.

    `told` hears of every step. `errors` are those of this source, the first the one that failed it.
    """

    testing: Testing
    request: Request
    choice: Choice
    restore_id: str
    told: Told = lambda _step, _ended, _seconds: None
    errors: list[BackupError] = field(default_factory=list)
    plan: RestorePlan | None = None
    _started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _seconds: dict[str, float] = field(default_factory=dict)
    _notes: list[str] = field(default_factory=list)
    _step: str = ""
    _failed: str = ""
    _fetched: FetchReport | None = None
    _version: tuple[str, str] = ("", "")
    _records: int = 0
    _sanitised: Sanitised = "not reached"
    _removed: bool = False

    def test(self) -> bool:
        """Do every step but the last; return whether all passed. No error leaves this method."""
        self._notes += self.choice.notes
        try:
            self.plan = plan = planned(self.testing, self.choice, self.restore_id)
            self._steps(plan)
        except BackupError as error:
            self.errors.append(error)
            self._failed = self._step or "plan"
            return False
        return True

    def tear_down(self) -> None:
        """Take the sandbox down, whatever became of the test."""
        if self.plan is None:
            self._removed = True
            return
        try:
            with self._timed("tear_down"):
                self._notes += self.testing.tear_down(
                    self.plan, self.request.sandbox, loaded="load" in self._seconds
                )
            self._removed = True
        except BackupError as error:
            self.errors.append(error)
            self._failed = self._failed or "tear_down"

    def result(self) -> SourceTest:
        """Return what was found."""
        plan, fetched = self.plan, self._fetched
        tested = fetched.plan if fetched is not None else plan
        outcome = PASSED
        if self._failed:
            outcome = "not tested" if plan is None else f"failed in {self._failed}"
        return SourceTest(
            restore_id=self.restore_id,
            component=self.choice.component,
            source=self.choice.source,
            backup_id=tested.backup_id if tested else self.choice.backup_id,
            taken_at=datetime.fromisoformat(tested.taken_at) if tested else None,
            engine=tested.engine if tested else "",
            source_version=self._version[0],
            server_version=self._version[1],
            stores=stores_of(fetched),
            outcome=outcome,
            problem=str(self.errors[0]) if self.errors else "",
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            seconds=dict(self._seconds),
            size=fetched.size if fetched else 0,
            records=self._records,
            sanitised=self._sanitised,
            removed=self._removed,
            notes=tuple(self._notes),
        )

    def _steps(self, plan: RestorePlan) -> None:
        testing, kind = self.testing, self.request.sandbox
        restores = testing.restores
        with self._timed("sandbox"):
            testing.start(plan, kind)
            target = testing.target(plan, kind)
        with self._timed("preflight"):
            self._notes += testing.preflight(plan, target)
        with self._timed("fetch"):
            self._fetched = fetched = restores.fetch(plan)
        self._notes += fetched.fallbacks
        with self._timed("load"):
            self._notes += testing.load(plan, fetched, target, kind)
        with self._timed("compare"):
            self._notes += restores.compare(plan, target)
        with self._timed("publish"):
            self._notes += restores.publish(plan, fetched, target)
        with self._timed("examine"):
            self._notes += testing.examine(plan, target)
        self._look(plan, target)

    def _look(self, plan: RestorePlan, target: RestoreTarget) -> None:
        manifest = self.testing.restores.fetched_manifest(plan)
        self._version = (manifest.dump.server_version, self.testing.version(plan, target))
        with self._timed("sample"):
            self._records = self.testing.sample(plan, target)
        with self._timed("sanitise"):
            done = self.testing.sanitise(plan, target, wanted=self.request.sanitise)
        self._sanitised = done.outcome
        self._notes += done.notes

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self._step = step
        begun = time.monotonic()
        ended = "failed"
        try:
            yield
            ended = "done"
        finally:
            self._seconds[step] = round(time.monotonic() - begun, 3)
            self.told(step, ended, self._seconds[step])


def planned(testing: Testing, choice: Choice, restore_id: str) -> RestorePlan:
    """Return the plan of a choice; raises why there is none."""
    if choice.problem:
        raise NotFoundError(
            choice.problem, remedy="Back the source up; its test follows the newest complete set."
        )
    return testing.restores.plan(
        component=choice.component,
        source=choice.source,
        restore_id=restore_id,
        backup_id=choice.backup_id or None,
        prefer=choice.prefer,
    )


def stores_of(fetched: FetchReport | None) -> tuple[str, ...]:
    """Return the stores that gave bytes; of a backup without any the one that was to give them."""
    if fetched is None:
        return ()
    used = tuple(name for name, size in fetched.bytes_by_store.items() if size)
    return used or fetched.plan.stores[:1]
