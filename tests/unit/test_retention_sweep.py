"""What never became a backup is removed once no run can still be at it; nothing else is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services.retention.sweeping import Swept
from support.histories import BOTH, History

OTHER = "0badcafe"


@pytest.fixture
def history() -> History:
    made = History()
    for day in range(5):
        made.put(day)
    return made.at(10)


def leave(history: History, ref: BackupRef, *, day: float, attempt: str = OTHER) -> None:
    """Leave what a run that was killed leaves: members and keys of one attempt."""
    now = history.now
    for store in history.stores.values():
        for key in (ref.member_key(attempt, "own"), ref.keys_key(attempt)):
            store.objects[key] = (b"12345", history.at(day).now)
    history.now = now


def sweep(history: History) -> Swept:
    return history.retention.sweep(actor="test")


def attempts(history: History, ref: BackupRef) -> set[str]:
    """Return the attempts that any store has objects of."""
    return {one.split("/")[3] for one in history.objects_of(ref) if one.count("/") > 3}


def test_an_attempt_without_a_manifest_goes_after_the_safety_age(history: History) -> None:
    ref = history.ref(5)
    leave(history, ref, day=5)
    history.at(7.99)
    assert sweep(history).objects == 0
    assert attempts(history, ref) == {OTHER}
    swept = sweep(history.at(8.01))
    assert (swept.objects, history.objects_of(ref)) == (2, [])
    assert [(e.action, e.subject) for e in history.catalog.events()] == [
        ("sweep", f"{ref.prefix}/{OTHER}")
    ] * 2


def test_an_attempt_that_is_still_written_to_stays_whole(history: History) -> None:
    ref = history.ref(5)
    leave(history, ref, day=5)
    store = history.stores["primary"]
    store.objects[ref.member_key(OTHER, "more")] = (b"x", history.at(9).now)
    sweep(history.at(10))
    assert len([one for one in history.objects_of(ref) if one.startswith("primary")]) == 3


def test_another_attempt_beside_a_backup_goes_and_the_backup_stays(history: History) -> None:
    ref = history.ref(4)
    leave(history, ref, day=4)
    sweep(history)
    assert attempts(history, ref) == {"a1b2c3d4"}
    assert len(history.objects_of(ref)) == 8


def test_the_bytes_that_a_manifest_of_another_store_names_stay(history: History) -> None:
    ref = history.ref(4)
    del history.stores["secondary"].objects[ref.manifest_key]
    sweep(history)
    assert len(history.objects_of(ref)) == 7


def test_what_later_backups_refer_to_stays_without_a_manifest(history: History) -> None:
    base = history.ref(0)
    history.put(6, refers=[0])
    for store in history.stores.values():
        del store.objects[base.manifest_key]
    leave(history, base, day=0)
    sweep(history.at(20))
    assert attempts(history, base) == {"a1b2c3d4"}, "the attempt that is referred to"


def test_a_verification_without_a_backup_is_removed(history: History) -> None:
    ref = history.ref(5)
    history.check(ref, "secondary", sound=True)
    assert sweep(history).objects == 1
    assert history.objects_of(ref) == []


def test_what_is_on_hold_stays_whatever_it_is(history: History) -> None:
    ref = history.ref(4)
    history.retention.hold(ref, reason="r", until=None, actor="ann")
    for store in history.stores.values():
        del store.objects[ref.manifest_key]
    before = history.objects_of(ref)
    sweep(history.at(100))
    assert history.objects_of(ref) == before


def test_a_source_of_which_something_is_unknown_is_not_swept(history: History) -> None:
    ref = history.ref(5)
    leave(history, ref, day=5)
    history.stores["primary"].objects[history.ref(1).manifest_key] = (b"{", history.now)
    swept = sweep(history)
    assert attempts(history, ref) == {OTHER}
    assert len(swept.skipped) == 1
    assert swept.skipped[0].startswith("database/postgres: primary:")


def test_what_is_not_of_the_layout_is_named_and_left_alone(history: History) -> None:
    ref = history.ref(0)
    strange = [
        "readme.txt",
        "elsewhere/postgres/x",
        "database/notes.txt",
        "database/postgres/notes.txt",
        "database/postgres/not-a-backup/x",
        f"database/mongodb/{ref.backup_id}/manifest.json",
        f"{ref.prefix}/notes.txt",
        f"{ref.prefix}/attempt/members/x",
        "sets/database/deeper/x.json",
    ]
    for key in strange:
        history.stores["primary"].objects[key] = (b"x", history.at(0).now)
    history.at(100)
    for _ in range(3):
        history.apply()
        swept = sweep(history)
        history.now += timedelta(days=10)
    assert swept.strange >= 9
    assert set(strange) <= history.stores["primary"].objects.keys()
    assert {f"primary: {key}" for key in strange} <= set(swept.strangers)
    theirs = {f"primary: {key}" for key in strange}
    assert set(history.objects_of(ref)) <= theirs, "its own objects went"


def test_of_many_strangers_the_first_are_named(history: History) -> None:
    for number in range(50):
        history.stores["primary"].objects[f"x/{number}"] = (b"x", history.now)
    swept = sweep(history)
    assert (len(swept.strangers), swept.strange) == (20, 50)


def test_a_set_goes_with_the_last_of_its_backups(history: History) -> None:
    gone, mixed = history.put_set(history.ref(0)), history.put_set(history.ref(1), history.ref(4))
    history.pass_by(100)
    assert sweep(history).sets == 0
    history.pass_by(108)
    assert history.ref(0).backup_id not in history.left()
    assert sweep(history).sets == 1
    for store in history.stores.values():
        assert gone.key not in store.objects
        assert mixed.key in store.objects


def test_a_set_of_an_earlier_backup_that_stands_for_its_run_stays(history: History) -> None:
    made = history.put_set(history.ref(4))
    moved = made.model_copy(update={"set_id": history.ref(7).set_id})
    for store in history.stores.values():
        store.objects[moved.key] = (moved.encode(), history.now)
    history.pass_by(100, 110)
    sweep(history)
    assert moved.key in history.stores["primary"].objects


def test_a_set_without_any_backup_goes_when_its_component_says_so(history: History) -> None:
    made = history.put_set(missing=["postgres"])
    sweep(history.at(29))
    assert made.key in history.stores["primary"].objects
    assert sweep(history.at(31)).sets == 1


def test_a_damaged_set_is_named_and_left_alone(history: History) -> None:
    made = history.put_set(history.ref(7))
    history.stores["primary"].objects[made.key] = (b"{", history.now)
    swept = sweep(history.at(50))
    assert swept.sets == 0
    assert made.key in swept.skipped[0]


def test_unfinished_uploads_are_swept_at_the_safety_age(history: History) -> None:
    sweep(history)
    assert [store.swept for store in history.stores.values()] == [[timedelta(days=3)]] * 2


def test_a_store_that_does_not_answer_is_an_error(history: History) -> None:
    from neuroca_backup.errors import StoreUnavailableError  # noqa: PLC0415 - only here

    history.stores["secondary"].answers = False
    before: Any = history.snapshot()
    with pytest.raises(StoreUnavailableError):
        sweep(history)
    assert history.snapshot() == before
    assert set(before) == set(BOTH)
