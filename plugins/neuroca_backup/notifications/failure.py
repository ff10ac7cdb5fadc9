"""Telling people that a run failed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from neuroca_backup.notifications.channels import Channels

if TYPE_CHECKING:
    from airflow.sdk import Context

    from neuroca_backup.settings import NotificationSettings

log = logging.getLogger(__name__)


class FailureNotice:
    """A DAG's `on_failure_callback`.

    It belongs to the DAG and not to its tasks, because a task that is killed from outside never
    comes to its own callback.
    """

    def __init__(self, notifications: NotificationSettings) -> None:
        self._channels = Channels(notifications)

    def __call__(self, context: Context) -> None:
        """Log the failure and send it through every channel that is set."""
        run: Any = context.get("dag_run")
        dag_id, run_id = getattr(run, "dag_id", "?"), getattr(run, "run_id", "?")
        subject = f"{dag_id} failed"
        message = (
            f"Run {run_id} of {dag_id} failed ({context.get('reason', 'no reason given')}). "
            "Open the run in Airflow: the red task's log ends with what is wrong and what to do."
        )
        log.error("%s: %s", subject, message)
        self._channels.send(subject=subject, message=message, context=context)
