"""Watching an objective: people are told once, at the right times, and never that all is well."""

from __future__ import annotations

import pytest

from neuroca_backup.errors import ConfigurationError, StoreUnavailableError
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.services.recovery.watch import Sight, Verdict, Watch
from support.memory_store import Death, Killed
from support.recovering import Recovering

WARNED, BREACHED, MET = EventKind.WARNED, EventKind.BREACHED, EventKind.MET


class Watched(Recovering):
    """A recovery whose objective `database` is watched; `sent` are the subjects of messages."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []
        self.messages: list[str] = []
        self.mail_works = True
        self.watch = self.anew()

    def anew(self, objective: str = "database") -> Watch:
        """Return the watch of a process that was started anew."""

        def notify(subject: str, message: str) -> int:
            if not self.mail_works:
                raise OSError("the mail server is gone, too")
            self.sent.append(subject)
            self.messages.append(message)
            return 1

        self.watch = Watch(
            self.journal(),
            objective,
            notify=notify,
            actor="airflow",
            known=("database", "memory_tiers", "full_system"),
            now=lambda: self.now,
        )
        return self.watch

    def look(self, minute: float) -> Sight:
        self.minute(minute)
        return self.watch.look()

    def silence(self, *, silent: bool = True) -> None:
        for one in self.stores.values():
            one.answers = not silent


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_people_are_told_at_each_level_once_and_when_it_is_over(watched: Watched) -> None:
    for minute in range(0, 239, 7):
        assert watched.look(minute).verdict is Verdict.WAIT
    assert watched.sent == [
        f"Drill: objective database: {one} % of the time is used" for one in (50, 75, 90)
    ]
    assert watched.look(240).verdict is Verdict.WAIT
    for minute in (240.1, 250):
        assert watched.look(minute).verdict is Verdict.BREACHED
    assert watched.sent[3:] == ["Drill: objective database: BREACHED"]
    assert watched.told(WARNED, BREACHED) == [("warned", "database")] * 3 + [
        ("breached", "database")
    ]


def test_a_message_says_what_is_open_and_which_recovery_it_is_of(watched: Watched) -> None:
    watched.minute(100).back("redis")
    watched.tell(EventKind.FAILED, "postgres")
    watched.look(130)
    (message,) = watched.messages
    assert "2 h 10 min used of 4 h 0 min (54%), 110 min left" in message
    assert "open: postgres; failed: postgres" in message
    assert watched.ref.recovery_id in message
    assert "the region burnt down" in message


def test_started_anew_at_every_look_it_tells_nothing_twice(watched: Watched) -> None:
    for minute in range(0, 300, 3):
        watched.anew()
        watched.look(minute)
    assert len(watched.sent) == 4
    assert len(watched.told(WARNED, BREACHED)) == 4


def test_a_level_that_was_passed_while_nobody_looked_is_told_alone(watched: Watched) -> None:
    watched.look(10)
    watched.look(220)
    watched.look(221)
    assert watched.sent == ["Drill: objective database: 90 % of the time is used"]


@pytest.mark.parametrize("after", range(30))
def test_killed_anywhere_it_is_told_at_least_once_and_written_once(
    watched: Watched, after: int
) -> None:
    watched.minute(130)
    death = Death(after)
    for one in watched.stores.values():
        one.dies_after = death
    try:
        watched.watch.look()
    except Killed:
        watched.sent += []
    for one in watched.stores.values():
        one.dies_after = lambda: False
    watched.anew().look()
    assert watched.told(WARNED) == [("warned", "database")]
    assert len(watched.sent) in {1, 2}


def test_what_is_met_is_written_with_its_time_and_nobody_is_disturbed(watched: Watched) -> None:
    watched.minute(100).back("redis")
    watched.minute(110).back("postgres")
    for minute in (112, 113):
        assert watched.look(minute).verdict is Verdict.MET
    (met,) = [one for one in watched.journal().read().events if one.kind is MET]
    assert (met.details["used_seconds"], met.details["late"]) == (110 * 60, False)
    assert watched.sent == []


def test_what_was_met_while_nobody_looked_is_met_even_after_the_limit(watched: Watched) -> None:
    watched.minute(100).back("redis")
    watched.minute(110).back("postgres")
    assert watched.look(900).verdict is Verdict.MET


def test_met_late_is_a_breach_that_people_are_told_of(watched: Watched) -> None:
    watched.minute(100).back("redis")
    watched.minute(250).back("postgres")
    assert watched.look(251).verdict is Verdict.BREACHED
    assert watched.told(BREACHED, MET) == [("breached", "database"), ("met", "database")]
    assert len(watched.sent) == 1


def test_a_recovery_that_ended_is_not_waited_for_and_warns_of_nothing(watched: Watched) -> None:
    watched.minute(130).tell(EventKind.ENDED, outcome="rejected")
    assert watched.look(131).verdict is Verdict.ENDED
    assert watched.sent == []


def test_a_mail_server_that_is_gone_stops_nothing_and_is_in_the_journal(watched: Watched) -> None:
    watched.mail_works = False
    assert watched.look(130).verdict is Verdict.WAIT
    (warned,) = [one for one in watched.journal().read().events if one.kind is WARNED]
    assert warned.details["notified"] == 0


def test_a_journal_that_cannot_be_written_delays_no_verdict_and_tells_once(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the stores are read-only", remedy="Wait.")

    for one in watched.stores.values():
        monkeypatch.setattr(one, "put", refuse)
    for minute in (130, 131, 132):
        assert watched.look(minute).verdict is Verdict.WAIT
    assert len(watched.sent) == 1
    assert watched.look(250).verdict is Verdict.BREACHED


def test_while_no_store_answers_it_waits_and_after_the_limit_it_does_not_know(
    watched: Watched,
) -> None:
    watched.look(10)
    watched.silence()
    assert watched.look(200).verdict is Verdict.WAIT
    for minute in (241, 242):
        assert watched.look(minute).verdict is Verdict.UNKNOWN
    assert watched.sent == ["Recovery objective database: unknown"]
    watched.silence(silent=False)
    watched.minute(230).back("redis")
    watched.minute(231).back("postgres")
    assert watched.look(243).verdict is Verdict.MET


def test_what_a_silent_store_may_have_is_said_with_a_breach(watched: Watched) -> None:
    watched.stores["primary"].answers = False
    sight = watched.look(250)
    assert sight.verdict is Verdict.BREACHED
    assert "without primary, which did not answer" in sight.text
    assert "without primary" in watched.messages[0]


def test_without_a_journal_from_the_beginning_nothing_is_known(watched: Watched) -> None:
    watched.silence()
    with pytest.raises(StoreUnavailableError):
        watched.look(10)


def test_an_objective_of_which_nothing_was_lost_is_absent_and_a_stranger_refused(
    watched: Watched,
) -> None:
    assert watched.anew("full_system").look().verdict is Verdict.ABSENT
    with pytest.raises(ConfigurationError, match="has no objective 'databse'"):
        watched.anew("databse").look()
