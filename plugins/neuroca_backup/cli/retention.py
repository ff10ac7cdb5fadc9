"""`retention` and `hold`: what is deleted and when, taking it back, keeping it."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import ExitCode, line, report, worst
from neuroca_backup.cli.session import Keys, Session, actor
from neuroca_backup.errors import BackupError, ConfigurationError
from neuroca_backup.model import quantity
from neuroca_backup.model.identity import Component, is_part_of

if TYPE_CHECKING:
    from neuroca_backup.services.retention.applying import Retention
    from neuroca_backup.services.retention.planning import Plan

# Who takes a backup back wants to use it; without an end nobody would remember the hold.
_HELD_DAYS = 30

retention = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Delete what has expired, or take it back."
)
hold = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Keep backups from being deleted."
)

BackupId = Annotated[str, typer.Argument(help="As `list` prints it.")]


@retention.command("run")
def run(
    context: typer.Context,
    *,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only show it.")] = False,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Also where more expires at once than allowed.")
    ] = False,
    component: Annotated[
        Component | None, typer.Option(help="Only this component.", case_sensitive=False)
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only this source, and its parts.")] = None,
    all_backups: Annotated[
        bool, typer.Option("--all", help="Show what stays, too, with the reason.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what expires and what is deleted; with --apply, do it.

    A source of which something is unknown is left alone, and the exit code says so.
    Leftovers are swept only when no component or source is chosen.
    """
    if confirm and not apply:
        raise ConfigurationError("--confirm needs --apply", remedy="Add it, or leave both away.")
    if as_json and apply:
        raise ConfigurationError(
            "--json shows the plan, and --apply carries it out", remedy="Leave one of them away."
        )
    service = _service(context)
    chosen = [
        (one, name)
        for one, name in service.sources()
        if component in {None, one}
        and (source is None or name == source or is_part_of(name, source))
    ]
    plans = [service.plan(*one) for one in chosen]
    if as_json:
        render.print_json({"plans": [_json(one) for one in plans]})
    else:
        for plan in plans:
            _show(plan, everything=all_backups)
    if not apply:
        uncertain = any(plan.unknown or plan.excess for plan in plans)
        if not as_json:
            render.say("Nothing was touched: this was a dry run. Add --apply to do it.")
        raise typer.Exit(ExitCode.FAILED if uncertain else ExitCode.DONE)
    errors = _apply(service, chosen, confirmed=confirm)
    if component is None and source is None:
        _sweep(service)
    if errors:
        raise typer.Exit(worst(errors))


@retention.command("undelete")
def undelete(
    context: typer.Context,
    backup_id: BackupId,
    *,
    reason: Annotated[str, typer.Option(help="Why it is taken back.")] = "taken back",
    days: Annotated[
        int, typer.Option(min=1, max=36500, help="How long it is then held.")
    ] = _HELD_DAYS,
) -> None:
    """Take back an expired backup, with all that it needs, before it is deleted.

    It is then held for a while, so that it does not expire again the next day.
    """
    runtime = Session.of(context).runtime(Keys.NONE)
    from neuroca_backup.cli.choosing import look_up

    ref = look_up(runtime, backup_id).ref
    until = datetime.now(UTC) + timedelta(days=days)
    taken, errors = runtime.retention.undelete(ref, reason=reason, until=until, actor=actor())
    for one in taken:
        render.say(f"{one.backup_id} is taken back.")
    render.say(f"{backup_id} is held until {until.isoformat(timespec='seconds')}.")
    for error in errors:
        report(error)
    if errors:
        line("Repeat this once that store answers; until then nothing of it is deleted.")
        raise typer.Exit(worst(errors))


@hold.command("set")
def set_hold(
    context: typer.Context,
    backup_id: BackupId,
    *,
    reason: Annotated[str, typer.Option(help="Why it must not be deleted.")],
    until: Annotated[
        str | None, typer.Option(help="Until when, with an offset; without, until released.")
    ] = None,
) -> None:
    """Keep a backup, and all that it needs, from being deleted."""
    runtime = Session.of(context).runtime(Keys.NONE)
    from neuroca_backup.cli.choosing import look_up

    if not reason.strip():
        raise ConfigurationError("--reason is empty", remedy="Say why it must not be deleted.")
    end = None if until is None else _moment(until)
    found = look_up(runtime, backup_id)
    runtime.retention.hold(found.ref, reason=reason, until=end, actor=actor())
    render.say(f"{backup_id} is held {_until(end)}.")
    if found.expired:
        render.say(
            "It has expired and nothing chooses it, but it is not deleted. "
            f"`neuroca-backup retention undelete {backup_id}` takes it back."
        )


@hold.command("release")
def release(context: typer.Context, backup_id: BackupId) -> None:
    """End a hold; the backup then goes when its age says so."""
    runtime = Session.of(context).runtime(Keys.NONE)
    from neuroca_backup.cli.choosing import look_up

    ref = look_up(runtime, backup_id).ref
    if not runtime.retention.release(ref, actor=actor()):
        line(f"{backup_id} was not on hold")
        raise typer.Exit(ExitCode.FAILED)
    render.say(f"{backup_id} is not on hold any more.")


@hold.command("list")
def list_holds(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the backups on hold, those whose hold is over, too."""
    found = list(_service(context).held())
    now = datetime.now(UTC)
    if as_json:
        listed = [one.model_dump(mode="json") | {"stands": one.stands(now)} for _, one in found]
        render.print_json({"holds": listed})
        return
    table = render.table("backup", "by", "since (UTC)", "until", "reason")
    for ref, one in found:
        over = "" if one.stands(now) else " (over)"
        since = one.held_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(ref.backup_id, one.actor, since, f"{_until(one.until)}{over}", one.reason)
    if found:
        render.show(table)
    else:
        render.say("No backup is on hold.")


def _service(context: typer.Context) -> Retention:
    return Session.of(context).runtime(Keys.NONE).retention


def _apply(
    service: Retention, chosen: Sequence[tuple[Component, str]], *, confirmed: bool
) -> Sequence[BackupError]:
    """Carry out the plan of each source, of the others too where one fails; return the errors."""
    errors: list[BackupError] = []
    for component, source in chosen:
        try:
            done = service.apply(component, source, confirmed=confirmed, actor=actor())
        except BackupError as error:
            report(error)
            errors.append(error)
            continue
        render.say(
            f"{component}/{source}: {len(done.expired)} expired, {len(done.erased)} deleted "
            f"({quantity.size(done.size)} in each store), {len(done.taken_back)} taken back."
        )
    return errors


def _show(plan: Plan, *, everything: bool) -> None:
    from neuroca_backup.services.retention.planning import Fate

    counts = ", ".join(f"{len(plan.of(fate))} {fate}" for fate in Fate if plan.of(fate))
    render.say(f"{plan.component}/{plan.source}: {counts or 'no backups'}")
    for sentence in plan.unknown:
        render.say(f"  NOTHING IS DELETED, because this is not known: {sentence}")
    if plan.excess:
        render.say(f"  NEEDS --confirm: {plan.excess}")
    table = render.table("  backup", "what", "why")
    for one in plan.decisions:
        if everything or one.fate is not Fate.KEEP:
            table.add_row(f"  {one.record.backup_id}", one.fate.value, one.reason)
    if table.row_count:
        render.show(table)


def _json(plan: Plan) -> dict[str, object]:
    return {
        "component": plan.component.value,
        "source": plan.source,
        "unknown": list(plan.unknown),
        "excess": plan.excess or None,
        "decisions": [
            {
                "backup_id": one.record.backup_id,
                "fate": one.fate.value,
                "reason": one.reason,
                "size": one.record.size,
            }
            for one in plan.decisions
        ],
    }


def _sweep(service: Retention) -> None:
    swept = service.sweep(actor=actor())
    render.say(
        f"Swept: {swept.objects:,} objects ({quantity.size(swept.size)}), {swept.uploads:,} "
        f"unfinished uploads, {swept.sets:,} sets."
    )
    for stranger in swept.strangers:
        render.say(f"  not of this program, left alone: {stranger}")
    if swept.strange > len(swept.strangers):
        render.say(f"  and {swept.strange - len(swept.strangers):,} more")
    for sentence in swept.skipped:
        render.say(f"  not swept: {sentence}")


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigurationError(
            f"--until {text!r} is not a time with an offset",
            remedy="Write it like 2027-01-31T00:00:00Z.",
            value=text,
        )
    if found <= datetime.now(UTC):
        raise ConfigurationError(
            f"--until {text} is over", remedy="Write a time that is to come.", value=text
        )
    return found


def _until(end: datetime | None) -> str:
    return "until it is released" if end is None else f"until {end.isoformat(timespec='seconds')}"
