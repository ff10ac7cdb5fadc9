"""Commands of the user's own within a recovery, and asking a target whether it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence

from neuroca_backup import commands, engines
from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    NotFoundError,
    PermanentError,
    ToolFailedError,
    ToolMissingError,
    TransientError,
)
from neuroca_backup.model.endpoint import FILES, Endpoint
from neuroca_backup.settings import CommandSettings

_SHOWN_LINES = 200
_TAIL_BYTES = 64 * 1024
_GRACE_SECONDS = 10.0
RECOVERY_ID = "NEUROCA_RECOVERY_ID"


def run(hook: CommandSettings, *, recovery_id: str) -> list[str]:
    """Run a command without a shell and return the last lines that it printed.

    It gets a minimal environment with the recovery's id in `NEUROCA_RECOVERY_ID`. It leads a
    process group of its own, which ends with its time.

    Raises:
        ToolMissingError: There is no such program.
        ToolFailedError: It exited non-zero; carries the exit code and its last words.
        TransientError: It took longer than its `timeout`.
    """
    environment = commands.minimal_env({RECOVERY_ID: recovery_id})
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(hook.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ToolMissingError(
                f"{hook.command[0]} cannot be started: {error.strerror}",
                remedy="Correct the command in backup.yaml, or install the program on this worker.",
                tool=hook.command[0],
            ) from None
        try:
            code = process.wait(hook.timeout.total_seconds())
        except subprocess.TimeoutExpired:
            raise TransientError(
                f"{hook.command[0]} did not end within {hook.timeout.total_seconds():.0f} s",
                remedy="See what it waits for; its `timeout` in backup.yaml gives it more time.",
                tool=hook.command[0],
            ) from None
        finally:
            _end(process)
        output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = output.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]
    if code != 0:
        raise ToolFailedError(
            f"{hook.command[0]} exited with {code}; its last words: "
            + ("\n".join(lines[-commands.STDERR_TAIL_LINES :]) or "(nothing)"),
            remedy="Mend what it complains about, then clear this task.",
            tool=hook.command[0],
            exit_code=code,
        )
    return lines


def require_planned(now: Sequence[str], planned: Sequence[str], *, name: str) -> None:
    """Raise `ConfigurationError` where a command is not the one in the plan that was approved."""
    if tuple(now) != tuple(planned):
        raise ConfigurationError(
            f"{name} in backup.yaml is not the command that was approved",
            remedy="Somebody has changed it since: trigger a new run.",
            path=name,
        )


def answer(endpoint: Callable[[], Endpoint], engine: str) -> tuple[str, str]:
    """Return what a target answers, and "" or why it does not.

    A connection that does not exist yet is one that does not answer: whoever makes the servers
    makes it, too.

    Raises:
        PermanentError: The target may not be restored to, or refuses to be asked.
    """
    try:
        there = endpoint()
        if there.kind == FILES or (not there.host and "data_directory" in there.extra):
            return f"{there.label} is a directory", ""
        version = engines.named(engine).probe(there)
    except (TransientError, NotFoundError) as error:
        return "", error.problem
    except ConfigurationError as error:
        if "connection_id" in error.facts:
            return "", error.problem
        raise
    except BackupError as error:
        raise PermanentError(error.problem, remedy=error.remedy) from None
    return f"{there.label} answers: version {version}", ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a command's process group."""
    for word in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, word)
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
