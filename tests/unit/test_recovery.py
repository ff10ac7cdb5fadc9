"""Ids, keys and events of recoveries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from neuroca_backup.errors import ConfigurationError, DamagedError
from neuroca_backup.model.recovery import (
    Declared,
    Entry,
    Event,
    EventKind,
    EventName,
    Objective,
    RecoveryRef,
    is_recovery_key,
)
from support.histories import BEGIN, History

AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)


def test_an_id_sorts_by_time_and_says_what_it_is() -> None:
    made = [
        RecoveryRef.new(at=AT + timedelta(hours=hour), drill=drill)
        for hour, drill in ((0, True), (1, False), (2, True), (3, False))
    ]
    assert sorted(made) == made
    assert [(one.time - AT, one.drill) for one in made] == [
        (timedelta(hours=hour), hour % 2 == 0) for hour in range(4)
    ]


def test_the_same_run_gives_the_same_id_and_without_one_each_is_another() -> None:
    paris = timezone(timedelta(hours=1))
    first = RecoveryRef.new(at=AT, drill=True, run="manual__1")
    assert RecoveryRef.new(at=AT.astimezone(paris), drill=True, run="manual__1") == first
    assert len({RecoveryRef.new(at=AT, drill=True) for _ in range(20)}) == 20


@pytest.mark.parametrize(
    "text",
    ["", "20261123T020000Z-1f0c9a3e", "20261323T020000Z-drill-1f0c9a3e", "../x", "latest"],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the id of a recovery"):
        RecoveryRef(text)


@pytest.mark.parametrize("name", ["../x.json", "declared.json", "x.py", "events/x.json", ""])
def test_documents_cannot_take_the_place_of_anything_else(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        RecoveryRef.new(at=AT, drill=True).attachment_key(name)


@given(
    at=st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 1)),  # noqa: DTZ001
    subject=st.text(st.characters(exclude_categories=["Cs"])),
    details=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES),
)
def test_an_event_is_read_as_it_was_written(at: Any, subject: str, details: Any) -> None:
    ref = RecoveryRef.new(at=AT, drill=True)
    event = Event(at=at, kind=EventKind.FAILED, subject=subject, actor="x", details=details)
    name = EventName.of(event, once="o", attempt="0badcafe")
    assert EventName.parse(str(name)) == name
    assert is_recovery_key(f"{ref.events_prefix}/{name}")
    entry = Entry(recovery_id=ref.recovery_id, once="o", event=event)
    assert Entry.decode(entry.encode(), name="x", ref=ref, parsed=name) == entry
    kinds = [type(value) for value in details.values()]
    found = Entry.decode(entry.encode(), name="x", ref=ref, parsed=name).event.details
    assert [type(found[key]) for key in details] == kinds


def test_the_event_of_another_recovery_is_not_believed() -> None:
    ref, other = (RecoveryRef.new(at=AT, drill=True, run=run) for run in "ab")
    event = Event(at=AT, kind=EventKind.MET, subject="database", actor="x")
    entry = Entry(recovery_id=other.recovery_id, once="o", event=event)
    parsed = EventName.of(event, once="o", attempt="0badcafe")
    with pytest.raises(DamagedError, match="is another event"):
        Entry.decode(entry.encode(), name="x", ref=ref, parsed=parsed)


def test_a_check_says_whether_it_passed() -> None:
    with pytest.raises(ValidationError, match="needs `passed`"):
        Event(at=AT, kind=EventKind.CHECKED, subject="postgres", actor="x")
    passed, failed = (
        Event(at=AT, kind=EventKind.CHECKED, actor="x", details={"passed": found})
        for found in (True, False)
    )
    assert (passed.passed, failed.passed) == (True, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"drill": False},
        {"components": ()},
        {"declared_at": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
        {"objectives": {"database": {"limit_seconds": 0, "sources": ("a",)}}},
        {"objectives": {"database": {"limit_seconds": 5, "sources": ()}}},
    ],
)
def test_what_contradicts_itself_is_not_declared(wrong: dict[str, Any]) -> None:
    fields: dict[str, Any] = {
        "recovery_id": RecoveryRef.new(at=AT, drill=True).recovery_id,
        "what": "fire",
        "declared_at": AT,
        "recorded_at": AT,
        "actor": "x",
        "drill": True,
        "components": ("database",),
        "target": "a sandbox",
        "objectives": {"database": Objective(limit_seconds=5, sources=("postgres", "redis"))},
        "waves": (("redis",),),
    }
    assert Declared(**fields).sources == ("redis", "postgres")
    with pytest.raises(ValidationError):
        Declared(**{**fields, **wrong})


def test_a_journal_is_no_stranger_to_retention_and_nothing_of_it_is_swept() -> None:
    history = History()
    ref = RecoveryRef.new(at=BEGIN, drill=True, run="x")
    event = Event(at=BEGIN, kind=EventKind.ENDED, actor="x")
    name = EventName.of(event, once="o", attempt="0badcafe")
    ours = [ref.declared_key, f"{ref.events_prefix}/{name}", ref.attachment_key("report.html")]
    strange = [f"{ref.prefix}/notes.txt", f"{ref.events_prefix}/x.json", "recoveries/x/plan.json"]
    store = history.stores["primary"]
    for key in ours + strange:
        store.objects[key] = (b"x", BEGIN)
    swept = history.at(4000).retention.sweep(actor="test")
    assert sorted(swept.strangers) == sorted(f"primary: {key}" for key in strange)
    assert set(store.objects) == {*ours, *strange}
