"""`configure`: write or check backup.yaml, and make directories into stores."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import report, worst
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.errors import BackupError


def configure(
    context: typer.Context,
    *,
    config_path: Annotated[
        Path | None, typer.Option(help="The file to write or check; as before the command.")
    ] = None,
    initialise_stores: Annotated[
        bool, typer.Option("--initialise-stores", help="Make the directories of local stores.")
    ] = False,
    check_stores: Annotated[
        bool,
        typer.Option(
            "--check-stores",
            help="Ask every store, too: whether it is there, and locks where backup.yaml says so.",
        ),
    ] = False,
) -> None:
    """Check backup.yaml, or write a sample of it.

    Shows what will run when, and warns of what may not be meant. A file that
    exists is never changed.
    """
    from neuroca_backup.services.configure import configure as check

    session = Session.of(context)
    path = (config_path or session.path).absolute()
    found = check(path)
    render.configured(found)
    if initialise_stores:
        _initialise(path)
    if check_stores:
        _check_stores(Session(config_path=path, connections_path=session.connections_path))


def _check_stores(session: Session) -> None:
    """Ask every store, the others too where one has a problem."""
    errors: list[BackupError] = []
    for name, store in session.runtime(Keys.NONE).stores.items():
        try:
            store.check()
        except BackupError as error:
            report(error)
            errors.append(error)
        else:
            render.say(f"{name}: {store.location} can be used.")
    if errors:
        raise typer.Exit(worst(errors))


def _initialise(path: Path) -> None:
    from neuroca_backup.settings import LocalStoreSettings, load
    from neuroca_backup.stores.local import LocalStore

    named = load(path).storage.named()
    local = {name: one for name, one in named.items() if isinstance(one, LocalStoreSettings)}
    for name, settings in local.items():
        LocalStore(name, settings.path).initialise()
        render.say(f"{name}: {settings.path} is a store.")
    if not local:
        render.say("No store is a directory: there is nothing to initialise.")
