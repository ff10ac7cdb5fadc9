"""The command `neuroca-backup`: all that a bad day needs, without Airflow and without the catalog.

Nothing that a command needs is imported before it runs, so that `--help` answers at once.
"""

from __future__ import annotations


def main() -> None:
    """Run the command and exit with its code; see `reporting.ExitCode`."""
    from neuroca_backup.cli.app import run  # noqa: PLC0415 - the package itself must cost nothing

    run()
