"""`catalog`: the index of backups; it is disposable, and made again from the stores."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import ExitCode, line
from neuroca_backup.cli.session import Session
from neuroca_backup.errors import ConfigurationError

if TYPE_CHECKING:
    from neuroca_backup.runtime import Runtime

_ALL = 2**31 - 1  # a limit that no catalog reaches; fits PostgreSQL's integer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The index of backups in PostgreSQL."
)


@app.command()
def rebuild(context: typer.Context) -> None:
    """Make the catalog again from what all stores hold.

    Exits with 1 if anything in a store could not be read; what could be is recorded.
    """
    from neuroca_backup.services.rebuild import rebuild as make_again

    runtime = _runtime(context)
    found = make_again(runtime.catalog, runtime.stores)
    render.say(f"{found.backups:,} backups in {found.copies:,} copies are in the catalog.")
    for backup_id in found.forgotten:
        render.say(f"Forgotten, no store holds it: {backup_id}")
    for place in found.unfinished:
        render.say(f"No backup, it has no manifest: {place}")
    for place in found.referenced:
        render.say(f"No backup any more, but later ones refer to its members: {place}")
    for problem in found.problems:
        line(f"problem: {problem}")
    if not found.complete:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def status(context: typer.Context) -> None:
    """Show what the catalog knows: backups by source, the last restores, the last events."""
    session = Session.of(context)
    catalog = _runtime(context).catalog
    connection = session.settings.catalog.connection
    render.catalog(
        connection=str(connection),
        entries=catalog.backups(limit=_ALL),
        restores=catalog.restores(limit=5),
        events=catalog.events(limit=5),
    )


def _runtime(context: typer.Context) -> Runtime:
    from neuroca_backup.runtime import Runtime

    session = Session.of(context)
    if session.settings.catalog.connection is None:
        raise ConfigurationError(
            f"{session.path} names no catalog",
            remedy="Set catalog.connection; backups and restores work without one.",
        )
    return Runtime.build(session.settings, session.connections)
