"""How a message reaches people, whoever has something to say."""

from __future__ import annotations

from typing import Any

import pytest

from neuroca_backup.notifications.channels import Channels
from neuroca_backup.settings import NotificationSettings

TOPIC = "arn:aws:sns:us-west-2:123456789012:backups"
BOTH = {"email": ["oncall@nca.example"], "sns_topic_arn": TOPIC}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The notifiers that were told to send, instead of doing so."""
    from airflow.providers.amazon.aws.notifications.sns import SnsNotifier  # noqa: PLC0415 - slow

    smtp = pytest.importorskip("airflow.providers.smtp.notifications.smtp")
    found: list[Any] = []
    for notifier in (smtp.SmtpNotifier, SnsNotifier):
        monkeypatch.setattr(notifier, "notify", lambda one, _context: found.append(one))
    return found


def send(settings: dict[str, Any], subject: str, message: str) -> int:
    channels = Channels(NotificationSettings.model_validate(settings))
    return channels.send(subject=subject, message=message, context={})


def test_a_message_goes_through_every_channel_that_is_set(sent: list[Any]) -> None:
    assert send(BOTH, "postgres is old", "one line\nanother & more") == 2

    mail, sns = sent
    assert mail.subject == sns.subject == "postgres is old"
    assert mail.html_content == "<p>one line<br>\nanother &amp; more</p>"
    assert sns.message == "one line\nanother & more"


def test_what_a_message_quotes_is_not_taken_for_a_template(sent: list[Any]) -> None:
    send(BOTH, "{{ dag }} is late", "{% set x = 1 %}{{ undefined.anything }}")

    assert [one.subject for one in sent] == ["{{ dag }} is late"] * 2
    assert sent[1].message == "{% set x = 1 %}{{ undefined.anything }}"


def test_a_subject_is_one_line_that_every_channel_takes(sent: list[Any]) -> None:
    send(BOTH, "two\nlines " + "x" * 200, "message")

    assert sent[0].subject.startswith("two lines x")
    assert len(sent[1].subject) == 100


def test_without_channels_nothing_is_sent_and_the_count_says_so(sent: list[Any]) -> None:
    assert send({}, "subject", "message") == 0
    assert sent == []
