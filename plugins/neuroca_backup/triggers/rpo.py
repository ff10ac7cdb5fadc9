"""A trigger that waits until a component is inside its recovery point objective.

Everything heavy is imported inside the methods: DAG files import this module.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from neuroca_backup.services.objectives.findings import Finding


class RpoTrigger(BaseTrigger):
    """Fires once with what was found: `finding` as plain data, or the `problem` that kept it away.

    Args:
        component: The component.
        every: Seconds between two looks.
        at_breach: `wait` until it is inside, or `fail`: fire at a breach, too.
    """

    def __init__(self, *, component: str, every: float, at_breach: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.component = component
        self.every = every
        self.at_breach = at_breach

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the place of this class and what makes another one like it."""
        kwargs = {"component": self.component, "every": self.every, "at_breach": self.at_breach}
        return f"{type(self).__module__}.{type(self).__qualname__}", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again, in a thread beside the event loop."""
        from neuroca_backup.errors import BackupError  # noqa: PLC0415 - only the triggerer
        from neuroca_backup.services.objectives.findings import (  # noqa: PLC0415 - as above
            ends_waiting,
        )

        while True:
            try:
                found = await asyncio.to_thread(self.look)
            except BackupError as error:
                yield TriggerEvent({"problem": str(error)})  # type: ignore[no-untyped-call]  # Airflow's own
                return
            if ends_waiting(found, at_breach=self.at_breach):
                yield TriggerEvent({"finding": found.to_json()})  # type: ignore[no-untyped-call]  # as above
                return
            await asyncio.sleep(self.every)

    def look(self) -> Finding:
        """Return whether the component is inside its RPO, with the settings as they are now."""
        from neuroca_backup.hooks.neuroca import NeurocaHook  # noqa: PLC0415 - only the triggerer
        from neuroca_backup.model.identity import Component  # noqa: PLC0415 - as above

        return NeurocaHook().runtime.objectives.held(Component(self.component))
