"""`python -m neuroca_backup.sandbox up|down|status|seed`: the local servers by hand.

Passwords are never printed; `<root>/servers.json` has them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from neuroca_backup import sandbox
from neuroca_backup.errors import BackupError

app = typer.Typer(
    help="Throwaway local servers.", no_args_is_help=True, pretty_exceptions_show_locals=False
)
_console = Console()

Root = Annotated[Path, typer.Option("--root", help="Folder of the sandbox.")]
Kinds = Annotated[
    str | None, typer.Option("--kinds", help="Comma-separated; all of them by default.")
]
Scale = Annotated[float, typer.Option("--scale", help="Size of the data; 1.0 is the demo's.")]


@app.command()
def up(root: Root, kinds: Kinds = None) -> None:
    """Start servers; those that run already are left as they are."""
    began = time.monotonic()
    started = sandbox.start(root, _split(kinds) or sandbox.ALL)
    _console.print(f"{len(started)} servers run after {time.monotonic() - began:.1f} s.")
    _show(root)


@app.command()
def down(root: Root, kinds: Kinds = None) -> None:
    """Stop servers and remove everything they left."""
    sandbox.stop(root, _split(kinds))
    remaining = sandbox.status(root)
    _console.print(f"Stopped; {len(remaining)} servers remain." if remaining else "All stopped.")


@app.command()
def status(root: Root) -> None:
    """Show the servers; exits with 1 unless there are some and all of them run."""
    found = _show(root)
    if not found or not all(server.running for server in found):
        raise typer.Exit(1)


@app.command()
def seed(root: Root, kinds: Kinds = None, scale: Scale = 1.0) -> None:
    """Fill the stores with NCA-shaped data, replacing what they hold."""
    from neuroca_backup.sandbox.seed import seed as fill  # noqa: PLC0415 - only this command

    chosen = _split(kinds)
    endpoints = sandbox.endpoints(root)
    began = time.monotonic()
    filled = fill({k: e for k, e in endpoints.items() if not chosen or k in chosen}, scale=scale)
    for kind, numbers in filled.items():
        for name, number in numbers.items():
            _console.print(f"{kind}: {name} {number:,}")
    _console.print(f"Seeded {len(filled)} stores in {time.monotonic() - began:.1f} s.")
    if not filled:
        _console.print("No server to seed runs there; start one with `up`.")
        raise typer.Exit(1)


def _split(kinds: str | None) -> list[str] | None:
    return None if kinds is None else [kind.strip() for kind in kinds.split(",") if kind.strip()]


def _show(root: Path) -> list[sandbox.ServerStatus]:
    found = list(sandbox.status(root).values())
    table = Table("server", "state", "pid", "address", "log")
    for server in found:
        state = "running" if server.running else "[red]stopped[/red]"
        table.add_row(server.kind, state, str(server.pid), server.address, str(server.log))
    _console.print(table if found else f"No server was started below {root}.")
    return found


def main() -> None:
    """Run the command; an error is one line on stderr and exit code 1."""
    try:
        app()
    except BackupError as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
