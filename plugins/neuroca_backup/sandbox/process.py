"""Processes of the sandbox: started behind a gate, ended with everything they started.

Each is told apart from a later process with the same pid.

Reads `/proc` (https://man7.org/linux/man-pages/man5/proc.5.html): the servers' wheels are for
Linux, too.
"""

from __future__ import annotations

import functools
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from neuroca_backup.errors import AccessDeniedError, ConfigurationError, UnreachableError

_PROC = Path("/proc")
_POLL_SECONDS = 0.03
_KILLED_SECONDS = 10
# The shell waits for one line before it becomes the server (same pid, same start time). Were its
# starter killed before the pid is written down, the line never comes and the shell ends.
_GATE = 'read -r _go && exec "$@" </dev/null'
_children: dict[int, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the system, by number: `uid` and its primary group `gid`."""

    name: str
    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> Account | None:
        """Return the account for a server that refuses to run as root; None unless we are root.

        Raises:
            ConfigurationError: The system has no user `nobody`.
        """
        if os.geteuid() != 0:
            return None
        try:
            entry = pwd.getpwnam("nobody")
        except KeyError:
            raise ConfigurationError(
                "PostgreSQL refuses to run as root, and this system has no user named nobody",
                remedy="Add that user, or run this as an ordinary user.",
            ) from None
        return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)

    def can(self, test: str, path: Path) -> bool:
        """Return whether the account passes `test(1)`, e.g. `-x`, on `path`; asks the kernel."""
        argv = ["/bin/sh", "-c", f'test {test} "$1"', "sh", str(path)]
        return (
            subprocess.run(
                argv, user=self.uid, group=self.gid, extra_groups=[], cwd="/", check=False
            ).returncode
            == 0
        )


@dataclass(frozen=True, slots=True)
class Process:
    """A process that keeps its identity: `started` is the boot and the tick it began in."""

    pid: int
    started: str

    @classmethod
    def find(cls, pid: int) -> Process | None:
        """Return the process that has `pid` now, or None; a zombie is no process any more."""
        stat = _stat(pid)
        if stat is None or stat[0] in {"Z", "X"}:
            return None
        return cls(pid=pid, started=f"{_boot_id()}/{stat[19]}")

    def alive(self) -> bool:
        """Return whether exactly this process, not a later one of the same pid, still runs."""
        child = _children.get(self.pid)
        if child is not None:
            child.poll()
        return Process.find(self.pid) == self

    def tree(self) -> list[Process]:
        """Return this process and all it started, parents first; empty when it has ended."""
        if not self.alive():
            return []
        children: dict[int, list[int]] = {}
        for entry in _PROC.iterdir():
            if entry.name.isdecimal() and (stat := _stat(int(entry.name))) is not None:
                children.setdefault(int(stat[1]), []).append(int(entry.name))
        found, queue = [self], [self.pid]
        while queue:
            for pid in children.get(queue.pop(), []):
                if (child := Process.find(pid)) is not None:
                    found.append(child)
                    queue.append(pid)
        return found

    def listens_on(self, port: int) -> bool:
        """Return whether this process itself, not a stranger, listens on TCP `port`."""
        wanted = _listening_inodes(port)
        try:
            links = [str(link.readlink()) for link in (_PROC / str(self.pid) / "fd").iterdir()]
        except OSError:
            return False
        return any(f"socket:[{inode}]" in links for inode in wanted)

    def exit_code(self, *, seconds: float) -> int:
        """Wait for a process that this one has spawned, and return its exit code.

        Raises:
            UnreachableError: It has not ended within `seconds`.
        """
        child = _children[self.pid]
        try:
            code = child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise UnreachableError(
                f"Process {self.pid} of the sandbox did not end within {seconds:g} s",
                remedy="Look for a hung disk or a machine that is too busy, then start it again.",
            ) from None
        del _children[self.pid]
        return code

    def stop(self, *, first: int = signal.SIGTERM, grace_seconds: float) -> None:
        """End the process and all it started: `first`, and SIGKILL after `grace_seconds`.

        Stopping what has ended does nothing.

        Raises:
            AccessDeniedError: It belongs to another user.
            UnreachableError: The kernel did not end it (a hung disk, for example).
        """
        tree = self.tree()
        if tree:
            self.send(first)
            if not _ended(tree, grace_seconds):
                for process in tree:
                    process.send(signal.SIGKILL)
                if not _ended(tree, _KILLED_SECONDS):
                    raise UnreachableError(
                        f"Process {self.pid} did not end within {_KILLED_SECONDS} s of SIGKILL",
                        remedy="Look for a hung disk (state D in ps), then stop the sandbox again.",
                    )
        child = _children.pop(self.pid, None)
        if child is not None:
            child.wait()

    def send(self, number: int) -> None:
        """Send a signal to exactly this process; one that has ended is left alone."""
        if not self.alive():
            return
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return
        except PermissionError:
            raise AccessDeniedError(
                f"Process {self.pid} of the sandbox belongs to another user",
                remedy="Stop the sandbox as the user that started it.",
            ) from None


def spawn(
    argv: Sequence[str | Path],
    *,
    folder: Path,
    log: Path,
    env: Mapping[str, str],
    account: Account | None,
    report: Callable[[Process], None],
) -> Process:
    """Start `argv` in a session of its own, in `folder`, once `report` has noted the process.

    An error of `report` means that the program never runs.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *map(str, argv)],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
    try:
        process = _identify(child)
        with _stdin(child) as gate:
            report(process)
            gate.write(b"go\n")
    except BaseException:
        child.kill()
        child.wait()
        raise
    _children[child.pid] = child
    return process


def _identify(child: subprocess.Popen[bytes]) -> Process:
    process = Process.find(child.pid)
    if process is None:
        raise UnreachableError(
            f"The shell that becomes a server (process {child.pid}) was killed at once",
            remedy="Look for the out-of-memory killer, then start the sandbox again.",
        )
    return process


def _stdin(child: subprocess.Popen[bytes]) -> IO[bytes]:
    assert child.stdin is not None  # noqa: S101 - asked for with PIPE
    return child.stdin


def _ended(processes: Sequence[Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(process.alive() for process in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name: state, parent, ..., [19] start tick."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


@functools.cache
def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        path = _PROC / "net" / table
        if not path.exists():
            continue
        for line in path.read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                inodes.add(words[9])
    return inodes
