"""The tree of commands, the options before them, and what ends them early."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from neuroca_backup import __version__
from neuroca_backup.cli import (
    catalog,
    config,
    configure,
    keys,
    make,
    memory,
    models,
    recoveries,
    restore,
    retention,
    stored,
    unseal,
    vectors,
)
from neuroca_backup.cli.reporting import ExitCode, configure_log, exit_code, line, report
from neuroca_backup.cli.session import Session
from neuroca_backup.errors import BackupError

NAME = "neuroca-backup"


class _Commands(TyperGroup):
    """Turns errors into two lines on stderr and an exit code; nothing of ours is a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BackupError as error:
            report(error)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            line("interrupted; what was begun has been cleared away")
            raise typer.Exit(ExitCode.INTERRUPTED) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    # Help without boxes: drawing them would double its time.
    rich_markup_mode=None,
    # A stranger's exception keeps Python's own traceback, which shows no variables.
    pretty_exceptions_enable=False,
    help="Back up, verify and restore the stores of the NeuroCognitive Architecture.\n\n"
    "Exit codes: 0 done, 1 failed for good, 2 usage or configuration, 3 failed for now, "
    "4 damage found, 130 interrupted.",
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    *,
    config_path: Annotated[
        Path | None,
        typer.Option(
            help="backup.yaml; without it $NEUROCA_BACKUP_CONFIG, then $AIRFLOW_HOME/config, "
            "then /etc/neuroca."
        ),
    ] = None,
    connections: Annotated[
        Path | None,
        typer.Option(
            help="YAML file of connections (mode 600); without it $NEUROCA_BACKUP_CONNECTIONS. "
            "AIRFLOW_CONN_<ID> in the environment goes first."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log every step.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does all
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=lambda value: _version(wanted=value),
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    configure_log(verbose=verbose)
    context.obj = Session(config_path=config_path, connections_path=connections)


app.command("configure")(configure.configure)
app.command("list")(stored.list_backups)
app.command("show")(stored.show)
app.command("sets")(stored.list_sets)
app.command("backup")(make.backup)
app.command("verify")(make.verify)
app.command("restore")(restore.restore)
app.command("decrypt")(unseal.decrypt)
app.command("vector-export")(vectors.vector_export)
app.command("vector-import")(vectors.vector_import)
app.command("config-export")(config.config_export)
app.command("config-import")(config.config_import)
app.command("model-export")(models.model_export)
app.command("model-import")(models.model_import)
app.command("memory-export")(memory.memory_export)
app.command("memory-import")(memory.memory_import)
app.add_typer(catalog.app, name="catalog")
app.add_typer(keys.app, name="keys")
app.add_typer(recoveries.app, name="recoveries")
app.add_typer(retention.retention, name="retention")
app.add_typer(retention.hold, name="hold")


def run() -> NoReturn:
    """Run the command line of this process.

    A hang-up or a termination leaves as Ctrl-C does, through every cleaning block: what a restore
    has fetched lies in the spool in clear.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        # `nohup` has a hang-up ignored, and it is to stay so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    app(prog_name=NAME)
    raise SystemExit(ExitCode.DONE)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    # A second signal must not cut the cleaning short.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
