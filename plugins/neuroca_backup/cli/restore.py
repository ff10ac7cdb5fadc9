"""`restore`: the options of the command, checked before anything is done."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli.interrupted import clear_dead
from neuroca_backup.cli.make import PassphraseFile, RecoveryKey, StoreName
from neuroca_backup.cli.reporting import worst
from neuroca_backup.cli.restore_many import Way
from neuroca_backup.cli.restore_run import Order
from neuroca_backup.cli.session import AsOf, Keys, Session
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import EVERYTHING, Component
from neuroca_backup.model.retrieval import RetrievalTier

_LATEST = "latest"


def restore(  # noqa: PLR0913 - one argument an option
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(help="A source of backup.yaml or of the stores; all: every one."),
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
            metavar="NAME",
            help="Needed by --in-place: the source's name, the set's id, or all.",
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
    allow_older: Annotated[
        bool,
        typer.Option(
            "--allow-older",
            help="Where no store has the backup whole, restore the newest older one that is good.",
        ),
    ] = False,
    retrieval_tier: Annotated[
        RetrievalTier,
        typer.Option(
            help="How urgently what lies only in an archive is retrieved.", case_sensitive=False
        ),
    ] = RetrievalTier.STANDARD,
    wait_for_retrieval: Annotated[
        bool,
        typer.Option(
            "--wait-for-retrieval",
            help="Retrieve what lies only in an archive, which is charged for, and wait for it; "
            "repeated, the command goes on waiting.",
        ),
    ] = False,
    as_of: AsOf = None,
    recovery_key: RecoveryKey = None,
    passphrase_file: PassphraseFile = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only plan and check, say how long it will take, and stop."),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Keep the sandbox until Enter is pressed.")
    ] = True,
) -> None:
    """Restore to a server, a directory, a sandbox or in place.

    Every byte is checked before the target is touched, and what was loaded is compared with what
    was backed up before it takes its final place. Of several sources, one that fails does not stop
    the others.
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
        allow_older=allow_older,
        tier=retrieval_tier,
        wait_for_retrieval=wait_for_retrieval,
    )
    given = (target_connection is not None, target_directory is not None, sandbox, in_place)
    if sum(given) != 1:
        raise typer.BadParameter(
            "Give --target-connection, --target-directory, --sandbox or --in-place: one of them."
        )
    if (source is None) == (whole_set is None):
        raise typer.BadParameter("Give SOURCE or --set: one of them.")
    _check_what(order, whole_set, confirm)
    session = Session.of(context)
    runtime = session.runtime(
        Keys.OPEN, recovery_key=recovery_key, passphrase_file=passphrase_file, as_of=as_of
    )
    if store is not None and store.value not in runtime.stores:
        raise typer.BadParameter(f"backup.yaml has no store {store.value}.")
    # A recovery key may be what opens backups; what is saved is sealed for every recipient.
    saver = session.runtime(Keys.SEAL) if in_place and save else runtime.at(None)
    clear_dead(runtime)
    way = Way(runtime, saver, prefer=store, dry_run=dry_run, save=save, wait=wait)
    with ExitStack() as servers:
        if source == EVERYTHING:
            way.restore_all(order, servers)
        elif whole_set is not None:
            found = runtime.set_to_restore(whole_set, component=component)
            _require_confirmed(order, found.set_id, confirm)
            way.restore_set(found, order, servers)
        else:
            way.restore_one(order, servers)
        if sandbox and not dry_run:
            way.keep()
    if way.errors:
        raise typer.Exit(worst(way.errors))


def _check_what(order: Order, whole_set: str | None, confirm: str | None) -> None:
    if order.source == EVERYTHING:
        _check_several(order, EVERYTHING)
        _require_confirmed(order, EVERYTHING, confirm)
    elif whole_set is None:
        _check_choice(order)
        _require_confirmed(order, order.source, confirm)
    else:
        _check_several(order, "--set")
        if whole_set != _LATEST:
            _require_confirmed(order, whole_set, confirm)


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


def _check_several(order: Order, whole: str) -> None:
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
            raise typer.BadParameter(f"{option} is for one source; it does not go with {whole}.")


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
