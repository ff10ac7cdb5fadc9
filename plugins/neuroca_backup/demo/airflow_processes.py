"""Airflow's four processes: started detached, found again by any later process, stopped whole."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from neuroca_backup.commands import minimal_env
from neuroca_backup.demo.place import Place
from neuroca_backup.errors import UnreachableError
from neuroca_backup.sandbox.process import Process, spawn
from neuroca_backup.sandbox.readiness import explain_end, tail
from neuroca_backup.sandbox.server import Entry
from neuroca_backup.sandbox.state import State

# No log servers: here the API server reads the files of the tasks itself.
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": (),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
_MIGRATE = "migrate"
_MIGRATE_SECONDS = 300
# The scheduler waits for its tasks when it is asked to end; the demo does not.
_GRACE_SECONDS = 5
_KILL_SECONDS = 10


class AirflowProcesses:
    """Airflow below `place`; what runs is written down before it runs its first instruction."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def log(self, component: str) -> Path:
        """Return the file that takes what `component` prints."""
        return self._place.logs / f"{component}.log"

    def alive(self) -> dict[str, bool]:
        """Return whether each component's process runs."""
        entries = State.read(self._place.airflow).entries
        processes = {name: entries[name].process for name in COMPONENTS if name in entries}
        return {
            name: (found := processes.get(name)) is not None and found.alive()
            for name in COMPONENTS
        }

    def require_alive(self) -> None:
        """Raise if a component has ended.

        Raises:
            UnreachableError: It has; holds its log's tail.
        """
        for name, runs in self.alive().items():
            if not runs:
                raise explain_end(f"Airflow's {name}", self.log(name))

    def migrate(self, environment: Mapping[str, str]) -> None:
        """Bring Airflow's metadata database up to date.

        Raises:
            UnreachableError: It failed; holds its log's tail.
        """
        state = State.read(self._place.airflow)
        with self.log(_MIGRATE).open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "airflow", "db", "migrate"],
                cwd=self._place.airflow,
                env=minimal_env(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            state.put(self._entry(_MIGRATE, Process.find(child.pid)))
            code = child.wait(_MIGRATE_SECONDS)
        except BaseException:
            child.kill()
            child.wait()
            raise
        state.remove(_MIGRATE)
        if code != 0:
            log = self.log(_MIGRATE)
            raise UnreachableError(
                f"`airflow db migrate` ended with {code}; {log} ends: {tail(log)}",
                remedy="Mend what it complains about, or begin anew: make down, make demo.",
            )

    def start(self, environment: Mapping[str, str]) -> None:
        """Start every component that does not run."""
        state = State.read(self._place.airflow)
        alive = self.alive()
        for name, options in COMPONENTS.items():
            if alive[name]:
                continue
            entry = self._entry(name, None)
            spawn(
                [sys.executable, "-m", "airflow", name, *options],
                folder=self._place.airflow,
                log=self.log(name),
                env=minimal_env(environment),
                account=None,
                report=lambda process, entry=entry: state.put(  # type: ignore[misc]  # bound now
                    dataclasses.replace(entry, process=process)
                ),
            )

    def stop(self) -> None:
        """End every component with all that it started; stopping twice is no error."""
        state = State.read(self._place.airflow)
        entries = list(state.entries.values())
        with ThreadPoolExecutor(max(1, len(entries)), thread_name_prefix="stop") as pool:
            for ended in [pool.submit(_stop, entry) for entry in entries]:
                ended.result()
        for entry in entries:
            state.remove(entry.kind)
        state.close()

    def _entry(self, kind: str, process: Process | None) -> Entry:
        return Entry(
            kind=kind,
            folder=self._place.airflow,
            stop_signal=signal.SIGTERM,
            grace_seconds=_GRACE_SECONDS,
            process=process,
        )


def _stop(entry: Entry) -> None:
    leader = entry.process
    if leader is None:
        return
    leader.stop(first=entry.stop_signal, grace_seconds=entry.grace_seconds)
    for process in _orphans(leader):
        process.stop(first=signal.SIGKILL, grace_seconds=_KILL_SECONDS)


def _orphans(leader: Process) -> list[Process]:
    """Return what is left of the session that `leader` led, such as a task of a killed scheduler.

    The kernel gives a number to no new process while a session still has it. So where another
    process has the leader's number, nothing of the leader's session is left.
    """
    current = Process.find(leader.pid)
    if current is not None and current != leader:
        return []
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    found = (Process.find(pid) for pid in pids if _session(pid) == leader.pid)
    return [process for process in found if process is not None]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
