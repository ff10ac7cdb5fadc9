"""`test-restore`: restore into a sandbox, look at it, sanitise it, report, and leave nothing."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the command needs

from __future__ import annotations

import select
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.interrupted import clear_dead
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey
from neuroca_backup.cli.reporting import line, report, worst
from neuroca_backup.cli.session import Keys, Session, actor
from neuroca_backup.errors import BackupError, ConfigurationError
from neuroca_backup.model.identity import Component, attempt_token, set_id

if TYPE_CHECKING:
    from neuroca_backup.model.restore_test import RestoreTest
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.restore_tests.choosing import Choice, Request
    from neuroca_backup.services.restore_tests.running import SourceRun


class SandboxKind(StrEnum):
    """Where a test restores to."""

    PROCESS = "process"
    CONNECTION = "connection"


def restore_test(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    *,
    backup_path: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Test this backup alone: its address in a store (s3://..., file:///...), or its "
            "id.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Test the newest verified backup of this source; may be repeated."),
    ] = None,
    component: Annotated[
        list[Component] | None,
        typer.Option(help="Test this component alone; may be repeated.", case_sensitive=False),
    ] = None,
    sandbox_env: Annotated[
        bool,
        typer.Option(
            "--sandbox-env", help="In a sandbox: always so, the runbook's word is accepted."
        ),
    ] = True,
    sandbox: Annotated[
        SandboxKind | None,
        typer.Option(
            help="process: throwaway servers of this machine; connection: the isolated servers of "
            "backup.yaml. Without it what backup.yaml says."
        ),
    ] = None,
    sanitise: Annotated[
        bool,
        typer.Option("--sanitise/--no-sanitise", help="Take personal data out of the copy."),
    ] = True,
    keep: Annotated[
        float,
        typer.Option(
            metavar="HOURS",
            help="Keep the sanitised sandbox so long to look at it, or until Enter is pressed.",
        ),
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option(help="Also write report.md and report.json into this directory."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be tested, and stop.")
    ] = False,
) -> None:
    """Restore the newest backups into a sandbox, compare, ask, read, sanitise, and report.

    Without options it tests the newest complete set of every component. Nothing of the sandbox is
    left: no process, no file, no port. The record goes to every store and the catalog.
    """
    from neuroca_backup.services.restore_tests import choosing

    del sandbox_env
    session = Session.of(context)
    request = choosing.Request(
        components=tuple(component or ()),
        sources=tuple(source or ()),
        backup=backup_path or "",
        sandbox=(sandbox or session.settings.restore_test.sandbox),
        sanitise=sanitise,
        keep=timedelta(hours=keep),
    )
    choosing.check(request, session.settings)
    if output is not None and output.exists() and not output.is_dir():
        raise ConfigurationError(
            f"--output {output} is not a directory", remedy="Name a directory, or a new one."
        )
    runtime = session.runtime(Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file)
    clear_dead(runtime)
    choices = choosing.choose(
        request,
        runtime.settings,
        runtime.stores,
        newest_set=lambda one: runtime.set_to_restore("latest", component=one),
    )
    choosing.require_keepable(request, runtime.settings, choices)
    test = _Test(runtime, request, quiet=as_json)
    if dry_run:
        test.propose(choices)
    else:
        done = test.run(choices)
        _print(done, as_json=as_json, output=output)
    if test.errors:
        raise typer.Exit(worst(test.errors))


@dataclass
class _Test:
    """One run of the command; `errors` are those that did not stop the other sources."""

    runtime: Runtime
    request: Request
    quiet: bool
    test_id: str = field(
        default_factory=lambda: set_id(at=datetime.now(UTC), run=f"command {attempt_token()}")
    )
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    errors: list[BackupError] = field(default_factory=list)

    def propose(self, choices: list[Choice]) -> None:
        """Say what would be tested, and how long it would take."""
        from neuroca_backup.services.forecast import forecast
        from neuroca_backup.services.proposal import Item
        from neuroca_backup.services.restore_tests.running import planned

        for choice in choices:
            try:
                plan = planned(self.runtime.testing, choice, self._restore_id())
            except BackupError as error:
                self._failed(choice, error)
                continue
            told = forecast(self.runtime.catalog, plan.source, plan.plain_size)
            render.proposed(Item(plan.source, plan, to=f"a {self.request.sandbox}", forecast=told))
        render.say("Dry run: nothing was fetched, nothing was started.")

    def run(self, choices: list[Choice]) -> RestoreTest:
        """Test every choice, whatever becomes of the others; record, keep, take down, record."""
        runs: list[SourceRun] = []
        with ExitStack() as kept:
            runs += [self._tested(choice, kept) for choice in choices]
            if self.request.keep and any(run.plan is not None and not run.errors for run in runs):
                self._record(runs)
                self._wait(runs)
        for run in runs:
            for error in run.errors:
                self._failed(run.choice, error)
        return self._record(runs)

    def _tested(self, choice: Choice, kept: ExitStack) -> SourceRun:
        from neuroca_backup.services.restore_tests.running import SourceRun

        self._say(f"\n{choice.source}")
        run = SourceRun(
            testing=self.runtime.testing,
            request=self.request,
            choice=choice,
            restore_id=self._restore_id(),
            told=self._step,
        )
        with ExitStack() as at_once:
            at_once.enter_context(self.runtime.spool.held(run.restore_id))
            at_once.callback(self.runtime.spool.clear, run.restore_id)
            at_once.callback(run.tear_down)
            if run.test() and self.request.keep:
                kept.push(at_once.pop_all())
        return run

    def _wait(self, runs: list[SourceRun]) -> None:
        until = datetime.now(UTC) + self.request.keep
        for run in runs:
            if run.plan is not None and not run.errors:
                for note in self.runtime.testing.seen_at(run.plan, self.request.sandbox, until):
                    line(note)
        deadline = time.monotonic() + self.request.keep.total_seconds()
        if sys.stdin.isatty():
            line("Press Enter to remove it earlier.")
            select.select([sys.stdin], [], [], self.request.keep.total_seconds())
            return
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 60))

    def _record(self, runs: list[SourceRun]) -> RestoreTest:
        from neuroca_backup.model.restore_test import RestoreTest

        test = RestoreTest.model_validate(
            {
                "test_id": self.test_id,
                "actor": actor(),
                "sandbox": str(self.request.sandbox),
                "started_at": self.started_at,
                "finished_at": datetime.now(UTC),
                "keep_hours": self.request.keep.total_seconds() / 3600,
                "sources": tuple(run.result() for run in runs),
            }
        )
        try:
            for place in self.runtime.test_records.record(test):
                self._say(f"The report is at {place}")
        except BackupError as error:
            report(error)
            self.errors.append(error)
        return test

    def _restore_id(self) -> str:
        return "restore-" + set_id(at=self.started_at, run=f"command {attempt_token()}")

    def _failed(self, choice: Choice, error: BackupError) -> None:
        line(f"{choice.source}:")
        report(error)
        self.errors.append(error)

    def _say(self, text: str) -> None:
        if not self.quiet:
            render.say(text)

    def _step(self, step: str, ended: str, seconds: float) -> None:
        if not self.quiet:
            render.step(step, ended, seconds)


def _print(test: RestoreTest, *, as_json: bool, output: Path | None) -> None:
    import json

    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.md").write_text(test.markdown())
        (output / "report.json").write_text(json.dumps(test.summary(), indent=2) + "\n")
    if as_json:
        render.print_json(test.summary())
    else:
        render.say(f"\n{test.markdown()}")
