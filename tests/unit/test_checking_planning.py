"""Which copies a run reads, and how deep: pure, and over weeks of runs."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.status import Level
from neuroca_backup.services.checking.planning import Check, Copy, Last, Plan, Rules, State, plan

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
NOW = datetime(2026, 11, 24, 7, tzinfo=UTC)
RULES = Rules()


def copy(
    age: float,
    *,
    read: float | None = None,
    store: str = "primary",
    level: Level = Level.INTACT,
    sound: bool = True,
    deep: float | None = None,
    **more: object,
) -> Copy:
    """Return a copy whose backup is `age` days old and that was read `read` days ago."""
    made = NOW - age * DAY
    last = None
    if read is not None:
        at = NOW - read * DAY
        last = Last(level, sound, at, at if deep is None else NOW - deep * DAY)
    ref = BackupRef.of(set_id(at=made, run=str(made)), Component.DATABASE, "postgres")
    return replace(Copy(ref, store, size=100, since=made, last=last), **more)  # type: ignore[arg-type]


def planned(*copies: Copy, rules: Rules = RULES, now: datetime = NOW, **words: object) -> Plan:
    return plan(Component.DATABASE, "postgres", copies, rules=rules, now=now, **words)  # type: ignore[arg-type]


def chosen(found: Plan) -> list[Copy]:
    return [check.copy for check in found.checks]


def one(found: Plan) -> Check:
    (check,) = found.checks
    return check


def test_what_was_not_read_for_longer_than_the_window_is_overdue_and_always_read() -> None:
    copies = [copy(30 + n, read=7.01 + n) for n in range(50)]
    found = planned(*copies)
    assert len(found.checks) == found.overdue == 50
    assert found.checks[0].reason == "overdue: last checked 2026-11-17T06:45:36+00:00: INTACT"


def test_what_would_be_overdue_before_the_next_run_has_ended_is_read_now() -> None:
    late = copy(30, read=6)
    # The next run, a day from now, may take six hours to come to it.
    later = copy(30, read=5.74)
    found = planned(late, later, *(copy(n, read=0.1) for n in range(20)))
    assert (chosen(found), found.overdue) == ([late], 0)
    assert one(found).reason == "it would be overdue in the next run"
    assert chosen(planned(copy(30, read=5.76), *(copy(n, read=0.1) for n in range(20))))


def test_a_backup_that_nobody_has_checked_is_overdue_a_window_after_it_was_made() -> None:
    assert planned(copy(7.1)).overdue == 1
    assert planned(copy(6.9)).overdue == 0
    assert one(planned(copy(6.9))).reason == "never checked"
    assert one(planned(copy(7.1))).reason == "overdue: never checked"


def test_the_never_checked_come_before_everything_and_the_newest_of_them_first() -> None:
    never = [copy(1), copy(2), copy(9)]
    overdue, turn = copy(20, read=8), copy(3, read=4)
    found = planned(turn, overdue, *reversed(never), rules=replace(RULES, window=4 * DAY))
    assert chosen(found) == [*never, overdue, turn]


def test_what_was_found_damaged_is_read_again_in_every_run() -> None:
    damaged = copy(3, read=0.1, sound=False, level=Level.PRESENT)
    found = planned(damaged, copy(3, read=0.1, store="secondary"))
    assert chosen(found) == [damaged]
    assert one(found).reason == "it was found damaged"


def test_what_is_lost_is_told_in_every_run_and_only_as_far_as_it_goes() -> None:
    lost = copy(3, read=0.1, state=State.LOST, level=Level.PARSED)
    check = one(planned(lost, rules=replace(RULES, parsed=100)))
    assert (check.copy, check.level) == (lost, Level.INTACT)


def test_what_is_archived_is_never_read_and_never_left_out_of_the_report() -> None:
    cold = copy(30, read=29, state=State.ARCHIVED)
    for whole in (True, False):
        found = planned(cold, whole=whole)
        assert (found.checks, found.archived, found.later) == ((), (cold,), ())
    assert cold.history == "last checked 2026-10-26T07:00:00+00:00: INTACT"
    assert copy(30, state=State.ARCHIVED).history == "never checked"


def test_what_is_still_being_copied_waits() -> None:
    coming = copy(0.1, state=State.COMING)
    assert (planned(coming).checks, planned(coming).coming) == ((), (coming,))


def test_whole_reads_everything_there_is_to_read() -> None:
    copies = [copy(n, read=0.01) for n in range(9)]
    assert set(chosen(planned(*copies, whole=True))) == set(copies)
    assert chosen(planned(*copies)) == []
    assert planned(*copies).later == tuple(copies)


def test_a_run_reads_its_share_of_all_bytes_those_first_that_were_not_read_for_longest() -> None:
    copies = [copy(30 - n, read=1 + n / 10) for n in range(40)]
    found = planned(*copies)
    # Five runs read 40 copies, each eight of them.
    assert {c.unread_since for c in chosen(found)} == {
        NOW - (1 + n / 10) * DAY for n in range(32, 40)
    }


def test_what_new_backups_have_read_counts_for_the_share_of_a_run() -> None:
    old = [copy(30 - n, read=2 + n / 20) for n in range(10)]
    fresh = [copy(0.2, read=0.2, store=f"s{n}") for n in range(3)]
    assert len(planned(*old, *fresh).checks) == 0
    assert len(planned(*old, *fresh[:2]).checks) == 1


def test_a_sample_is_read_deeper_those_whose_last_deep_look_is_longest_ago() -> None:
    deep = copy(10, read=7.5, level=Level.PARSED, deep=20)
    recent = copy(11, read=7.5, level=Level.PARSED, deep=7.5)
    never = copy(12, read=7.5)
    readable = copy(13, read=7.5, level=Level.READABLE, deep=9)

    def parsed(*copies: Copy) -> list[Copy]:
        return [c.copy for c in planned(*copies).checks if c.level is Level.PARSED]

    assert parsed(recent, deep, never, readable) == [never], "10 % of four is one"
    assert parsed(recent, deep, readable) == [readable]
    assert parsed(recent, deep) == [deep]


def test_of_a_run_the_given_percent_are_parsed_and_unsealed_and_at_least_one_of_each() -> None:
    def levels(count: int, **rules: int) -> list[int]:
        copies = [copy(8 + n) for n in range(count)]
        found = planned(*copies, rules=replace(RULES, **rules))  # type: ignore[arg-type]
        depths = [check.level for check in found.checks]
        return [depths.count(one) for one in (Level.PARSED, Level.READABLE, Level.INTACT)]

    assert levels(20) == [2, 4, 14]
    assert levels(2) == [1, 1, 0]
    assert levels(20, parsed=0) == [0, 4, 16]
    assert levels(20, parsed=0, readable=0) == [0, 0, 20]
    assert levels(20, parsed=100) == [20, 0, 0]


def test_a_level_that_is_asked_for_is_that_of_every_copy() -> None:
    found = planned(*(copy(8 + n) for n in range(5)), level=Level.READABLE)
    assert {check.level for check in found.checks} == {Level.READABLE}


def test_the_same_copies_give_the_same_plan_in_whatever_order_they_are_listed() -> None:
    copies = [copy(n, read=n % 6 or None, store=s) for n in range(20) for s in ("a", "b")]
    wanted = planned(*copies).checks
    for seed in range(5):
        random.Random(seed).shuffle(copies)  # noqa: S311 - an order, no secret
        assert planned(*copies).checks == wanted


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        planned(now=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake


@pytest.mark.parametrize("every", [1, 7])
@pytest.mark.parametrize("failing", [False, True])
def test_over_ten_weeks_nothing_is_unread_for_longer_than_the_window_and_no_run_reads_it_all(
    every: int,
    failing: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    chance = random.Random(every)  # noqa: S311 - sizes, no secret
    copies = [
        copy(age, read=age, store=store, size=chance.randrange(80, 120))
        for age in range(0, 30, every)
        for store in ("primary", "secondary")
    ]
    shares: list[float] = []
    longest = timedelta()
    for day in range(70):
        now = NOW + day * DAY
        if day % every == 0 and day:
            fresh = [replace(copy(-day), store=s) for s in ("primary", "secondary")]
            at = now - 2 * HOUR
            copies += [replace(c, last=Last(Level.PARSED, True, at, at)) for c in fresh]
        copies = [c for c in copies if now - c.since < 30 * DAY]
        if failing and day % 7 == 3:
            continue  # this run never came
        found = planned(*copies, now=now)
        ends = now + RULES.longest
        if day > 7:
            shares.append(found.size / sum(c.size for c in copies))
            longest = max([longest, *(ends - c.unread_since for c in chosen(found))])
            assert not found.overdue
        read = {check.copy for check in found.checks}
        copies = [
            replace(c, last=Last(check_level(c), True, ends, ends)) if c in read else c
            for c in copies
        ]
    assert longest <= RULES.window + RULES.longest
    assert max(shares) < 0.5, shares


def check_level(one: Copy) -> Level:
    return one.last.level if one.last is not None else Level.INTACT


def test_a_schedule_of_several_runs_a_day_spreads_the_same_over_more_of_them() -> None:
    copies = [copy(30 - n, read=1 + n / 20) for n in range(40)]
    often = planned(*copies, rules=replace(RULES, schedule="0 */6 * * *"))
    assert len(often.checks) == 2
    assert len(planned(*copies).checks) == 8
    assert all(a.copy != b.copy for a, b in pairwise(often.checks))
