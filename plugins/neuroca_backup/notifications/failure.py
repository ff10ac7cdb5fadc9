"""Telling people that a run failed, by e-mail and SNS, as backup.yaml says."""

from __future__ import annotations

import logging
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from neuroca_backup.settings import NotificationSettings

log = logging.getLogger(__name__)


class FailureNotice:
    """A DAG's `on_failure_callback`.

    It belongs to the DAG and not to its tasks, because a task that is killed from outside never
    comes to its own callback. One channel that fails does not silence the other.
    """

    def __init__(self, notifications: NotificationSettings) -> None:
        self._settings = notifications

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
        failures: list[Exception] = []
        for send in self._channels(subject, message):
            try:
                send(context)
            except Exception as error:  # noqa: BLE001 - raised below, after the other channel
                failures.append(error)
        if failures:
            raise failures[0]

    def _channels(self, subject: str, message: str) -> list[Callable[[Any], None]]:
        channels: list[Callable[[Any], None]] = []
        if self._settings.email:
            from airflow.providers.smtp.notifications.smtp import (  # noqa: PLC0415 - takes seconds
                SmtpNotifier,
            )

            channels.append(
                SmtpNotifier(
                    to=list(self._settings.email),
                    subject=subject,
                    html_content=f"<p>{escape(message)}</p>",
                    smtp_conn_id=self._settings.smtp_connection or "smtp_default",
                )
            )
        if self._settings.sns_topic_arn:
            from airflow.providers.amazon.aws.notifications.sns import (  # noqa: PLC0415 - as above
                SnsNotifier,
            )

            channels.append(
                SnsNotifier(
                    aws_conn_id=self._settings.sns_connection,
                    target_arn=self._settings.sns_topic_arn,
                    subject=subject[:100],  # the longest that SNS takes
                    message=message,
                )
            )
        return channels
