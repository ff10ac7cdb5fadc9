"""Telling people something by e-mail and SNS, as `notifications` in backup.yaml says."""

from __future__ import annotations

import logging
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from neuroca_backup.settings import NotificationSettings

log = logging.getLogger(__name__)

_LONGEST_SUBJECT = 100  # characters; SNS takes no more


class Channels:
    """Every channel that `settings` name; none at all where they name none."""

    def __init__(self, settings: NotificationSettings) -> None:
        self._settings = settings

    def send(self, *, subject: str, message: str, context: Context) -> int:
        """Send `message` through every channel and return how many there were.

        The message is plain text, whose line breaks are kept. Neither it nor the subject is
        rendered, so nothing that they quote is taken for a template. One channel that fails does
        not keep the others from sending.

        Raises:
            Exception: The first failure, whatever the channel raised, after all others were tried.
        """
        failures: list[Exception] = []
        channels = self._channels(" ".join(subject.split()), message)
        for name, send in channels.items():
            try:
                send(context)
            except Exception as error:  # noqa: BLE001 - raised below, after the other channel
                log.error("%s did not take the message: %s", name, type(error).__name__)  # noqa: TRY400 - raised below
                failures.append(error)
        if failures:
            raise failures[0]
        return len(channels)

    def _channels(self, subject: str, message: str) -> dict[str, Callable[[Any], None]]:
        channels: dict[str, Callable[[Any], None]] = {}
        if self._settings.email:
            from airflow.providers.smtp.notifications.smtp import (  # noqa: PLC0415 - takes seconds
                SmtpNotifier,
            )

            channels["e-mail"] = SmtpNotifier(
                to=list(self._settings.email),
                subject=subject,
                html_content="<p>" + escape(message).replace("\n", "<br>\n") + "</p>",
                smtp_conn_id=self._settings.smtp_connection or "smtp_default",
            ).notify
        if self._settings.sns_topic_arn:
            from airflow.providers.amazon.aws.notifications.sns import (  # noqa: PLC0415 - as above
                SnsNotifier,
            )

            channels["SNS"] = SnsNotifier(
                aws_conn_id=self._settings.sns_connection,
                target_arn=self._settings.sns_topic_arn,
                subject=subject[:_LONGEST_SUBJECT],
                message=message,
            ).notify
        return channels
