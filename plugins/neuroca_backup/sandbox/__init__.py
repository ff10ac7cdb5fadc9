"""Throwaway real servers for the demo, the tests, restore tests and drills.

`start` brings servers up as detached processes, described in `<root>/servers.json`; `endpoints`,
`status` and `stop` work on them from any later process. Nothing of a stopped sandbox remains.
"""

from __future__ import annotations

from neuroca_backup.sandbox.lifecycle import (
    ALL,
    ServerStatus,
    endpoints,
    launch,
    running,
    start,
    status,
    stop,
)

__all__ = ["ALL", "ServerStatus", "endpoints", "launch", "running", "start", "status", "stop"]
