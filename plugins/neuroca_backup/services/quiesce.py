"""Stopping what uses a component's data while it is restored in place, and starting it again.

What a service was before is asked first and kept by the caller; only what ran is started again.
A state that nobody can tell is an error, never "stopped".
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from neuroca_backup import commands
from neuroca_backup.errors import BackupError, PermanentError, ToolFailedError, TransientError
from neuroca_backup.settings.affected import AffectedSettings

log = logging.getLogger(__name__)

STOPPED = "stopped"
RUNNING = "running"
_POLL_SECONDS = 1.0
# What `systemctl is-active` exits with for a unit that does not run; our own commands follow it.
# https://www.freedesktop.org/software/systemd/man/latest/systemctl.html#Exit%20status
_EXIT_STOPPED = 3


class Service(Protocol):
    """One thing that uses data; a state is "stopped", or what `start` needs to bring it back."""

    def state(self) -> str:
        """Return the state; raise where it cannot be told."""
        ...

    def stop(self) -> None:
        """Ask it to stop."""
        ...

    def start(self, state: str) -> None:
        """Ask it to become what it was."""
        ...


@dataclass(frozen=True, slots=True)
class Systemd:
    """A unit of systemd on this machine."""

    unit: str

    def state(self) -> str:
        """Return "running" for an active unit and one about to be; a failed one is stopped."""
        shown = _run("systemctl", "show", "--property=LoadState,ActiveState", self.unit)
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        if found.get("LoadState") not in {"loaded", "masked"}:
            raise PermanentError(
                f"systemd does not know the unit {self.unit}",
                remedy="Correct `services` in backup.yaml; `systemctl list-units` shows the names.",
                service=self.unit,
            )
        active = found.get("ActiveState")
        if active in {"inactive", "failed"}:
            return STOPPED
        if active in {"active", "activating", "reloading", "deactivating", "refreshing"}:
            return RUNNING
        raise _unknown(self.unit, f"systemd calls it {active!r}")

    def stop(self) -> None:
        """Ask systemd to stop the unit, without waiting."""
        _run("systemctl", "stop", "--no-block", self.unit)

    def start(self, state: str) -> None:  # noqa: ARG002 - a unit has one way to run
        """Ask systemd to start the unit, without waiting."""
        _run("systemctl", "start", "--no-block", self.unit)


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """A Deployment or StatefulSet, stopped by scaling it to no replica."""

    workload: str
    namespace: str | None

    def state(self) -> str:
        """Return the wanted number of replicas, e.g. `3 replicas`; "stopped" with no pod left."""
        shown = self._kubectl("get", "-o", "jsonpath={.spec.replicas} {.status.replicas}")
        wanted, _, present = shown.strip().partition(" ")
        if not wanted.isdecimal() or not (present or "0").isdecimal():
            raise _unknown(self.workload, f"kubectl answered {shown.strip()!r}")
        # The status leaves out a number that is nought.
        if int(wanted) == 0 and int(present or 0) == 0:
            return STOPPED
        return f"{wanted} replicas"

    def stop(self) -> None:
        """Scale it to nought."""
        self._kubectl("scale", "--replicas=0")

    def start(self, state: str) -> None:
        """Scale it to what it was."""
        self._kubectl("scale", f"--replicas={int(state.partition(' ')[0])}")

    def _kubectl(self, verb: str, *words: str) -> str:
        place = () if self.namespace is None else ("--namespace", self.namespace)
        return _run("kubectl", verb, self.workload, *place, *words)


@dataclass(frozen=True, slots=True)
class Commands:
    """A service with commands of its own."""

    name: str
    status_words: tuple[str, ...]
    stop_words: tuple[str, ...]
    start_words: tuple[str, ...]

    def state(self) -> str:
        """Return what `status` tells by its exit code."""
        try:
            commands.run(self.status_words)
        except ToolFailedError as error:
            if error.facts["exit_code"] == _EXIT_STOPPED:
                return STOPPED
            raise _unknown(self.name, error.problem) from None
        return RUNNING

    def stop(self) -> None:
        """Run `stop`."""
        commands.run(self.stop_words)

    def start(self, state: str) -> None:  # noqa: ARG002 - there is one way to run
        """Run `start`."""
        commands.run(self.start_words)


@dataclass(frozen=True, slots=True)
class Quiesce:
    """The services of one component, in the order in which they are stopped."""

    settings: Sequence[AffectedSettings]

    def look(self) -> dict[str, str]:
        """Return the state of every service by its name; nothing is changed.

        Raises:
            BackupError: The state of one cannot be told.
        """
        return {one.name: _service(one).state() for one in self.settings}

    def stop(self, before: Mapping[str, str]) -> tuple[str, ...]:
        """Stop what runs and wait until it has; return notes. A repeat finds it stopped.

        `before` is what `look` returned. Whoever calls this calls `resume` in the end, also where
        it fails: another restore may be under way, which needs what is stopped to stay so.

        Raises:
            TransientError: One still runs after its timeout.
            BackupError: One cannot be stopped.
        """
        notes = []
        for one in self.settings:
            service = _service(one)
            if service.state() != STOPPED:
                service.stop()
                _await(one, service, stopped=True)
            notes.append(f"{one.name} is stopped; it was {before[one.name]}")
        return tuple(notes)

    def resume(self, before: Mapping[str, str]) -> tuple[str, ...]:
        """Start again what ran before, in the opposite order; return notes. May be repeated.

        Raises:
            BackupError: The first that would not start, after all others were tried.
        """
        notes: list[str] = []
        failures: list[BackupError] = []
        for one in reversed(self.settings):
            state = before[one.name]
            if state == STOPPED:
                notes.append(f"{one.name} stays stopped, as it was before")
                continue
            service = _service(one)
            try:
                if service.state() == STOPPED:
                    service.start(state)
                    _await(one, service, stopped=False)
                notes.append(f"{one.name} is {state} again")
            except BackupError as error:
                log.error("%s was not started again: %s", one.name, error)  # noqa: TRY400 - raised below
                failures.append(error)
        if failures:
            raise failures[0]
        return tuple(notes)


def _service(one: AffectedSettings) -> Service:
    if one.systemd is not None:
        return Systemd(one.systemd)
    if one.kubernetes is not None:
        return Kubernetes(one.kubernetes, one.namespace)
    return Commands(one.name, one.status, one.stop, one.start)


def _await(one: AffectedSettings, service: Service, *, stopped: bool) -> None:
    deadline = time.monotonic() + one.timeout.total_seconds()
    while (service.state() == STOPPED) != stopped:
        if time.monotonic() > deadline:
            wanted = "stop" if stopped else "start"
            raise TransientError(
                f"{one.name} did not {wanted} within {one.timeout.total_seconds():.0f} s",
                remedy=f"Look at its own log, or {wanted} it by hand; then run this again. "
                "`timeout` in `services` of backup.yaml gives it more time.",
                service=one.name,
            )
        time.sleep(_POLL_SECONDS)


def _run(tool: str, *words: str) -> str:
    program = commands.find(tool, package="it on the machine that runs the restore")
    return commands.run([program, *words]).decode(errors="replace")


def _unknown(name: str, answer: str) -> PermanentError:
    return PermanentError(
        f"Nobody can tell whether {name} runs: {answer}",
        remedy="Mend that first: a restore under a running service would be overwritten by it.",
        service=name,
    )
