"""What a restore by the command leaves if it is killed, and how the next one finds it.

Each restore holds a lock on its folder in the spool, and its end, even by SIGKILL, frees it. So
what is not locked is dead. Restores of Airflow hold none between their tasks; they are not looked
at here.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import line
from neuroca_backup.errors import DamagedError, TransientError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neuroca_backup.runtime import Runtime
    from neuroca_backup.services.quiesce import Quiesce

# Unlike those of Airflow's restores the ids do not end in a source.
_RESTORE = re.compile(r"restore-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_STOPPED = "stopped-"
_STATES = "services.json"


def clear_dead(runtime: Runtime) -> None:
    """Remove what killed restores left, servers included, and name services that they stopped."""
    for name in runtime.spool.backups():
        if _RESTORE.fullmatch(name) is None and not name.startswith(_STOPPED):
            continue
        try:
            with runtime.spool.held(name):
                if name.startswith(_STOPPED):
                    _warn(runtime.spool.root / name)
                else:
                    runtime.restores.abandon(name)
                    line(f"What {name}, which was killed, had left is removed.")
        except TransientError:
            continue  # it lives


@dataclass
class StandDown:
    """The services that use what is restored in place: stopped once, whatever is restored then.

    What they were is written down before any is stopped. A restore that is killed leaves that
    behind, and the next one in place takes it over: what ran before the first runs after the last.
    """

    runtime: Runtime
    quiesce: Quiesce | None = None
    before: dict[str, str] = field(default_factory=dict)
    _name: str = ""
    _lock: ExitStack = field(default_factory=ExitStack)

    def stop(self, component: str) -> Sequence[str]:
        """Stop what runs, at the first call; return notes.

        Raises:
            TransientError: Another process restores this component in place.
        """
        if self.quiesce is not None:
            return ()
        quiesce = self.runtime.quiesce(Component(component))
        if not quiesce.settings:
            return ()
        from neuroca_backup.services.quiesce import STOPPED  # noqa: PLC0415 - `--help` is quick

        self._name = f"{_STOPPED}{component}"
        self._lock.enter_context(self.runtime.spool.held(self._name))
        home = self.runtime.spool.root / self._name
        earlier = _read(home)
        self.before = {
            name: earlier.get(name, state) if state == STOPPED else state
            for name, state in quiesce.look().items()
        }
        partial = home / f"{_STATES}.partial"
        partial.write_bytes(document.encode({"before": self.before}))
        partial.replace(home / _STATES)
        self.quiesce = quiesce
        return quiesce.stop(self.before)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        with self._lock:
            if self.quiesce is None:
                return
            for note in self.quiesce.resume(self.before):
                render.note(note)
            self.runtime.spool.clear(self._name)


def _read(home: Path) -> dict[str, str]:
    """Return the states that a killed restore has left, or none."""
    path = home / _STATES
    if not path.exists():
        return {}
    found: dict[str, str] = document.decode(path.read_bytes(), name=str(path))["before"]
    return found


def _warn(home: Path) -> None:
    try:
        states = _read(home)
    except DamagedError:
        states = {"a service": "in a state that cannot be read any more"}
    told = ", ".join(f"{name} (was {state})" for name, state in states.items())
    if told:
        line(
            f"warning: a restore in place was killed while services were stopped: {told}. Repeat "
            f"it in place, or start them by hand and remove {home}."
        )
