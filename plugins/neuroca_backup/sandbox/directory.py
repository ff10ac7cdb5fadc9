"""A private directory to restore files into: the throwaway target that needs no server."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.sandbox.process import Account
from neuroca_backup.sandbox.server import Launch


@dataclass(frozen=True, slots=True)
class PrivateDirectory:
    """See `neuroca_backup.sandbox.server.Server`; it has no process, so nothing is to be ended."""

    kind: str = "directory"
    stop_signal: int = signal.SIGTERM
    grace_seconds: float = 0
    account: Account | None = None

    def start(self, launch: Launch) -> Endpoint:
        """Return a directory that does not exist yet, in a folder that is ours alone."""
        return Endpoint.this_machine(launch.folder / "files")
