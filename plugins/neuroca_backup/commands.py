"""The one module that runs vendor tools, in a minimal environment, and judges how they ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, BinaryIO

from neuroca_backup.errors import InterruptedToolError, ToolFailedError, ToolMissingError

STDERR_TAIL_LINES = 25
_STDERR_TAIL_BYTES = 16 * 1024
_TERMINATE_SECONDS = 10


def find(tool: str, *, folders: Sequence[Path] = (), package: str) -> Path:
    """Return the path of `tool`, from `folders` first, then PATH.

    Raises:
        ToolMissingError: It is nowhere; the remedy names the `package` that has it.
    """
    for folder in folders:
        candidate = folder / tool
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    found = shutil.which(tool)
    if found is None:
        raise ToolMissingError(
            f"{tool} was not found in {', '.join(map(str, folders)) or 'no folder'} or on PATH",
            remedy=f"Install {package}, or put its folder on the PATH of this process.",
            tool=tool,
        )
    return Path(found)


def minimal_env(secret_env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with nothing of ours but what a tool needs, plus `secret_env`."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PGTZ": "UTC", **kept, **(secret_env or {})}


@contextmanager
def started(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    stdout: IO[bytes] | int = subprocess.DEVNULL,
    secrets: Sequence[str] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` for the length of the block and judge it when the block ends.

    The block must consume the pipes it asked for. When the block raises, the tool is killed and
    the block's error wins; a tool that died first explains a broken pipe, so its error wins then.

    Raises:
        ToolFailedError: It exited non-zero; carries the exit code and the tail of its stderr with
            every one of `secrets` blotted out.
        InterruptedToolError: A signal ended it.
    """
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [*_dying_with_us(), *map(str, argv)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=minimal_env(env),
        )
        try:
            yield process
        except BaseException as error:
            died_first = isinstance(error, BrokenPipeError) or process.poll() not in (None, 0)
            _stop(process)
            if died_first and isinstance(error, Exception) and process.returncode not in (None, 0):
                raise _verdict(argv, process.returncode, stderr, secrets) from error
            raise
        finally:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    # What is still buffered for a tool that has died; its exit code tells of that.
                    with suppress(BrokenPipeError):
                        pipe.close()
        code = process.wait()
        if code != 0:
            raise _verdict(argv, code, stderr, secrets)


@cache
def _dying_with_us() -> tuple[str, ...]:
    """Return the words before a command that let it die with this process, even by SIGKILL.

    An orphaned dump would go on reading its server, and writing data in clear that nobody awaits.
    See setpriv(1) of util-linux; where it is missing the tool ends when it next writes to us.
    """
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL") if setpriv else ()


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    secrets: Sequence[str] = (),
) -> bytes:
    """Run `argv` to its end and return its (small) stdout; raises as `started` does."""
    with started(argv, env=env, stdin=stdin, stdout=subprocess.PIPE, secrets=secrets) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        return process.stdout.read()


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _verdict(
    argv: Sequence[str | Path], code: int, stderr: BinaryIO, secrets: Sequence[str]
) -> ToolFailedError | InterruptedToolError:
    tool = Path(argv[0]).name
    tail = _tail(stderr, secrets)
    if code < 0:
        return InterruptedToolError(
            f"{tool} was ended by signal {-code}; its last words: {tail}",
            remedy="It is tried again; if it keeps happening look for the out-of-memory killer.",
            tool=tool,
            stderr=tail,
        )
    return ToolFailedError(
        f"{tool} exited with {code}; its last words: {tail}",
        remedy="Mend what it complains about, then run this again.",
        tool=tool,
        exit_code=code,
        stderr=tail,
    )


def _tail(stderr: BinaryIO, secrets: Sequence[str]) -> str:
    size = stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, size - _STDERR_TAIL_BYTES))
    text = stderr.read().decode(errors="replace")
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return "\n".join(text.strip().splitlines()[-STDERR_TAIL_LINES:]) or "(nothing)"
