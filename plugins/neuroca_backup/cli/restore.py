"""`restore`: from the stores into a server, step by step; the spool is always left empty."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey, StoreName
from neuroca_backup.cli.reporting import line
from neuroca_backup.cli.session import Keys, Session, actor
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import attempt_token, set_id

if TYPE_CHECKING:
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.tickets import FetchReport, RestorePlan
    from neuroca_backup.runtime import Runtime


def restore(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A source of backup.yaml or of the stores.")],
    *,
    backup_id: Annotated[
        str | None, typer.Option(help="This backup; without it the newest verified one.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The newest verified one from before this time, such as 2026-11-23T02:00Z.",
        ),
    ] = None,
    target_connection: Annotated[
        str | None, typer.Option(metavar="ID", help="Restore to the server of this connection.")
    ] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Restore to a throwaway server on this machine.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the data of the running source.")
    ] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Needed by --in-place: the source's name.")
    ] = None,
    store: Annotated[
        StoreName | None, typer.Option(help="Read this store first; others only if it fails.")
    ] = None,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stop after the preflight checks.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Keep the sandbox until Enter is pressed.")
    ] = True,
) -> None:
    """Restore SOURCE: to another server, a sandbox, or in place.

    Every byte is checked before the target is touched, and what was loaded is compared with what
    was backed up before it takes its final place.
    """
    order = _Order(source, backup_id, _time(before), target_connection, in_place=in_place)
    if sum((target_connection is not None, sandbox, in_place)) != 1:
        raise typer.BadParameter("Give --target-connection, --sandbox or --in-place: one of them.")
    if in_place and confirm != source:
        raise typer.BadParameter(
            f"--in-place replaces the data of the running {source}; add --confirm {source}."
        )
    if backup_id is not None and before is not None:
        raise typer.BadParameter("Give --backup-id or --before, not both.")
    if backup_id is not None and not backup_id.endswith(f"-{source}"):
        raise typer.BadParameter(f"{backup_id} is not a backup of {source}.")
    runtime = Session.of(context).runtime(
        Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file
    )
    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    run = _Run(runtime)
    try:
        plan = run.plan(order, prefer=store)
        render.plan(plan)
        with _target(runtime, order, plan) as (target, label):
            run.restore(plan, target, label=label, dry_run=dry_run)
            if sandbox and not dry_run:
                _keep(target, wait=wait)
    finally:
        runtime.restores.clear(run.restore_id)


@dataclass(frozen=True, slots=True)
class _Order:
    """What was asked for."""

    source: str
    backup_id: str | None
    before: datetime | None
    connection: str | None
    in_place: bool


@dataclass
class _Run:
    """One restore; `seconds` and `notes` grow with its steps."""

    runtime: Runtime
    restore_id: str = field(
        default_factory=lambda: (
            "restore-" + set_id(at=datetime.now(UTC), run=f"command {attempt_token()}")
        )
    )
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    step: str = ""

    def plan(self, order: _Order, *, prefer: str | None) -> RestorePlan:
        """Choose the backup."""
        from neuroca_backup.cli.choosing import component_of

        with self._timed("plan"):
            return self.runtime.restores.plan(
                component=component_of(self.runtime, order.source, backup_id=order.backup_id),
                source=order.source,
                restore_id=self.restore_id,
                backup_id=order.backup_id,
                before=order.before,
                prefer=prefer,
            )

    def restore(
        self, plan: RestorePlan, target: RestoreTarget, *, label: str, dry_run: bool
    ) -> None:
        """Do the steps and record how they ended; a dry run ends after the first."""
        restores = self.runtime.restores
        if dry_run:
            self._noted("preflight", lambda: restores.preflight(plan, target))
            render.say("Dry run: nothing was fetched, nothing was touched.")
            return
        fetched: FetchReport | None = None
        restored = False
        try:
            self._noted("preflight", lambda: restores.preflight(plan, target))
            with self._timed("fetch"):
                fetched = report = restores.fetch(plan)
            render.fetched(fetched)
            self._noted("load", lambda: restores.load(plan, report, target))
            self._noted("compare", lambda: restores.compare(plan, target))
            self._noted("publish", lambda: restores.publish(plan, report, target))
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
def _target(
    runtime: Runtime, order: _Order, plan: RestorePlan
) -> Iterator[tuple[RestoreTarget, str]]:
    """Give the target and its name for the records; refuse a server that is backed up."""
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.services import targets

    if order.in_place:
        own = targets.with_default_port(runtime.endpoint(order.source), plan.engine)
        yield RestoreTarget(own, replace=True), f"{order.source} in place ({own.label})"
        return
    if order.connection is None:
        with _sandbox(runtime, plan) as target:
            yield target, f"sandbox ({target.endpoint.label})"
        return
    endpoint = targets.with_default_port(
        runtime.connections.endpoint(order.connection), plan.engine
    )
    notes = targets.refuse_production(
        endpoint, settings=runtime.settings, connections=runtime.connections
    )
    for note in notes:
        line(f"warning: {note}")
    yield RestoreTarget(endpoint), f"{order.connection} ({endpoint.label})"


@contextmanager
def _sandbox(runtime: Runtime, plan: RestorePlan) -> Iterator[RestoreTarget]:
    from neuroca_backup import sandbox
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.services import targets

    runtime.spool.require_free(0)  # makes it private, which the sandbox would not
    root = runtime.spool.root / f"sandbox-{plan.restore_id}"
    with sandbox.running(targets.sandbox_kind(plan.engine), root) as endpoint:
        render.say(f"A throwaway server runs at {endpoint.label}, its files are below {root}.")
        yield RestoreTarget(endpoint)


def _keep(target: RestoreTarget, *, wait: bool) -> None:
    if not wait:
        render.say("The sandbox is removed.")
        return
    endpoint = target.endpoint
    render.say(
        f"The sandbox is kept: {endpoint.label}, user {endpoint.user}; the password is in its "
        "servers.json. Press Enter to remove it."
    )
    sys.stdin.readline()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        time_ = None
    if time_ is None or time_.tzinfo is None:
        raise ConfigurationError(
            f"--before {text!r} is not a time with an offset",
            remedy="Write it like 2026-11-23T02:00:00Z or 2026-11-23T04:00:00+02:00.",
            value=text,
        )
    return time_
