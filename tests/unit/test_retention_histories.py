"""Whatever a history is like: the newest good copies stay, and what is due goes."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from neuroca_backup.errors import PermanentError
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services.needs import needs_of
from support.histories import BOTH, DAY, History

KEPT, GRACE, NEWEST = 30, 7, 3

ZONES = st.integers(-12, 14).map(lambda hours: timezone(timedelta(hours=hours)))
SOUND = st.sampled_from([BOTH, BOTH, BOTH, ("primary",), ("secondary",), ()])


@st.composite
def backups(draw: Any) -> list[dict[str, Any]]:
    """Draw up to 25 backups of one source in the order of their days."""
    days = sorted(draw(st.sets(st.integers(0, 120), min_size=1, max_size=25)))
    found: list[dict[str, Any]] = []
    for index, day in enumerate(days):
        earlier = days[:index]
        one: dict[str, Any] = {"day": day, "sound": draw(SOUND), "zone": draw(ZONES)}
        kind = draw(st.sampled_from(["full", "full", "continues", "refers", "saved"]))
        if kind == "continues" and earlier:
            # Now and then one whose parent is long gone.
            lost = draw(st.integers(0, 9)) == 0
            one["parent"] = earlier[-1] - 0.5 if lost else earlier[-1]
        elif kind == "refers" and earlier:
            one["refers"] = draw(st.sets(st.sampled_from(earlier), max_size=3))
        elif kind == "saved":
            one["before_restore"] = "restore-1"
        if not one["sound"] and draw(st.booleans()):
            one["damaged"] = BOTH
        one["held"] = draw(st.integers(0, 11)) == 0
        found.append(one)
    return found


def build(drawn: list[dict[str, Any]]) -> tuple[History, set[str]]:
    """Return the history of `drawn` before any retention, and the ids of what is on hold."""
    history, held = History(keep_verified=NEWEST), set[str]()
    for one in drawn:
        words = {key: value for key, value in one.items() if key not in {"day", "held"}}
        ref = history.put(one["day"], **words)
        if one["held"]:
            history.retention.hold(ref, reason="r", until=None, actor="ann")
            held.add(ref.backup_id)
    return history, held


def good(history: History) -> list[str]:
    """Return, newest first, what can be restored whole from both stores; as a reader would say it.

    Looked up in the stores object by object, not through the code that is tested.
    """
    found = []
    for backup_id in sorted(history.left(), reverse=True):
        chain = chain_of(history, backup_id)
        if chain is None or manifest_of(history, backup_id).before_restore:
            continue
        if all(sound(history, one, store) for one in chain for store in BOTH):
            found.append(backup_id)
    return found


def chain_of(history: History, backup_id: str) -> list[str] | None:
    """Return the ids of a backup's chain, or None where a link is missing."""
    chain = [backup_id]
    while True:
        if chain[-1] not in history.left():
            return None
        parent = manifest_of(history, chain[-1]).parent
        if parent is None:
            return chain
        chain.append(parent)


def manifest_of(history: History, backup_id: str) -> Any:
    return history.manifest(BackupRef(backup_id, Component.DATABASE))


def sound(history: History, backup_id: str, store: str) -> bool:
    ref = BackupRef(backup_id, Component.DATABASE)
    data = history.stores[store].objects.get(ref.verification_key)
    return data is not None and b'"findings":[]' in data[0]


def sound_chain(history: History, backup_id: str) -> bool:
    """Return whether every link is there, and sound in some store."""
    chain = chain_of(history, backup_id)
    return chain is not None and all(
        any(sound(history, link, store) for store in BOTH) for link in chain
    )


def saved(history: History) -> list[str]:
    """Return, newest first, what was saved before a restore."""
    there = sorted(history.left(), reverse=True)
    return [one for one in there if manifest_of(history, one).before_restore]


def whole(history: History, backup_id: str) -> bool:
    """Return whether every object that a restore reads is in both stores, and no mark is."""
    for one in chain_of(history, backup_id) or ["missing"]:
        manifest = manifest_of(history, one)
        keys = {manifest.ref.manifest_key, manifest.ref.keys_key(manifest.attempt)}
        for member in manifest.members:
            keys |= {manifest.key_of(member), manifest.keys_of(member)}
        for store in history.stores.values():
            if not keys <= store.objects.keys() or manifest.ref.tombstone_key in store.objects:
                return False
    return True


COMMON = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


@COMMON
@given(drawn=backups(), days=st.lists(st.integers(0, 400), min_size=1, max_size=6))
@example(
    drawn=[
        {"day": 0, "sound": BOTH, "zone": UTC, "held": False},
        {"day": 1, "sound": BOTH, "zone": UTC, "held": False, "parent": 0},
        {"day": 40, "sound": (), "zone": UTC, "held": False, "damaged": BOTH},
    ],
    days=[400, 50, 400],
)
def test_the_newest_good_copies_and_all_that_they_need_are_never_lost(
    drawn: list[dict[str, Any]], days: list[int]
) -> None:
    history, held = build(drawn)
    wanted = good(history)[:NEWEST]
    day_of = {history.ref(one["day"]).backup_id: one["day"] for one in drawn}
    for day in days:  # also backward: a clock that jumps
        before = history.snapshot()
        newest = max(day_of[one] for one in history.left())
        history.at(day)
        try:
            history.apply()
        except PermanentError:
            assert day < newest, "only a clock that is behind the newest backup stops it"
            assert history.snapshot() == before
        else:
            assert day >= newest
        assert good(history)[:NEWEST] == wanted
        assert all(whole(history, one) for one in wanted)
        assert held <= history.left()
        for one in held:
            needed = needs_of(manifest_of(history, one))
            assert needed <= history.left() | lost_parents(drawn)


def lost_parents(drawn: list[dict[str, Any]]) -> set[str]:
    """Return the ids of parents that never were in the stores."""
    history = History()
    return {
        history.ref(one["parent"]).backup_id
        for one in drawn
        if one.get("parent", 0) != int(one.get("parent", 0))
    }


@COMMON
@given(drawn=backups())
def test_what_is_due_is_gone_after_two_runs_and_what_is_young_is_untouched(
    drawn: list[dict[str, Any]],
) -> None:
    history, held = build(drawn)
    now = 121
    kept = must_stay(history, drawn, held, now=now)
    history.at(now).apply()
    history.at(now + GRACE).apply()
    later = must_stay(history, drawn, held, now=now + GRACE)
    assert later <= history.left()
    assert history.left() <= kept, "due at the first run, deleted at the second"
    for store in history.stores.values():
        folders = {key.split("/")[2] for key in store.objects if not key.startswith("erasures/")}
        assert folders <= history.left(), "nothing is left of what was deleted"


def must_stay(
    history: History, drawn: list[dict[str, Any]], held: set[str], *, now: float
) -> set[str]:
    """Return, by a plain reading of the rules, the ids of the backups that may not be deleted."""
    there = history.left()
    day_of = {history.ref(one["day"]).backup_id: one["day"] for one in drawn}
    twice = good(history)
    once = [
        one
        for one in sorted(there, reverse=True)
        if sound_chain(history, one) and not manifest_of(history, one).before_restore
    ]
    newest = twice[:NEWEST]
    newest += [one for one in once if one not in newest][: NEWEST - len(newest)]
    last = once[:1] or [one for one in saved(history) if sound_chain(history, one)][:1]
    stay = {one for one in there if now - day_of[one] < KEPT} | held | set(newest) | set(last)
    for one in there:
        if not sound_chain(history, one) and not any(other > one for other in once):
            stay.add(one)
    ahead = list(stay)
    while ahead:
        for needed in needs_of(manifest_of(history, ahead.pop())) & there - stay:
            stay.add(needed)
            ahead.append(needed)
    return stay


@COMMON
@given(
    day=st.integers(0, 3000),
    zone=ZONES,
    hour=st.integers(0, 23),
)
def test_no_time_zone_and_no_hour_of_the_day_makes_a_backup_older(
    day: int, zone: timezone, hour: int
) -> None:
    history = History()
    ref = history.put(day + hour / 24, zone=zone)
    for more in range(1, 5):
        history.put(day + more)
    history.now = (ref.time + KEPT * DAY - timedelta(seconds=1)).astimezone(zone)
    history.apply()
    assert not [key for key in history.objects_of(ref) if "tombstone" in key]
    history.now = (ref.time + KEPT * DAY + timedelta(seconds=1)).astimezone(zone)
    history.apply()
    assert [key for key in history.objects_of(ref) if "tombstone" in key]
