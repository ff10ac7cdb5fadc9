"""`recoveries`: what recoveries and drills there were, and their reports, from the stores alone."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import line, report, worst
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import BackupError, ConfigurationError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuroca_backup.model.recovery_report import Report
    from neuroca_backup.runtime import Runtime

LATEST = "latest"

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at recoveries, drills, their reports."
)

RecoveryId = Annotated[str, typer.Argument(help="As `recoveries list` prints it, or `latest`.")]


class Form(StrEnum):
    """How a report is written."""

    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


@app.command("list")
def list_recoveries(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List recoveries and drills, the newest first, and how their objectives went."""
    from neuroca_backup.services.recovery import wording
    from neuroca_backup.services.recovery.journal import recoveries

    runtime = _runtime(context)
    refs, silent = recoveries(runtime.stores)
    found: list[Report] = []
    errors: list[BackupError] = []
    for ref in refs:
        try:
            found.append(_report(runtime, ref.recovery_id))
        except BackupError as error:
            report(error)
            errors.append(error)
    if as_json:
        names = {"recovery_id", "drill", "what", "declared_at", "ended_at", "outcome", "complete"}
        names |= {"objectives", "lost_seconds"}
        listed = [one.model_dump(mode="json", include=names) for one in found]
        render.print_json({"recoveries": listed, "unreachable": dict(silent)})
    elif found:
        table = render.table(
            "recovery", "what happened", "back", "objectives", "data lost", "ended"
        )
        for one in found:
            back = sum(source.back_at is not None for source in one.sources)
            goals = ", ".join(f"{goal.objective} {goal.state}" for goal in one.objectives)
            ended = one.outcome or "yes" if one.ended_at else "it goes on"
            lost = wording.seconds(one.lost_seconds)
            row = [one.recovery_id, one.what, f"{back} of {len(one.sources)}", goals, lost, ended]
            table.add_row(*map(_cell, row))
        render.show(table)
    elif not errors:
        render.say("There is no recovery in the stores.")
    for name, why in silent.items():
        line(f"warning: without {name}, which does not answer: {why}")
    if errors:
        raise typer.Exit(worst(errors))


@app.command("show")
def show(
    context: typer.Context,
    recovery_id: RecoveryId,
    *,
    events: Annotated[
        bool, typer.Option("--events", help="Everything that happened, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show how a recovery went, or how it stands."""
    from neuroca_backup.services.recovery import wording
    from neuroca_backup.services.recovery.report import render as rendered

    found = _report(*_chosen(context, recovery_id))
    if as_json:
        typer.echo(rendered(found, form="json"), nl=False)
        return
    _, told = wording.verdict(found)
    render.say(_plain(f"{wording.title(found)} {found.recovery_id}: {told}"))
    for name, value in [*wording.facts(found)[1:], *wording.figures(found)]:
        render.say(_plain(f"  {name}: {value}"))
    tables = wording.tables(found)
    for head, names, rows in [*tables, *([wording.events(found)] if events else [])]:
        if rows:
            render.say(f"\n{head}")
            _show(names, rows)


@app.command("report")
def make_report(
    context: typer.Context,
    recovery_id: RecoveryId,
    *,
    form: Annotated[
        Form, typer.Option("--format", help="Which form.", case_sensitive=False)
    ] = Form.MARKDOWN,
    output: Annotated[
        Path | None, typer.Option(help="New file, never an existing one. Default: print it.")
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Keep it beside the backups, too, in all three forms.")
    ] = False,
) -> None:
    """Write the report of a recovery, from its journal as it is now."""
    from neuroca_backup.services.recovery import report as reports

    runtime, chosen = _chosen(context, recovery_id)
    if output is not None and output.exists():
        raise _exists(output)
    if store:
        journal = runtime.journal(chosen)
        declared = journal.read(tolerant=True).declared
        rpo = reports.rpo_of(runtime.settings, declared.sources)
        found = reports.write(journal, now=datetime.now(UTC), rpo=rpo)
        for name, why in journal.missed.items():
            line(f"warning: {name} did not take it: {why}")
    else:
        found = _report(runtime, chosen)
    text = reports.render(found, form=form.value)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _exists(output) from None
    except OSError as error:
        raise ConfigurationError(
            f"{output} cannot be written: {error.strerror}",
            remedy="Name a new file in a directory that you may write to.",
            value=str(output),
        ) from None
    line(f"{output} was written")


def _runtime(context: typer.Context) -> Runtime:
    return Session.of(context).runtime(Keys.NONE)


def _chosen(context: typer.Context, recovery_id: str) -> tuple[Runtime, str]:
    from neuroca_backup.services.recovery.journal import recoveries

    runtime = _runtime(context)
    if recovery_id != LATEST:
        return runtime, recovery_id
    refs, _ = recoveries(runtime.stores)
    if not refs:
        raise NotFoundError(
            "There is no recovery in the stores", remedy="Trigger the DAG disaster_recovery first."
        )
    return runtime, refs[0].recovery_id


def _report(runtime: Runtime, recovery_id: str) -> Report:
    from neuroca_backup.services.recovery import report as reports

    reading = runtime.journal(recovery_id).read(tolerant=True)
    rpo = reports.rpo_of(runtime.settings, reading.declared.sources)
    return reports.build(reading, now=datetime.now(UTC), rpo=rpo)


def _show(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = render.table(*(name.lower() for name in names))
    for row in rows:
        table.add_row(*map(_cell, row))
    render.show(table)


def _cell(text: str) -> str:
    from rich.markup import escape

    return escape(_plain(text))


def _plain(text: str) -> str:
    """Return text from a store without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _exists(output: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{output} exists already", remedy="Name a new file.", value=str(output)
    )
