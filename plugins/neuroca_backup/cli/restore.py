"""`restore`: from the stores into servers, step by step; the spool is always left empty."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey, StoreName
from neuroca_backup.cli.reporting import report, worst
from neuroca_backup.cli.restore_run import Order, Run, target_of
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import BackupError, ConfigurationError, NotFoundError
from neuroca_backup.model.identity import Component

if TYPE_CHECKING:
    from neuroca_backup.engines import RestoreTarget
    from neuroca_backup.model.backup_set import BackupSet
    from neuroca_backup.runtime import Runtime

_LATEST = "latest"


def restore(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(help="A source of backup.yaml or of the stores.")
    ] = None,
    *,
    whole_set: Annotated[
        str | None,
        typer.Option(
            "--set",
            metavar="SET_ID",
            help="Instead of SOURCE every source of this backup set, one after another; "
            "latest: the newest complete one.",
        ),
    ] = None,
    component: Annotated[
        Component, typer.Option(help="Of which component --set is.", case_sensitive=False)
    ] = Component.DATABASE,
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
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="The state of exactly this moment, between a full backup and a later "
            "incremental one.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PART",
            help="Only this part, in the engine's words (a database, a collection, ...); "
            "may be repeated.",
        ),
    ] = None,
    target_connection: Annotated[
        str | None, typer.Option(metavar="ID", help="Restore to the server of this connection.")
    ] = None,
    target_directory: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Restore files below this directory of this machine, absent or empty.",
        ),
    ] = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Restore to a throwaway server on this machine.")
    ] = False,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Replace the data of the running source.")
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Needed by --in-place: the source's name, or the set's id."
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save/--no-save",
            help="Back up first what --in-place overwrites; --no-save if the source is dead.",
        ),
    ] = True,
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
    """Restore SOURCE or a set, to a server, sandbox or in place.

    Every byte is checked before the target is touched, and what was loaded is compared with what
    was backed up before it takes its final place. Of a set, a source that fails does not stop the
    others.
    """
    order = Order(
        source or "",
        backup_id=backup_id,
        before=_time("--before", before),
        until=_time("--until", until),
        only=tuple(only or ()),
        connection=target_connection,
        directory=target_directory,
        in_place=in_place,
    )
    given = (target_connection is not None, target_directory is not None, sandbox, in_place)
    if sum(given) != 1:
        raise typer.BadParameter(
            "Give --target-connection, --target-directory, --sandbox or --in-place: one of them."
        )
    if (source is None) == (whole_set is None):
        raise typer.BadParameter("Give SOURCE or --set: one of them.")
    if whole_set is None:
        _check_choice(order)
        _require_confirmed(order, order.source, confirm)
    else:
        _check_set(order)
        if whole_set != _LATEST:
            _require_confirmed(order, whole_set, confirm)
    session = Session.of(context)
    runtime = session.runtime(Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file)
    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    # A recovery key may be what opens backups; what is saved is sealed for every recipient.
    saver = session.runtime(Keys.SEAL) if in_place and save else runtime
    way = _Way(runtime, saver, prefer=store, dry_run=dry_run, save=save)
    with ExitStack() as servers:
        if whole_set is None:
            kept = [way.restore(order, servers)]
        else:
            found = runtime.set_to_restore(whole_set, component=component)
            _require_confirmed(order, found.set_id, confirm)
            kept = _restore_set(found, order, way, servers)
        if sandbox and not dry_run:
            _keep(kept, wait=wait)
    if whole_set is not None and way.errors:
        raise typer.Exit(worst(way.errors))


@dataclass
class _Way:
    """How sources are restored; `errors` are those of a set's sources."""

    runtime: Runtime
    saver: Runtime
    prefer: StoreName | None
    dry_run: bool
    save: bool

    def __post_init__(self) -> None:
        self.errors: list[BackupError] = []

    def restore(self, order: Order, servers: ExitStack) -> RestoreTarget:
        """Restore one source; a throwaway server for it lives as long as `servers`."""
        run = Run(self.runtime, safety=lambda: self.saver.safety)
        try:
            plan = run.plan(order, prefer=self.prefer)
            render.plan(plan)
            target, label = servers.enter_context(target_of(self.runtime, order, plan))
            run.restore(plan, target, label=label, dry_run=self.dry_run, save=self.save)
            return target
        finally:
            self.runtime.restores.clear(run.restore_id)


def _restore_set(
    found: BackupSet, order: Order, way: _Way, servers: ExitStack
) -> list[RestoreTarget]:
    """Restore every source of a set, whatever becomes of the others; return their servers."""
    render.say(f"Set {found.set_id} of {found.component}: {', '.join(found.sources)}")
    kept = []
    for source, member in found.members.items():
        render.say(f"\n{source}")
        try:
            one = replace(order, source=source, backup_id=member.backup_id)
            kept.append(way.restore(one, servers))
        except BackupError as error:
            report(error)
            way.errors.append(error)
    for source in found.missing:
        lost = NotFoundError(
            f"The set {found.set_id} has no backup of {source}",
            remedy="Restore that source by itself, or choose an older set.",
            source=source,
        )
        report(lost)
        way.errors.append(lost)
    wanted = len(found.sources)
    render.say(f"\n{wanted - len(way.errors)} of {wanted} sources of {found.set_id} are done.")
    return kept


def _require_confirmed(order: Order, what: str, confirm: str | None) -> None:
    if order.in_place and confirm != what:
        raise typer.BadParameter(
            f"--in-place replaces the data of the running {what}; add --confirm {what}."
        )


def _check_choice(order: Order) -> None:
    if order.backup_id is not None and order.before is not None:
        raise typer.BadParameter("Give --backup-id or --before, not both.")
    if order.until is not None and order.before is not None:
        raise typer.BadParameter("Give --until or --before, not both.")
    if order.backup_id is not None and not order.backup_id.endswith(f"-{order.source}"):
        raise typer.BadParameter(f"{order.backup_id} is not a backup of {order.source}.")


def _check_set(order: Order) -> None:
    given = {
        "--backup-id": order.backup_id,
        "--before": order.before,
        "--until": order.until,
        "--only": order.only,
        "--target-connection": order.connection,
        "--target-directory": order.directory,
    }
    for option, value in given.items():
        if value:
            raise typer.BadParameter(f"{option} is for one source; it does not go with --set.")


def _keep(targets: list[RestoreTarget], *, wait: bool) -> None:
    if not wait or not targets:
        render.say("The sandbox is removed.")
        return
    for target in targets:
        endpoint = target.endpoint
        if endpoint.directory is not None:
            render.say(f"The files are kept below {endpoint.label}, which only you may read.")
            continue
        render.say(
            f"The sandbox is kept: {endpoint.label}, user {endpoint.user}; the password is in its "
            "servers.json."
        )
    render.say("Press Enter to remove it.")
    sys.stdin.readline()


def _time(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError:
        time_ = None
    if time_ is None or time_.tzinfo is None:
        raise ConfigurationError(
            f"{option} {text!r} is not a time with an offset",
            remedy="Write it like 2026-11-23T02:00:00Z or 2026-11-23T04:00:00+02:00.",
            value=text,
        )
    return time_
