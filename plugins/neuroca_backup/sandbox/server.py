"""What the sandbox knows of a server, and what it gives a server to start with."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from neuroca_backup.commands import minimal_env
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account, Process, spawn

LOG_NAME = "server.log"


def new_password() -> str:
    """Return a random password of letters and digits, so that no configuration file quotes it."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Launch:
    """What one server is given: a folder of its own (0700), and a way to start its process.

    `report` is told of the process before that runs a single instruction of the server, so no
    server can ever be running without being written down.
    """

    folder: Path
    report: Callable[[Process], None]
    account: Account | None = None

    @property
    def log(self) -> Path:
        """The file that takes the server's stdout and stderr."""
        return self.folder / LOG_NAME

    def spawn(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Process:
        """Start `argv` detached, in the folder, writing to the log."""
        return spawn(
            argv,
            folder=self.folder,
            log=self.log,
            env=minimal_env({"TMPDIR": str(self.folder), **(env or {})}),
            account=self.account,
            report=self.report,
        )

    def write_private(self, name: str, text: str) -> Path:
        """Write a small file that only the server's account can read, and return its path."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR
        )
        with os.fdopen(descriptor, "w") as file:
            if self.account is not None:
                os.fchown(file.fileno(), self.account.uid, self.account.gid)
            file.write(text)
        return path


class Server(Protocol):
    """One kind of server.

    A server is stopped by whoever reads `servers.json`, perhaps long after its starter has gone,
    so how to stop it is data: `stop_signal`, then SIGKILL after `grace_seconds`.
    """

    @property
    def kind(self) -> str:
        """The word in `start(kinds=...)`."""
        ...

    @property
    def stop_signal(self) -> int:
        """The signal that asks it to end at once, without waiting for its clients."""
        ...

    @property
    def grace_seconds(self) -> float:
        """How long it has for that."""
        ...

    @property
    def account(self) -> Account | None:
        """The unprivileged account it must run under, or None for our own."""
        ...

    def start(self, launch: Launch) -> Endpoint:
        """Start the server and return where it is, once it has answered with its password.

        Raises:
            ToolMissingError: Its program, or a system library of it, is not installed.
            UnreachableError: It died or did not answer in time; holds the log's tail.
        """
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One server as `servers.json` describes it; `endpoint` is None until it has answered."""

    kind: str
    folder: Path
    stop_signal: int
    grace_seconds: float
    process: Process | None = None
    endpoint: Endpoint | None = field(default=None, repr=False)
