"""Vendor tools: judged by how they end, told with what they said, and never with a secret."""

# ruff: noqa: PT012 - the block is what is tested

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuroca_backup import commands
from neuroca_backup.errors import InterruptedToolError, ToolFailedError, ToolMissingError


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def test_a_tool_that_ends_well_gives_its_output() -> None:
    assert commands.run(sh("echo told")) == b"told\n"


def test_a_tool_that_ends_badly_is_told_with_its_last_words() -> None:
    with pytest.raises(ToolFailedError, match="sh exited with 3; its last words: bad") as caught:
        commands.run(sh("echo good; echo bad >&2; exit 3"))
    assert caught.value.facts == {"tool": "sh", "exit_code": 3, "stderr": "bad"}


def test_a_tool_ended_by_a_signal_may_be_tried_again() -> None:
    with pytest.raises(InterruptedToolError, match="signal 9"):
        commands.run(sh("kill -9 $$"))


def test_secrets_are_blotted_out_of_what_a_tool_said() -> None:
    with pytest.raises(ToolFailedError) as caught:
        commands.run(sh("echo login with hunter2 failed >&2; exit 1"), secrets=["hunter2", ""])
    assert caught.value.facts["stderr"] == "login with *** failed"


def test_only_the_tail_of_much_stderr_is_kept() -> None:
    with pytest.raises(ToolFailedError) as caught:
        commands.run(
            [
                sys.executable,
                "-c",
                "import sys\nfor n in range(99999): print(n, file=sys.stderr)\nsys.exit(1)",
            ]
        )
    lines = caught.value.facts["stderr"].splitlines()
    assert len(lines) == commands.STDERR_TAIL_LINES
    assert lines[-1] == "99998"


def test_a_tool_is_killed_when_its_block_fails_and_the_blocks_error_wins() -> None:
    with pytest.raises(ZeroDivisionError), commands.started(sh("sleep 600")) as process:
        raise ZeroDivisionError
    assert process.returncode == -15


def test_a_tool_that_died_explains_a_broken_pipe() -> None:
    with (
        pytest.raises(ToolFailedError, match="exited with 4"),
        commands.started(sh("echo full >&2; exit 4"), stdin=subprocess.PIPE) as process,
    ):
        assert process.stdin is not None
        while True:
            process.stdin.write(b"a line\n")


def test_what_is_still_buffered_for_a_tool_that_died_does_not_hide_its_words() -> None:
    with (
        pytest.raises(ToolFailedError, match="exited with 4"),
        commands.started(sh("exit 4"), stdin=subprocess.PIPE) as process,
    ):
        process.wait()
        assert process.stdin is not None
        process.stdin.write(b"a line\n")


def test_nothing_of_our_environment_reaches_a_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "leak")
    told = commands.run(["/usr/bin/env"], env={"PGPASSWORD": "given"}).decode()
    assert "leak" not in told
    assert "PGPASSWORD=given" in told
    assert "LC_ALL=C.UTF-8" in told


def test_a_tool_is_found_in_the_folders_first(tmp_path: Path) -> None:
    tool = tmp_path / "sh"
    tool.write_text("#!/bin/sh\n")
    assert commands.find("sh", folders=[tmp_path], package="dash") != tool  # not executable
    tool.chmod(0o755)
    assert commands.find("sh", folders=[tmp_path], package="dash") == tool


def test_a_missing_tool_is_told_with_its_package(tmp_path: Path) -> None:
    with pytest.raises(ToolMissingError, match=str(tmp_path)) as caught:
        commands.find("pg_dumpp", folders=[tmp_path], package="postgresql-client")
    assert "postgresql-client" in caught.value.remedy


def test_a_tool_does_not_outlive_a_process_that_was_killed() -> None:
    script = (
        "import os, signal, subprocess, sys\n"
        "from neuroca_backup import commands\n"
        "argv = ['sh', '-c', 'echo $$; exec sleep 600']\n"
        "with commands.started(argv, stdout=subprocess.PIPE) as tool:\n"
        "    print(tool.stdout.readline().decode(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    tool = Path("/proc", killed.stdout.strip(), "cmdline")
    # The kernel sends the signal at once; the process table may take a moment.
    deadline = time.monotonic() + 10
    while b"sleep" in _read(tool):
        assert time.monotonic() < deadline, "the tool is still running"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
