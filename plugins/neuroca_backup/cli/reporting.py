"""How the command ends: its exit codes, its error lines, its log. All of it goes to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from enum import IntEnum

from neuroca_backup.errors import (
    BackupError,
    ComparisonError,
    ConfigurationError,
    DamagedError,
    TransientError,
)

_PROGRESS_LOGGER = "neuroca_backup.services.progress"


class ExitCode(IntEnum):
    """What the command's exit code means; docs/reference/command.md repeats it."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TRY_AGAIN = 3
    DAMAGED = 4
    INTERRUPTED = 130


# Of several errors the one that most needs a person decides.
_GRAVITY = (ExitCode.DAMAGED, ExitCode.FAILED, ExitCode.USAGE, ExitCode.TRY_AGAIN)


def exit_code(error: BackupError) -> ExitCode:
    """Return the exit code for `error`."""
    if isinstance(error, DamagedError | ComparisonError):
        return ExitCode.DAMAGED
    if isinstance(error, ConfigurationError):
        return ExitCode.USAGE
    return ExitCode.TRY_AGAIN if isinstance(error, TransientError) else ExitCode.FAILED


def worst(errors: Sequence[BackupError]) -> ExitCode:
    """Return the exit code for a command that went on after each of `errors`."""
    found = {exit_code(error) for error in errors}
    return next((code for code in _GRAVITY if code in found), ExitCode.DONE)


def report(error: BackupError) -> None:
    """Say what went wrong and what to do about it."""
    line(f"error: {error.problem}")
    line(f"remedy: {error.remedy}")


def line(text: str) -> None:
    """Write one line to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is where the command speaks


def configure_log(*, verbose: bool) -> None:
    """Log warnings and the progress of long work, or with `verbose` every step."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("neuroca_backup").setLevel(logging.INFO if verbose else logging.NOTSET)
    logging.getLogger(_PROGRESS_LOGGER).setLevel(logging.INFO)
