"""One source's restore by the command: its steps, their output, and the server it goes to."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import line
from neuroca_backup.cli.session import actor
from neuroca_backup.model.identity import attempt_token, set_id
from neuroca_backup.model.retrieval import RetrievalTier

if TYPE_CHECKING:
    from neuroca_backup.cli.interrupted import StandDown
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.tickets import FetchReport, RestorePlan
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.safety import Safety


# The quickest retrieval takes a minute at least.
_LOOK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for of one source."""

    source: str
    backup_id: str | None = None
    before: datetime | None = None
    until: datetime | None = None
    only: tuple[str, ...] = ()
    connection: str | None = None
    directory: Path | None = None
    in_place: bool = False
    allow_older: bool = False
    tier: RetrievalTier = RetrievalTier.STANDARD
    wait_for_retrieval: bool = False

    @property
    def throwaway(self) -> bool:
        """Whether it goes to a server, or a directory, that is removed afterwards."""
        return not (self.in_place or self.directory or self.connection)

    @property
    def destination(self) -> str:
        """Where it goes, in words."""
        if self.in_place:
            return "its own place"
        if self.directory is not None:
            return f"the directory {self.directory}"
        return f"the server of {self.connection}" if self.connection else "a throwaway server"


@dataclass
class Run:
    """One source's restore; `seconds` and `notes` grow with its steps.

    `safety` gives what saves a source before it is overwritten; it needs keys to seal with, which
    no other step does, so it is asked for only then. `stand_down` stops services.
    """

    runtime: Runtime
    safety: Callable[[], Safety]
    stand_down: StandDown
    restore_id: str = field(
        default_factory=lambda: (
            "restore-" + set_id(at=datetime.now(UTC), run=f"command {attempt_token()}")
        )
    )
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    step: str = ""

    def plan(self, order: Order, *, prefer: str | None) -> RestorePlan:
        """Choose the backup."""
        from neuroca_backup.cli.choosing import component_of

        with self._timed("plan"):
            return self.runtime.restores.plan(
                component=component_of(self.runtime, order.source, backup_id=order.backup_id),
                source=order.source,
                restore_id=self.restore_id,
                backup_id=order.backup_id,
                before=order.before,
                until=order.until,
                only=order.only,
                prefer=prefer,
                allow_older=order.allow_older,
            )

    def propose(self, order: Order, plan: RestorePlan, *, save: bool) -> None:
        """Print what will be done, and how long it will take."""
        from neuroca_backup import engines
        from neuroca_backup.services.forecast import forecast
        from neuroca_backup.services.proposal import Item, saved_words

        saved = saved_words(
            replaces=order.in_place, keeps=engines.named(plan.engine).keeps, wanted=save
        )
        told = forecast(self.runtime.catalog, plan.source, plan.plain_size)
        retrieval = self.runtime.retrievals.look(plan).words(order.tier)
        item = Item(
            plan.source,
            plan,
            to=order.destination,
            saved=saved,
            forecast=told,
            retrieval=retrieval,
        )
        render.proposed(item)
        render.say(f"restore {plan.restore_id}")

    def retrieve(
        self, order: Order, plan: RestorePlan, *, pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Have back what lies only in archives; ended meanwhile, repeat the command to go on.

        Raises:
            ArchivedError: Something does, and the order does not say to wait.
        """
        from neuroca_backup.services.retrieval import refusal

        retrievals = self.runtime.retrievals
        found = retrievals.look(plan)
        if not found.objects:
            return
        if not order.wait_for_retrieval:
            raise refusal(plan, found)
        with self._timed("retrieve"):
            wanted = found.objects
            while found.objects:
                found = retrievals.ask(plan, tier=order.tier)
                if found.objects:
                    render.say(
                        f"{wanted - found.objects} of {wanted} are back; "
                        f"{found.words(order.tier)}. Ending the command loses nothing."
                    )
                    pause(_LOOK_AGAIN_SECONDS)
        # How fast a restore is must not be counted from a wait.
        self.seconds.pop("retrieve")
        self.notes.append(f"{wanted} objects were retrieved from an archive first")

    def restore(
        self,
        plan: RestorePlan,
        target: RestoreTarget,
        *,
        label: str,
        dry_run: bool,
        save: bool,
        speed: bool,
    ) -> RestorePlan:
        """Do the steps and record how they ended; return the plan of what was restored.

        A dry run only checks. `speed` is that of `Restores.examine`.
        """
        restores, checklist = self.runtime.restores, self.runtime.checklist
        if dry_run:
            self._noted("preflight", lambda: self._preflight(plan, target))
            # Without a dry run every byte is checked by `fetch`, and need not be read twice.
            self._noted("integrity", lambda: checklist.integrity(plan))
            render.say("Dry run: nothing was fetched, nothing was touched.")
            return plan
        fetched: FetchReport | None = None
        restored = False
        try:
            self._noted("preflight", lambda: self._preflight(plan, target))
            with self._timed("fetch"):
                fetched = report = restores.fetch(plan)
            render.fetched(fetched)
            if fetched.plan.backup_id != plan.backup_id:
                plan = fetched.plan
                for note in plan.passed_over:
                    render.note(note)
                self._noted("preflight", lambda: self._preflight(plan, target))
            if target.replace:
                self._noted("stop", lambda: self.stand_down.stop(plan.component))
                self._noted("save", lambda: self._save(plan, target, wanted=save))
            self._noted("load", lambda: restores.load(plan, report, target))
            self._noted("compare", lambda: restores.compare(plan, target))
            self._noted("publish", lambda: restores.publish(plan, report, target))
            self._noted("examine", lambda: self._examine(plan, target, speed=speed))
            restored = True
        finally:
            restores.record(
                plan,
                actor=actor(),
                target=label,
                started_at=self.started_at,
                seconds=self.seconds,
                fetched=fetched,
                outcome="restored" if restored else f"failed in {self.step}",
                notes=self.notes,
            )
        render.say(
            f"Restored {plan.backup_id} to {label} in {sum(self.seconds.values()):.1f} s, "
            "compared with what was backed up."
        )
        return plan

    def _preflight(self, plan: RestorePlan, target: RestoreTarget) -> Sequence[str]:
        checklist = self.runtime.checklist
        return [
            *checklist.space(plan, target),
            *checklist.versions(plan, target),
            *checklist.state(plan, target),
        ]

    def _examine(self, plan: RestorePlan, target: RestoreTarget, *, speed: bool) -> Sequence[str]:
        return self.runtime.restores.examine(
            plan,
            target,
            questions=self.runtime.questions(plan.source),
            speed=speed,
        )

    def _save(self, plan: RestorePlan, target: RestoreTarget, *, wanted: bool) -> Sequence[str]:
        return self.safety().save(plan, target, at=self.started_at, wanted=wanted)

    def _noted(self, step: str, work: Callable[[], Sequence[str]]) -> None:
        with self._timed(step):
            notes = work()
        self.notes += notes
        for note in notes:
            render.note(note)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        self.step = step
        begun = time.monotonic()
        ended = "failed"
        try:
            yield
            ended = "done"
        finally:
            self.seconds[step] = round(time.monotonic() - begun, 3)
            render.step(step, ended, self.seconds[step])


@contextmanager
def target_of(
    runtime: Runtime, order: Order, plan: RestorePlan
) -> Iterator[tuple[RestoreTarget, str]]:
    """Give the target and its name for the records; refuse a server that is backed up."""
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.services import targets

    if order.in_place:
        own = targets.with_default_port(runtime.endpoint(order.source), plan.engine)
        yield RestoreTarget(own, replace=True), f"{order.source} in place ({own.label})"
        return
    if order.directory is not None:
        endpoint = targets.directory(order.directory, plan.engine)
        _warn_of_readers(runtime, order, endpoint.label)
        yield RestoreTarget(endpoint), f"the directory {endpoint.label}"
        return
    if order.connection is None:
        with _sandbox(runtime, plan) as target:
            yield target, f"sandbox ({target.endpoint.label})"
        return
    targets.require_server(plan.engine, connection=order.connection)
    endpoint = targets.with_default_port(
        runtime.connections.endpoint(order.connection), plan.engine
    )
    notes = targets.refuse_production(
        endpoint, settings=runtime.settings, connections=runtime.connections
    )
    for note in notes:
        line(f"warning: {note}")
    _warn_of_readers(runtime, order, endpoint.label)
    yield RestoreTarget(endpoint), f"{order.connection} ({endpoint.label})"


def _warn_of_readers(runtime: Runtime, order: Order, place: str) -> None:
    """Say that restricted data goes to a place that is not its own; no restore is refused for it.

    On a bad day nothing but a person's access may stand between them and a restore.
    """
    from neuroca_backup.services.classification import Act, allows

    source = runtime.settings.source(order.source)
    classification = "" if source is None else source.classification
    if not allows(classification, Act.RESTORE_ELSEWHERE_UNSANITISED).allowed:
        line(
            f"warning: {order.source} is {classification or 'not in backup.yaml'}: whoever may "
            f"read {place} may then read what is restricted."
        )


@contextmanager
def _sandbox(runtime: Runtime, plan: RestorePlan) -> Iterator[RestoreTarget]:
    from neuroca_backup import sandbox
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.services import targets

    runtime.spool.require_free(0)  # makes it private, which the sandbox would not
    root = runtime.spool.sandbox(plan.restore_id)
    with sandbox.running(targets.sandbox_kind(plan.engine), root) as endpoint:
        if endpoint.directory is None:
            render.say(f"A throwaway server runs at {endpoint.label}, its files are below {root}.")
        yield RestoreTarget(endpoint)
