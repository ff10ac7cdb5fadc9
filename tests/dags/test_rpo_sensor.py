"""The sensor for an RPO: poked, rescheduled and deferred it decides the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowRescheduleException,
    AirflowSensorTimeout,
    TaskDeferred,
)

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.sensors.rpo import RpoSensor
from neuroca_backup.services.objectives.findings import Finding, Kind, Level
from neuroca_backup.triggers.rpo import RpoTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuroca_backup.model.identity import Component

CONTEXT: Any = {}


def finding(level: Level, age: float | None = 90_000) -> Finding:
    return Finding(Kind.RPO, level, "database", "", "it is old", "Back it up.", age, 86_400)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the objectives say, one look after the other; the last one stays."""
    from neuroca_backup.services.objectives.watching import (  # noqa: PLC0415 - after the environment
        Objectives,
    )

    found: list[Any] = []

    def held(_: Objectives, component: Component) -> Finding:
        assert component == "database"
        one = found.pop(0) if len(found) > 1 else found[0]
        if isinstance(one, Exception):
            raise one
        told: Finding = one
        return told

    monkeypatch.setattr(Objectives, "held", held)
    return found


def sensor(**changes: Any) -> RpoSensor:
    words = {"component": "database", "poke_interval": 0.01, "timeout": 10, **changes}
    return RpoSensor(task_id="inside", **words)


def fired(**changes: Any) -> dict[str, Any]:
    """Run the trigger as the triggerer does, made anew from what it serializes to."""
    place, words = RpoTrigger(**{"component": "database", "every": 0.01, **changes}).serialize()
    assert place == "neuroca_backup.triggers.rpo.RpoTrigger"

    async def first() -> dict[str, Any]:
        async for event in RpoTrigger(**words).run():
            payload: dict[str, Any] = event.payload
            return payload
        raise AssertionError

    return asyncio.run(asyncio.wait_for(first(), timeout=10))


@pytest.fixture(autouse=True)
def _installation(configure: Callable[..., Any]) -> None:
    configure()


@pytest.mark.parametrize("level", [Level.OK, Level.WARNING])
@pytest.mark.parametrize("at_breach", ["wait", "fail"])
def test_inside_the_rpo_it_succeeds_with_what_was_found(
    answers: list[Any], level: Level, at_breach: Any
) -> None:
    answers.append(finding(level))
    expected = finding(level).to_json()

    assert sensor(at_breach=at_breach).execute(CONTEXT) == expected
    assert sensor(at_breach=at_breach, deferrable=True).execute(CONTEXT) == expected
    event = fired(at_breach=at_breach)
    assert sensor(at_breach=at_breach).resume(CONTEXT, event) == expected


def test_at_a_breach_it_waits_until_it_is_inside(answers: list[Any]) -> None:
    answers += [finding(Level.BREACH), finding(Level.BREACH), finding(Level.OK)]
    assert sensor().execute(CONTEXT)["level"] == "ok"

    answers[:] = [finding(Level.BREACH), finding(Level.BREACH), finding(Level.OK)]
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute(CONTEXT)
    assert deferred.value.method_name == "resume"
    assert fired(at_breach="wait")["finding"]["level"] == "ok"


def test_it_does_not_wait_for_ever(answers: list[Any]) -> None:
    answers.append(finding(Level.BREACH))

    with pytest.raises(AirflowSensorTimeout):
        sensor(timeout=0.05).execute(CONTEXT)


def test_between_two_looks_it_can_leave_its_worker(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers.append(finding(Level.BREACH))
    waiting = sensor(mode="reschedule", poke_interval=60)

    class Ti:
        def get_first_reschedule_date(self, _: Any) -> None:
            return None

    with pytest.raises(AirflowRescheduleException):
        waiting.execute({"ti": Ti()})  # type: ignore[typeddict-item]


def test_it_can_fail_at_a_breach_at_once_and_says_why(answers: list[Any]) -> None:
    answers.append(finding(Level.BREACH))

    with pytest.raises(AirflowFailException, match=r"it is old\. Back it up"):
        sensor(at_breach="fail").execute(CONTEXT)
    with pytest.raises(AirflowFailException, match="it is old"):
        sensor(at_breach="fail").resume(CONTEXT, fired(at_breach="fail"))


def test_where_nothing_is_known_a_retry_may_know_more(answers: list[Any]) -> None:
    answers.append(finding(Level.BREACH, age=None))

    with pytest.raises(AirflowException) as failed:
        sensor(at_breach="fail").execute(CONTEXT)
    assert not isinstance(failed.value, AirflowFailException)


def test_a_trigger_that_cannot_look_says_so(answers: list[Any]) -> None:
    answers.append(ConfigurationError("no such connection", remedy="Create it."))

    event = fired(at_breach="wait")

    with pytest.raises(AirflowException, match=r"no such connection\. Create it"):
        sensor().resume(CONTEXT, event)


def test_a_wrong_word_is_refused() -> None:
    with pytest.raises(ValueError, match="at_breach: 'explode'"):
        sensor(at_breach="explode")
    with pytest.raises(AirflowFailException, match="'databse' is not a component"):
        sensor(component="databse").execute(CONTEXT)
