"""A trigger that fires when the content of a source has changed and come to rest.

Everything heavy is imported inside the methods: DAG files import this module.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from neuroca_backup.errors import BackupError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from neuroca_backup.runtime import Runtime

log = logging.getLogger(__name__)

# What was seen of the source when a run was last started for it, or found not to be needed.
_HANDLED = "handled"


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at a source gave: its fingerprint, or the problem that kept it from view."""

    fingerprint: str = ""
    problem: str = ""

    @property
    def mark(self) -> str:
        """What tells one sight from another; all problems are one, so their words do not count."""
        return self.fingerprint or "unreadable"


class Settling:
    """Says when something has stayed the same for `seconds`, and for two looks at the least."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mark = ""
        self._since = 0.0

    def settled(self, mark: str, *, at: float) -> bool:
        """Take one look's result, seen at `at` (monotonic seconds)."""
        if mark != self._mark:
            self._mark, self._since = mark, at
            return False
        return at - self._since >= self._seconds


class SourceChangedTrigger(BaseEventTrigger):
    """Fires when a source is no longer what was last backed up, or can no longer be read.

    A source that cannot be read starts a run, too: its backup then fails for the same reason, and
    whoever is on call is told. What was handled is kept in the asset's state, so a change that was
    made while Airflow was down still fires, and a restart alone does not. The payload of the event
    has `source`, `fingerprint` and `problem`.

    Args:
        source: The source's name in backup.yaml.
        every: Seconds between two looks.
        settle: Seconds for which the content has to stay the same.
    """

    def __init__(self, *, source: str, every: float, settle: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.source = source
        self.every = every
        self.settle = settle
        self._told = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the place of this class and what makes another one like it."""
        kwargs = {"source": self.source, "every": self.every, "settle": self.settle}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look at the source again and again; files are read in a thread, beside the event loop."""
        store = cast("Any", self.asset_state_store)
        settling = Settling(self.settle)
        handled = await store.aget(_HANDLED)
        while True:
            sight: Sight = await asyncio.to_thread(self.look)
            settled = settling.settled(sight.mark, at=time.monotonic())
            if settled and sight.mark != handled:
                news = bool(sight.problem)
                if not news:
                    news = await asyncio.to_thread(self.is_news, sight.fingerprint)
                if news:
                    payload = {"source": self.source, **asdict(sight)}
                    yield TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's own
                # Afterwards: if the triggerer dies in between, one run too many is started, and
                # finds nothing to do; the other way round a change would be lost.
                handled = sight.mark
                await store.aset(_HANDLED, handled)
            await asyncio.sleep(self.every)

    def look(self) -> Sight:
        """Return what the source looks like now; a source that cannot be read is a problem."""
        from neuroca_backup.engines import Fingerprinting  # noqa: PLC0415 - only the triggerer

        try:
            subject = _runtime().subject(self.source)
            if not isinstance(subject.engine, Fingerprinting):
                raise ConfigurationError(
                    f"{self.source} cannot be watched: {subject.kind} has no fingerprints",
                    remedy="Set watch.enabled: false, or choose another engine.",
                    value=subject.kind,
                )
            sight = Sight(fingerprint=subject.engine.fingerprint(subject.endpoint, subject.options))
        except (BackupError, OSError) as error:
            sight = Sight(problem=str(error))
        if sight.problem and sight.problem != self._told:
            log.error("The source %s cannot be watched: %s", self.source, sight.problem)
        self._told = sight.problem
        return sight

    def is_news(self, fingerprint: str) -> bool:
        """Return whether the newest backup holds something else; also where nobody can tell."""
        from neuroca_backup.services import unchanged  # noqa: PLC0415 - only the triggerer

        try:
            runtime = _runtime()
            component = runtime.component(self.source)
            return not unchanged.backed_up(
                runtime.stores, component, self.source, fingerprint=fingerprint
            )
        except BackupError as error:
            log.warning("The stores do not tell what was backed up of %s: %s", self.source, error)
            return True


def _runtime() -> Runtime:
    """Return the services with the settings as they are now: backup.yaml may have changed."""
    from neuroca_backup.hooks.neuroca import NeurocaHook  # noqa: PLC0415 - only the triggerer

    return NeurocaHook().runtime
