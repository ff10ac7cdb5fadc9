"""A trigger that fires when a recovery time objective is decided: met, breached, or beyond telling.

Everything heavy is imported inside the methods: DAG files import this module.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import BaseTrigger, TriggerEvent

from neuroca_backup.errors import BackupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow.sdk import Context

    from neuroca_backup.services.recovery.watch import Sight, Watch

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time by which objectives are measured."""
    return datetime.now(UTC)


def watch_of(
    recovery_id: str,
    objective: str,
    *,
    actor: str,
    due: datetime | None = None,
    context: Context | None = None,
) -> Watch:
    """Return the watch of an objective, with the settings and connections as they are now.

    Raises:
        ConfigurationError: backup.yaml cannot be read, or that is no recovery's id.
    """
    from neuroca_backup.hooks.neuroca import NeurocaHook  # noqa: PLC0415 - see above
    from neuroca_backup.notifications.channels import Channels  # noqa: PLC0415 - see above
    from neuroca_backup.services.recovery.watch import Watch  # noqa: PLC0415 - see above

    runtime = NeurocaHook().runtime
    channels = Channels(runtime.settings.notifications)

    def notify(subject: str, message: str) -> int:
        told = context if context is not None else cast("Context", {})
        return channels.send(subject=subject, message=message, context=told)

    return Watch(
        runtime.journal(recovery_id),
        objective,
        notify=notify,
        actor=actor,
        known=runtime.settings.objectives.rto.names,
        due=due,
        now=utc_now,
    )


class RecoveryObjectiveTrigger(BaseTrigger):
    """Looks at an objective until it is decided, and tells people meanwhile.

    All that it knows is in the journal, so one that is started anew goes on where another stopped.
    While the stores do not answer it logs that and goes on, until the limit. The payload of the
    event has `verdict` and `text`.

    Args:
        recovery_id: Which recovery.
        objective: Which of its objectives.
        actor: Who writes into the journal.
        due: When the limit ends, in ISO format with an offset.
        every: Seconds between two looks.
    """

    def __init__(
        self, *, recovery_id: str, objective: str, actor: str, due: str, every: float
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.recovery_id = recovery_id
        self.objective = objective
        self.actor = actor
        self.due = due
        self.every = every
        self._watch: Watch | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the place of this class and what makes another one like it."""
        names = ("recovery_id", "objective", "actor", "due", "every")
        kwargs = {name: getattr(self, name) for name in names}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; stores are asked in a thread, beside the event loop."""
        from neuroca_backup.services.recovery.watch import Verdict  # noqa: PLC0415 - see above

        while True:
            sight: Sight = await asyncio.to_thread(self.look)
            if sight.verdict is not Verdict.WAIT:
                payload = {"verdict": sight.verdict.value, "text": sight.text}
                yield TriggerEvent(payload)  # type: ignore[no-untyped-call]  # Airflow's own
                return
            await asyncio.sleep(self.every)

    def look(self) -> Sight:
        """Return how the objective stands now."""
        from neuroca_backup.services.recovery.watch import blind  # noqa: PLC0415 - see above

        due = datetime.fromisoformat(self.due)
        try:
            if self._watch is None:
                self._watch = watch_of(self.recovery_id, self.objective, actor=self.actor, due=due)
        except BackupError as error:
            return blind(error, due=due, now=utc_now())
        return self._watch.look()
