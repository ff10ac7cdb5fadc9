"""Telling people that the monitor itself failed, and not twice what it has told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroca_backup.notifications.failure import FailureNotice

if TYPE_CHECKING:
    from airflow.sdk import Context

    from neuroca_backup.settings import NotificationSettings


class MonitorNotice(FailureNotice):
    """A failure notice, but where the run is red because of what was told already.

    Args:
        notifications: The channels.
        verdict: The task that is red for that reason; it runs only after people were told.
    """

    def __init__(self, notifications: NotificationSettings, *, verdict: str) -> None:
        super().__init__(notifications)
        self._verdict = verdict

    def __call__(self, context: Context) -> None:
        """Send the notice unless the last task that failed is the verdict."""
        last: Any = context.get("ti")
        if getattr(last, "task_id", None) != self._verdict:
            super().__call__(context)
