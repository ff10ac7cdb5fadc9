"""What expires and what stays, in the words of the plan; what is done about it, in the stores."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)
from neuroca_backup.model.identity import Component
from neuroca_backup.model.retention import Hold
from neuroca_backup.services.chains import continued
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.services.retention import marks, planning
from neuroca_backup.services.retention.planning import Fate
from neuroca_backup.services.sets import Sets
from support.histories import BEGIN, BOTH, DAY, SOURCE, History, ids


@pytest.fixture
def history() -> History:
    return History()


def daily(history: History, count: int, **more: Any) -> list[Any]:
    """Put a verified full backup on each of `count` days, from day 0 on."""
    return [history.put(day, **more) for day in range(count)]


def find(history: History, **words: Any) -> str:
    found = Inventory(history.stores).find(SOURCE, component=Component.DATABASE, **words)
    return found.ref.backup_id


# What is decided.


def test_a_backup_expires_after_its_components_days_by_its_start(history: History) -> None:
    refs = daily(history, 10)
    history.at(34.999)
    assert history.fates() == {
        **{one.backup_id: Fate.EXPIRE for one in refs[:5]},
        **{one.backup_id: Fate.KEEP for one in refs[5:]},
    }
    assert history.reason(refs[0]) == "older than 30 days since 2026-01-31 02:00 UTC"
    assert history.reason(refs[5]) == "not older than 30 days before 2026-02-05 02:00 UTC"


def test_the_start_counts_in_whatever_time_zone_it_is_written(history: History) -> None:
    from zoneinfo import ZoneInfo  # noqa: PLC0415 - only here

    early = history.put(0, zone=ZoneInfo("Pacific/Kiritimati"))
    late = history.put(1, zone=ZoneInfo("Pacific/Pago_Pago"))
    for day in range(2, 5):
        history.put(day)
    assert history.at(29.99).fates()[early.backup_id] is Fate.KEEP
    assert history.at(30).fates()[early.backup_id] is Fate.EXPIRE
    assert history.fates()[late.backup_id] is Fate.KEEP


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        planning.plan(
            Component.DATABASE,
            SOURCE,
            [],
            rules=History().rules,
            now=datetime(2026, 1, 1),  # noqa: DTZ001 - the mistake
        )


def test_the_newest_verified_backups_stay_whatever_their_age(history: History) -> None:
    refs = daily(history, 5)
    history.at(1000)
    assert [history.fates()[one.backup_id] for one in refs] == [Fate.EXPIRE] * 2 + [Fate.KEEP] * 3
    assert history.reason(refs[4]) == "one of the newest 3 verified backups"


def test_backups_that_failed_their_check_do_not_push_out_good_ones(history: History) -> None:
    good = daily(history, 3)
    bad = [history.put(day, sound=(), damaged=BOTH) for day in range(3, 6)]
    unchecked = [history.put(day, sound=()) for day in range(6, 9)]
    history.at(1000)
    fates = history.fates()
    assert {fates[one.backup_id] for one in good} == {Fate.KEEP}
    assert {fates[one.backup_id] for one in [*bad, *unchecked]} == {Fate.KEEP}
    assert history.reason(bad[0]) == "damaged, but there is no newer verified backup"
    assert history.reason(unchecked[0]) == "not verified, but there is no newer verified backup"


def test_an_unverified_backup_goes_once_a_newer_verified_one_exists(history: History) -> None:
    bad = [history.put(0, sound=()), history.put(1, sound=(), damaged=BOTH)]
    history.put(2)
    history.at(29)
    assert {history.fates()[one.backup_id] for one in bad} == {Fate.KEEP}
    history.at(31.5)
    assert {history.fates()[one.backup_id] for one in bad} == {Fate.EXPIRE}
    assert history.reason(bad[0]).startswith("never verified, older than 30 days")
    assert history.reason(bad[1]).startswith("damaged, older than 30 days")


def test_copies_in_two_stores_count_before_those_in_one(history: History) -> None:
    twice = daily(history, 3)
    once = [history.put(day, sound=("primary",), damaged=("secondary",)) for day in range(3, 9)]
    fates = history.at(1000).fates()
    assert {fates[one.backup_id] for one in twice} == {Fate.KEEP}
    assert [fates[one.backup_id] for one in once] == [Fate.EXPIRE] * 5 + [Fate.KEEP]
    assert history.reason(once[-1]) == "the newest backup that can be restored whole"


def test_where_too_few_are_in_two_stores_those_in_one_fill_up(history: History) -> None:
    twice = history.put(0)
    once = [history.put(day, stores=("primary",)) for day in range(1, 6)]
    fates = history.at(1000).fates()
    assert fates[twice.backup_id] is Fate.KEEP
    assert [fates[one.backup_id] for one in once] == [Fate.EXPIRE] * 3 + [Fate.KEEP] * 2


def test_a_chain_stays_as_long_as_its_youngest_link(history: History) -> None:
    chain = [history.put(day, parent=day - 1 if day else None) for day in range(7)]
    for day in range(7, 10):
        history.put(day)
    history.at(35)
    assert {history.fates()[one.backup_id] for one in chain} == {Fate.KEEP}
    assert history.reason(chain[0]) == f"needed by {chain[6].backup_id}"
    history.at(36)
    assert {history.fates()[one.backup_id] for one in chain} == {Fate.EXPIRE}


def test_what_later_backups_refer_to_stays_through_others_too(history: History) -> None:
    base = history.put(0)
    middle = history.put(1, refers=[0])
    history.put(2)
    youngest = history.put(40, refers=[1])
    for day in range(41, 44):
        history.put(day)
    history.at(60)
    fates = history.fates()
    assert fates[base.backup_id] is fates[middle.backup_id] is Fate.KEEP
    assert history.reason(base).startswith(f"needed by {youngest.backup_id}")
    assert history.at(71).fates()[base.backup_id] is Fate.EXPIRE


def test_an_incremental_backup_without_its_chain_is_no_good_copy(history: History) -> None:
    good = [history.put(0), history.put(1), history.put(2)]
    broken = [history.put(day, parent=2.5) for day in (3, 4, 5)]
    fates = history.at(1000).fates()
    assert {fates[one.backup_id] for one in good} == {Fate.KEEP}
    assert {fates[one.backup_id] for one in broken} == {Fate.KEEP}, "no newer verified one"


def test_a_chain_with_an_unverified_link_is_no_good_copy(history: History) -> None:
    good = daily(history, 3)
    history.put(3, sound=())
    for day in (4, 5, 6):
        history.put(day, parent=day - 1)
    assert {history.at(1000).fates()[one.backup_id] for one in good} == {Fate.KEEP}


def test_what_was_saved_before_a_restore_never_counts_and_goes_by_its_own_age(
    history: History,
) -> None:
    good = daily(history, 3)
    saved = [history.put(day, before_restore="restore-1") for day in (3, 4, 5)]
    fates = history.at(33.5).fates()
    assert {fates[one.backup_id] for one in good} == {Fate.KEEP}
    assert [fates[one.backup_id] for one in saved] == [Fate.EXPIRE, Fate.KEEP, Fate.KEEP]


def test_of_nothing_but_what_was_saved_before_restores_the_newest_stays(history: History) -> None:
    saved = [history.put(day, before_restore="restore-1") for day in (3, 4, 5)]
    fates = history.at(1000).fates()
    assert [fates[one.backup_id] for one in saved] == [Fate.EXPIRE, Fate.EXPIRE, Fate.KEEP]
    assert history.reason(saved[2]) == "the newest backup that can be restored whole"


def test_an_unreadable_manifest_stops_the_deletion_of_its_source(history: History) -> None:
    refs = daily(history, 10)
    other = [history.put(day, source="mongodb") for day in range(10)]
    history.stores["secondary"].objects[refs[9].manifest_key] = (b"{", BEGIN)
    history.at(35)
    assert len(history.plan().unknown) == 1
    assert refs[9].backup_id in history.plan().unknown[0]
    before = history.snapshot()
    with pytest.raises(PermanentError, match="not everything is known"):
        history.apply()
    assert history.snapshot() == before
    assert history.apply(source="mongodb").expired == [o.backup_id for o in other[5::-1]]


def test_a_store_that_does_not_answer_stops_every_deletion(history: History) -> None:
    daily(history, 10)
    history.stores["secondary"].answers = False
    before = history.snapshot()
    with pytest.raises(StoreUnavailableError, match="secondary does not answer"):
        history.at(35).apply()
    assert history.snapshot() == before


def test_a_store_that_stops_answering_half_way_stops_every_deletion(history: History) -> None:
    daily(history, 10)
    store = history.stores["secondary"]
    calls = iter(range(1000))

    def fail_later() -> bool:
        store.answers = next(calls) < 12
        return False

    store.dies_after = fail_later
    with pytest.raises(StoreUnavailableError):
        history.at(35).apply()
    assert not any(key.endswith("tombstone.json") for key in store.objects)


@pytest.mark.parametrize("beside", ["tombstone_key", "hold_key", "verification_key"])
def test_a_damaged_object_beside_a_manifest_stops_the_deletion(
    history: History, beside: str
) -> None:
    refs = daily(history, 10)
    history.stores["primary"].objects[getattr(refs[0], beside)] = (b"no", BEGIN)
    with pytest.raises(PermanentError, match=beside.removesuffix("_key")):
        history.at(35).apply()


def test_a_clock_that_is_behind_the_newest_backup_stops_the_deletion(history: History) -> None:
    daily(history, 10)
    newest = history.put(50)
    with pytest.raises(PermanentError, match="one of the clocks is wrong"):
        history.at(49.99).apply()
    history.at(50 - 1 / 24 / 10).apply()  # six minutes are within the tolerance
    assert newest.backup_id in history.left()


def test_too_many_at_once_are_asked_for(history: History) -> None:
    refs = daily(history, 10)
    history.at(35)  # six of ten
    before = history.snapshot()
    with pytest.raises(PermanentError, match=r"6 of 10 verified backups .* more than 50 %"):
        history.apply(confirmed=False)
    assert history.snapshot() == before
    assert history.apply(confirmed=True).expired == [o.backup_id for o in refs[5::-1]]


def test_half_of_them_are_not_too_many(history: History) -> None:
    daily(history, 10)
    assert len(history.at(34.5).apply(confirmed=False).expired) == 5


# Holds.


def hold(history: History, ref: Any, **more: Any) -> None:
    words = {"reason": "a lawsuit", "until": None, "actor": "ann", **more}
    history.retention.hold(ref, **words)


def test_a_backup_on_hold_stays_with_all_that_it_needs(history: History) -> None:
    refs = [history.put(0), history.put(1, parent=0), *(history.put(d) for d in range(2, 9))]
    hold(history, refs[1])
    fates = history.at(1000).fates()
    assert fates[refs[0].backup_id] is fates[refs[1].backup_id] is Fate.KEEP
    assert history.reason(refs[1]) == "on hold by ann until it is released: a lawsuit"
    assert history.retention.release(refs[1], actor="ann")
    assert history.fates()[refs[0].backup_id] is Fate.EXPIRE
    assert not history.retention.release(refs[1], actor="ann")
    assert [event.action for event in history.catalog.events()] == ["release", "hold"]


def test_a_hold_in_one_store_is_enough_and_one_that_is_over_is_none(history: History) -> None:
    refs = daily(history, 8)
    hold(history, refs[0], until=BEGIN + 50 * DAY)
    del history.stores["primary"].objects[refs[0].hold_key]
    assert history.at(49).fates()[refs[0].backup_id] is Fate.KEEP
    assert history.at(50).fates()[refs[0].backup_id] is Fate.EXPIRE


def test_a_shorter_hold_does_not_end_a_longer_one(history: History) -> None:
    refs = daily(history, 8)
    history.at(32).apply()
    hold(history, refs[0])
    with pytest.raises(AlreadyExistsError, match="on hold by ann for longer: a lawsuit"):
        hold(history, refs[0], until=history.now + DAY, actor="bob")
    history.retention.undelete(refs[0], reason="r", until=history.now + DAY, actor="bob")
    assert [one.until for _, one in history.retention.held()] == [None]
    assert not Inventory(history.stores).look(refs[0]).expired
    hold(history, refs[1], until=history.now + DAY)
    hold(history, refs[1], until=history.now + 2 * DAY)
    assert history.at(33.5).fates()[refs[1].backup_id] is Fate.TAKE_BACK


def test_what_is_no_backup_cannot_be_held(history: History) -> None:
    with pytest.raises(NotFoundError, match="no backup"):
        hold(history, history.ref(3))
    assert history.snapshot() == {"primary": {}, "secondary": {}}


def test_a_hold_reaches_the_stores_that_answer_and_names_the_other(history: History) -> None:
    refs = daily(history, 8)
    history.stores["primary"].answers = False
    with pytest.raises(StoreUnavailableError, match="primary"):
        hold(history, refs[0])
    history.stores["primary"].answers = True
    assert history.at(1000).fates()[refs[0].backup_id] is Fate.KEEP


def test_holds_are_listed(history: History) -> None:
    refs = daily(history, 3)
    hold(history, refs[1])
    ((ref, found),) = history.retention.held()
    assert (ref, found.reason, found.actor, found.held_at) == (refs[1], "a lawsuit", "ann", BEGIN)


def test_a_manifest_that_forbids_it_is_not_deleted(history: History) -> None:
    ref = history.put(0, hold=True)
    daily(history, 8)
    history.put(0, hold=True)
    assert history.at(1000).fates()[ref.backup_id] is Fate.KEEP


def test_what_the_store_itself_locks_stays(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = daily(history, 8)
    store = history.stores["secondary"]
    monkeypatch.setattr(
        type(store),
        "locked_until",
        lambda _, key: BEGIN + 60 * DAY if key == refs[0].manifest_key else None,
        raising=False,
    )
    history.at(59)
    assert history.reason(refs[0]) == "locked in primary until 2026-03-02 02:00 UTC"
    assert history.at(60).fates()[refs[0].backup_id] is Fate.EXPIRE


# What is done.


def test_an_expired_backup_is_marked_first_and_deleted_after_the_grace_period(
    history: History,
) -> None:
    refs = daily(history, 10)
    done = history.at(34.5).apply()
    assert (done.expired, done.erased) == ([o.backup_id for o in refs[4::-1]], [])
    assert history.left() == ids(*refs), "nothing is deleted yet"
    assert history.at(41.4).apply().erased == []
    done = history.at(41.6).apply()
    assert done.erased == [o.backup_id for o in refs[4::-1]]
    assert [history.objects_of(one) for one in refs[:5]] == [[]] * 5
    assert history.left() >= ids(*refs[5:])


def test_a_link_is_not_deleted_while_a_younger_one_can_still_be_taken_back(
    history: History,
) -> None:
    full, more = history.put(0), history.put(1, parent=0)
    for day in range(2, 9):
        history.put(day)
    history.at(32).apply()
    del history.stores["primary"].objects[more.tombstone_key]
    del history.stores["secondary"].objects[more.tombstone_key]
    assert more.backup_id in history.at(35).apply().expired
    history.at(40)
    assert history.reason(full) == f"needed by {more.backup_id}, which is not deleted yet"
    history.apply()
    assert len(history.objects_of(full)) == 10
    assert set(history.at(42).apply().erased) >= ids(full, more)


def test_an_expired_backup_is_chosen_by_nobody(history: History) -> None:
    refs = daily(history, 8)
    history.at(1000).apply()
    gone = refs[0].backup_id
    listed = Inventory(history.stores).look(refs[0])
    assert (listed.expired, listed.verified) == (True, False)
    assert find(history) == refs[7].backup_id
    with pytest.raises(PermanentError, match=f"retention undelete {gone}"):
        find(history, backup_id=gone)
    with pytest.raises(NotFoundError):
        find(history, before=BEGIN + 4 * DAY)
    found = continued(
        Inventory(history.stores),
        history.ref(4.5),
        engine="postgresql",
        full_every=5000 * DAY,
        now=history.now,
    )
    assert found.parent is None
    assert "it has expired" in found.reason


def test_a_set_with_an_expired_backup_is_passed_over(history: History) -> None:
    old = [history.put(0), history.put(0, source="mongodb")]
    history.put_set(*old)
    for day in range(1, 5):
        history.put(day)
    sets, wanted = Sets(history.stores), {"sources": [SOURCE, "mongodb"]}
    assert sets.newest_complete(Component.DATABASE, **wanted).set_id == old[0].set_id
    history.at(31).apply()
    with pytest.raises(NotFoundError, match=f"deleted or have expired: {old[0].backup_id}"):
        sets.newest_complete(Component.DATABASE, **wanted)


def test_a_backup_is_taken_back_and_does_not_expire_the_next_day(history: History) -> None:
    refs = [history.put(0), history.put(1, parent=0), *(history.put(d) for d in range(2, 9))]
    history.at(32).apply()
    assert Inventory(history.stores).look(refs[0]).expired
    taken, errors = history.retention.undelete(
        refs[1], reason="audit", until=history.now + 30 * DAY, actor="ann"
    )
    assert (list(taken), list(errors)) == ([refs[0], refs[1]], [])
    assert find(history, backup_id=refs[1].backup_id) == refs[1].backup_id
    history.pass_by(33, 45)
    assert ids(refs[0], refs[1]) <= history.left()
    history.pass_by(63, 71)
    assert not ids(refs[0], refs[1]) & history.left()


def test_taking_back_works_while_a_store_is_down(history: History) -> None:
    refs = daily(history, 8)
    history.at(32).apply()
    history.stores["primary"].answers = False
    _, errors = history.retention.undelete(refs[0], reason="r", until=None, actor="ann")
    assert [str(one.problem) for one in errors] == ["primary does not answer"]
    assert find(history, backup_id=refs[0].backup_id) == refs[0].backup_id
    history.stores["primary"].answers = True
    assert history.at(60).apply().taken_back == [refs[0].backup_id]
    assert not Inventory(history.stores).look(refs[0]).expired


def test_what_has_not_expired_is_not_taken_back(history: History) -> None:
    refs = daily(history, 8)
    for ref in (refs[0], history.ref(3.5)):
        with pytest.raises(NotFoundError, match="not a backup that has expired"):
            history.retention.undelete(ref, reason="r", until=None, actor="ann")
    assert not list(history.retention.held())


def test_what_is_being_deleted_is_not_taken_back_and_not_held(history: History) -> None:
    refs = daily(history, 8)
    history.at(32).apply()
    store = history.stores["secondary"]
    tombstone = Inventory(history.stores).look(refs[0]).tombstones["secondary"]
    begun = tombstone.model_copy(update={"erasing_since": history.now})
    store.put(refs[0].tombstone_key, begun.encode())
    with pytest.raises(PermanentError, match="has begun"):
        history.retention.undelete(refs[0], reason="r", until=None, actor="ann")
    with pytest.raises(PermanentError, match="has begun"):
        hold(history, refs[0])
    with pytest.raises(PermanentError, match="no backup any more"):
        find(history, backup_id=refs[0].backup_id)
    assert not list(history.retention.held())
    assert history.apply().erased == [refs[0].backup_id]


def test_longer_retention_takes_back_what_has_expired_by_the_shorter(history: History) -> None:
    refs = daily(history, 8)
    history.at(32).apply()
    longer = History(kept=60)
    longer.stores.update(history.stores)
    assert longer.at(33).apply().taken_back == [one.backup_id for one in refs[:3]]
    assert not Inventory(longer.stores).look(refs[0]).expired


def test_a_backup_that_is_needed_again_is_taken_back(history: History) -> None:
    refs = daily(history, 8)
    history.at(32).apply()
    # A run that had begun before has built on it, and came to its end after.
    history.put(31.9, parent=0)
    assert history.at(32.5).apply().taken_back == [refs[0].backup_id]


def test_a_hold_that_comes_while_a_backup_is_deleted_is_in_time_or_refused(
    history: History,
) -> None:
    """Whichever operation the hold comes after: it stands and the backup is whole, or neither."""
    outcomes = set()
    for after in range(200):
        history = History()
        refs = daily(history, 5)
        history.pass_by(31)
        state = {"left": after, "held": None}

        def intrude(history: History = history, ref: Any = refs[0], state: Any = state) -> bool:
            state["left"] -= 1
            if state["left"] == -1:
                try:
                    hold(history, ref)
                    state["held"] = True
                except BackupError:
                    state["held"] = False
            return False

        for store in history.stores.values():
            store.dies_after = intrude
        history.at(39).apply()
        for store in history.stores.values():
            store.dies_after = lambda: False
        whole = len([key for key in history.objects_of(refs[0]) if "tombstone" not in key])
        outcomes.add((state["held"], refs[0].backup_id in history.left()))
        assert state["held"] is not True or whole == 10, after  # 4 and a hold in each store
        if state["held"] is None:
            break
    assert state["held"] is None, "the last one came after all was done"
    assert {(True, True), (False, False)} <= outcomes
    assert (True, False) not in outcomes


def test_two_runs_at_once_end_as_one_does(history: History) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only here

    refs = daily(history, 10)
    for day in (34.5, 42):
        history.at(day)
        with ThreadPoolExecutor(4) as pool:
            for one in [pool.submit(history.apply) for _ in range(4)]:
                one.result()
    assert history.left() == ids(*refs[5:])
    assert all(not history.objects_of(one) for one in refs[:5])


def test_every_deletion_is_in_the_audit_trail_once_and_leaves_the_catalog(
    history: History,
) -> None:
    refs = daily(history, 5)
    history.at(31).apply()
    marked = {one.backup_id: one.expired_at for one in history.catalog.backups()}
    assert marked[refs[0].backup_id] == history.now
    assert marked[refs[4].backup_id] is None
    history.pass_by(38, 39, 40)
    assert refs[0].backup_id not in {one.backup_id for one in history.catalog.backups()}
    events = [
        e.details["result"]
        for e in history.catalog.events()
        if (e.action, e.subject) == ("delete", refs[0].backup_id)
    ]
    assert events == ["done", "intended"], "the newest first: it was said before it was done"


def test_what_cannot_be_recorded_is_not_deleted(history: History) -> None:
    refs = daily(history, 5)
    history.at(31).apply()
    for trail in history.trails.values():
        trail.answers = False
    with pytest.raises(StoreUnavailableError, match="took no line of delete"):
        history.at(39).apply()
    assert refs[0].backup_id in history.left()


def test_a_rebuilt_catalog_agrees(history: History) -> None:
    from neuroca_backup.catalog.memory import MemoryCatalog  # noqa: PLC0415 - only here

    daily(history, 10)
    history.pass_by(34.5, 41.6)
    for store in history.stores:
        for ref in history.left():
            assert ref, store
    again = MemoryCatalog()
    assert rebuild(again, history.stores).complete

    def entries(catalog: MemoryCatalog) -> list[Any]:
        return [(one.backup_id, one.expired_at) for one in catalog.backups()]

    assert entries(again) == entries(history.catalog)
    assert any(at is not None for _, at in entries(again)), "some are marked, and not gone yet"
    expired = [one.backup_id for one in again.backups() if one.expired_at is not None]
    for one in Inventory(history.stores).newest_first(Component.DATABASE, SOURCE):
        marks.unbury(history.stores, one.ref)
    assert expired
    assert rebuild(again, history.stores).complete
    assert not [one for one in again.backups() if one.expired_at is not None]


def test_a_copy_that_came_back_after_the_deletion_is_deleted_again(history: History) -> None:
    refs = daily(history, 8)
    kept = dict(history.stores["secondary"].objects)
    history.pass_by(32, 40)
    for key in [key for key in kept if key.startswith(refs[0].prefix)]:
        history.stores["secondary"].objects[key] = kept[key]
    history.pass_by(41, 49)
    assert history.objects_of(refs[0]) == []


def test_a_hold_survives_its_document(history: History) -> None:
    ref = history.put(0)
    wanted = Hold(backup_id=ref.backup_id, reason="r", actor="a", held_at=BEGIN, until=BEGIN)
    assert Hold.decode(wanted.encode(), name="n", ref=ref) == wanted
    assert not wanted.stands(BEGIN)
    assert wanted.stands(BEGIN - timedelta(seconds=1))
    assert wanted.until is not None
    assert wanted.until.astimezone(UTC) == BEGIN
