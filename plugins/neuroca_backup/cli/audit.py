"""`audit`: who did what to which backup; and whether the trail that says so is whole."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from datetime import UTC
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.make import StoreName
from neuroca_backup.cli.reporting import ExitCode, line
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import BackupError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.audit import Line
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.audit_check import AuditReport

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Show the audit trail, and whether anybody has changed it.",
)

Place = Annotated[
    StoreName | None, typer.Option(help="Of this store; without it the first that answers.")
]


@app.command("list")
def list_events(
    context: typer.Context,
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    action: Annotated[str | None, typer.Option(help="Only this action, e.g. restore.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only about this backup or source.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only of whom this is a part.")] = None,
    store: Place = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what was done, the newest first."""
    chosen = (
        found
        for found in _lines(Session.of(context).runtime(Keys.NONE), store)
        if action in {None, found.event.action}
        and subject in {None, found.event.subject}
        and (actor is None or actor in found.event.actor)
    )
    found = list(islice(chosen, limit))
    if as_json:
        render.print_json({"events": [_json(one) for one in found]})
        return
    table = render.table("line", "when (UTC)", "who", "what", "subject", "result", "details")
    for one in found:
        event = one.event
        table.add_row(
            str(one.sequence),
            event.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            event.actor,
            event.action,
            event.subject,
            event.result,
            ", ".join(f"{name}={value}" for name, value in event.details.items()),
        )
    if found:
        render.show(table)
    else:
        render.say("No such event is in the audit trail.")


@app.command()
def verify(
    context: typer.Context,
    *,
    against: Annotated[
        Path | None, typer.Option(help="An earlier export: all its lines must still be there.")
    ] = None,
    retired: Annotated[
        list[str] | None,
        typer.Option(metavar="CHAIN", help="A chain known to be gone with its store; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Read every line of every store, and name those that were changed, removed or forged.

    Exits with 4 where the trail was changed, with 1 where a store lacks events that another
    has (`audit sync` adds them), with 3 where something could not be read.
    """
    from neuroca_backup.services.audit_check import check

    runtime = Session.of(context).runtime(Keys.NONE)
    report = check(runtime.stores, runtime.catalog, retired=retired or (), against=against)
    if as_json:
        render.print_json(_report(report))
    else:
        _show(report)
    raise typer.Exit(_exit_code(report))


@app.command()
def export(
    context: typer.Context,
    *,
    output: Annotated[Path, typer.Option(help="New file: one line of the trail on each line.")],
    store: Place = None,
) -> None:
    """Write the whole trail of one store to a file, to keep where nobody can change it.

    `audit verify --against` later proves that nothing of it was changed or removed.
    """
    from neuroca_backup.services import audit_check

    runtime = Session.of(context).runtime(Keys.NONE)
    name, chosen = _store(runtime, store)
    try:
        out = output.open("x", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{output} cannot be made: {error.strerror}",
            remedy="Name a new file in a directory that you may write to.",
            value=str(output),
        ) from None
    try:
        with out:
            count = audit_check.export(chosen, out)
    except BaseException:
        output.unlink(missing_ok=True)
        raise
    runtime.audit.note("audit export", name, details={"lines": count, "to": str(output)})
    render.say(f"{output}: {count:,} lines of {name}.")


@app.command()
def sync(context: typer.Context) -> None:
    """Give every store the events that others have and it missed while it was down."""
    done = Session.of(context).runtime(Keys.NONE).audit.sync()
    for name, count in done.added.items():
        render.say(f"{name}: {count:,} events added.")
    for name, why in done.problems.items():
        line(f"problem: {name}: {why}")
    if done.problems:
        raise typer.Exit(ExitCode.TRY_AGAIN)


def _lines(runtime: Runtime, store: StoreName | None) -> Iterator[Line]:
    from neuroca_backup.services.audit import newest

    return newest(_store(runtime, store)[1])


def _store(runtime: Runtime, wanted: StoreName | None) -> tuple[str, Any]:
    """Return the store `wanted`, or the first that answers."""
    if wanted is not None:
        if wanted.value not in runtime.stores:
            raise typer.BadParameter(f"backup.yaml has no store {wanted.value}.")
        return wanted.value, runtime.stores[wanted.value]
    errors: list[BackupError] = []
    for name, store in runtime.stores.items():
        try:
            store.check()
        except BackupError as error:
            line(f"warning: {error}")
            errors.append(error)
        else:
            return name, store
    raise errors[0]


def _show(report: AuditReport) -> None:
    for name, head in report.heads.items():
        render.say(f"{name}: chain {head.chain}, {head.sequence:,} lines, the last {head.digest}")
    for finding in report.findings:
        render.say(f"CHANGED {finding}")
    for name, places in report.lacking.items():
        render.say(f"{name} lacks events that others have: {', '.join(places)}")
    for name, why in report.unknown.items():
        line(f"not known: {name}: {why}")
    if report.sound:
        render.say("Every line is as it was written, and every store has every event.")
    elif not report.heads and not report.findings:
        line("No store has an audit trail: nothing was proven.")
    elif report.lacking:
        line("Run `neuroca-backup audit sync`, then verify again.")


def _exit_code(report: AuditReport) -> ExitCode:
    if report.findings:
        return ExitCode.DAMAGED
    if report.unknown:
        return ExitCode.TRY_AGAIN
    return ExitCode.DONE if report.sound else ExitCode.FAILED


def _report(report: AuditReport) -> dict[str, object]:
    return {
        "sound": report.sound,
        "heads": {name: head.model_dump() for name, head in report.heads.items()},
        "findings": [
            {"store": one.store, "key": one.key, "problem": one.problem} for one in report.findings
        ],
        "lacking": report.lacking,
        "unknown": report.unknown,
    }


def _json(found: Line) -> dict[str, object]:
    return {"line": found.sequence, **found.event.model_dump(mode="json")}
