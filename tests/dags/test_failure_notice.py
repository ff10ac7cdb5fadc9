"""Who is told when a run fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from neuroca_backup.notifications.failure import FailureNotice
from neuroca_backup.settings import NotificationSettings

TOPIC = "arn:aws:sns:us-west-2:123456789012:backups"
CONTEXT: Any = {
    "dag_run": SimpleNamespace(dag_id="backup_database", run_id="scheduled__1"),
    "reason": "task_failure",
}


class Channels:
    """Stands in for the providers' notifiers and keeps what they would have sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def __call__(self, name: str, *, broken: bool = False) -> Any:
        def notify(_notifier: Any, _context: Any) -> None:
            if broken:
                raise ConnectionError(name)
            self.sent.append(name)

        return notify


@pytest.fixture
def channels() -> Channels:
    return Channels()


@pytest.fixture
def notice() -> FailureNotice:
    return FailureNotice(
        NotificationSettings.model_validate(
            {"email": ["oncall@nca.example"], "sns_topic_arn": TOPIC}
        )
    )


def test_without_channels_the_failure_is_still_logged(caplog: pytest.LogCaptureFixture) -> None:
    FailureNotice(NotificationSettings())(CONTEXT)

    assert "Run scheduled__1 of backup_database failed (task_failure)" in caplog.text


def test_a_channel_that_fails_does_not_silence_the_other_and_is_reported(
    notice: FailureNotice, channels: Channels, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.notifications.sns import SnsNotifier  # noqa: PLC0415 - slow

    smtp = pytest.importorskip("airflow.providers.smtp.notifications.smtp")
    monkeypatch.setattr(smtp.SmtpNotifier, "notify", channels("mail", broken=True))
    monkeypatch.setattr(SnsNotifier, "notify", channels("sns"))

    with pytest.raises(ConnectionError, match="mail"):
        notice(CONTEXT)

    assert channels.sent == ["sns"]
