"""`python -m neuroca_backup.demo up|drill|down|status`; the Makefile's targets call it."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from neuroca_backup import sandbox
from neuroca_backup.demo.airflow_processes import AirflowProcesses
from neuroca_backup.demo.place import Place
from neuroca_backup.demo.screen import Screen
from neuroca_backup.demo.story import Demo
from neuroca_backup.errors import BackupError

_INTERRUPTED = 130

app = typer.Typer(
    help="The whole of it on this machine, below .demo.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
_console = Console()
_errors = Console(stderr=True)


@app.command()
def up(
    scale: Annotated[float, typer.Option("--scale", help="Size of the data; 1.0: 200 MB.")] = 1.0,
) -> None:
    """Start servers and Airflow, back up, restore, show the proof; again at any time."""
    try:
        _demo().up(scale=scale)
    except KeyboardInterrupt:
        _errors.print("Interrupted. `make demo` goes on from here, `make down` removes it all.")
        # At once: threads that wait for servers would hold an ordinary end back. Every process
        # is written down before it runs, so `make down` finds each of them.
        os._exit(_INTERRUPTED)


@app.command()
def drill() -> None:
    """Drill a disaster recovery on the demo's data, and print where its report is."""
    _demo().drill()


@app.command()
def down() -> None:
    """Stop and remove all of it."""
    _demo().down()


@app.command()
def status() -> None:
    """Show what runs, and how to log in; exits with 1 unless all of it runs."""
    demo = _demo()
    place, runs = demo.place, []
    table = Table("process", "state", "address")
    for root in (place.servers, place.metadata):
        for server in sandbox.status(root).values():
            runs.append(server.running)
            table.add_row(server.kind, _state(runs=server.running), server.address)
    for name, alive in AirflowProcesses(place).alive().items():
        runs.append(alive)
        table.add_row(f"airflow {name}", _state(runs=alive), "")
    _console.print(table)
    address, user, password = demo.login()
    _console.print(f"{address}   user: {user}   password: {password}", markup=False)
    if not all(runs):
        raise typer.Exit(1)


def _demo() -> Demo:
    return Demo(Place.of_checkout(), Screen(_console))


def _state(*, runs: bool) -> str:
    return "running" if runs else "[red]stopped[/red]"


def main() -> None:
    """Run the command; an error is told on stderr, and the exit code is 1."""
    try:
        app()
    except BackupError as error:
        for line in (str(error), *getattr(error, "__notes__", ())):
            _errors.print(line, style="red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
