"""The monitor over time: a frozen clock is walked through what happens to real backups."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.catalog import Catalog, RestoreRecord
from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.catalog.null import NullCatalog
from neuroca_backup.errors import UnreachableError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component
from neuroca_backup.model.status import Checked
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.objectives import telling
from neuroca_backup.services.objectives.findings import Finding, Kind, Level
from neuroca_backup.services.objectives.telling import MonitorState, Told, decide
from neuroca_backup.services.objectives.watching import Objectives
from neuroca_backup.services.rebuild import rebuild
from neuroca_backup.settings import Settings
from support.histories import BEGIN, DAY, History

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def watch(
    history: History, *, sources: dict[str, Any] | None = None, catalog: Catalog | None = None
) -> Objectives:
    """Return the objectives of an installation with these sources, by default one of a database."""
    default = {"postgres": {"component": "database", "engine": "postgresql", "connection": "pg"}}
    settings = Settings.model_validate(
        {
            "schedule": {},
            "storage": {
                name: {"type": "local", "path": str(Path("/nowhere") / name)}
                for name in ("primary", "secondary")
            },
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": "/nowhere/key"},
            "sources": sources or default,
        }
    )
    kept = history.catalog if catalog is None else catalog
    return Objectives(
        settings=settings,
        stores=history.stores,
        catalog=kept,
        audit=Audit(stores=history.stores, catalog=kept, clock=lambda: history.now),
        divided=lambda name: name == "models",
        clock=lambda: history.now,
    )


def age_of(objectives: Objectives, subject: str = "postgres") -> Finding:
    found = objectives.recovery_points()
    return next(one for one in found if one.kind is Kind.RPO and one.subject == subject)


def look(objectives: Objectives) -> tuple[Finding, ...]:
    """Do what the DAG does every hour about recovery points; return what people are told."""
    decision = objectives.decide(objectives.recovery_points())
    objectives.keep(decision.state)
    return decision.tell


def test_when_the_schedule_stops_people_are_told_at_the_first_look_after_the_rpo() -> None:
    history = History()
    objectives = watch(history)
    told: list[tuple[datetime, Finding]] = []
    for hour in range(9 * 24):
        day = hour / 24
        if hour % 24 == 0 and day <= 4:
            history.at(day).put(day)  # daily at 02:00, the last time on the fifth day
        history.now = BEGIN + hour * HOUR + 30 * MINUTE  # the monitor's minute
        told += [(history.now, one) for one in look(objectives)]

    last = BEGIN + 4 * DAY
    assert [at - last for at, _ in told] == [(24 * d) * HOUR + 30 * MINUTE for d in (1, 2, 3, 4)], (
        "at the first look after 24 hours, then once a day"
    )
    first = told[0][1]
    assert (first.component, first.subject) == ("database", "postgres")
    assert first.level is Level.BREACH
    assert (first.age, first.limit) == (24.5 * 3600, 24 * 3600)
    assert "has its last verified backup from 24 h 30 min ago" in first.sentence
    assert "its RPO is 24 h" in first.sentence


def test_the_breach_begins_with_the_minute_after_the_rpo() -> None:
    history = History()
    history.put(0)
    objectives = watch(history)
    levels = {}
    for minute in range(23 * 60, 25 * 60):
        history.now = BEGIN + minute * MINUTE
        levels[minute] = age_of(objectives).level

    assert {levels[m] for m in range(23 * 60, 24 * 60 + 1)} == {Level.WARNING}
    assert {levels[m] for m in range(24 * 60 + 1, 25 * 60)} == {Level.BREACH}


def test_the_schedule_that_goes_on_again_ends_it_and_a_later_stop_is_news() -> None:
    history = History()
    history.put(0)
    objectives = watch(history)
    history.at(1.1)
    assert look(objectives)
    assert not look(objectives)
    history.put(1.2)
    history.at(1.3)
    assert objectives.decide(objectives.recovery_points()).over == ("rpo/database/postgres",)
    assert not look(objectives)
    history.at(2.3)
    assert look(objectives)


def test_a_backup_counts_from_its_dump_and_not_from_its_end() -> None:
    history = History()
    ref = history.put(0)
    history.at(0.5).check(ref, "primary", sound=True)

    assert age_of(watch(history)).age == 12 * 3600


def test_a_backup_that_is_not_verified_or_damaged_everywhere_does_not_count() -> None:
    history = History()
    history.put(0)
    history.put(1, sound=())
    bad = history.put(2, sound=(), damaged=("primary", "secondary"))
    history.at(2.1)

    found = age_of(watch(history))

    assert (found.level, found.age) == (Level.BREACH, pytest.approx(2.1 * 86_400))
    assert f"{bad.backup_id} is damaged in every store" in found.problem
    assert "is not verified" in found.problem


def test_one_sound_copy_is_enough_and_that_it_is_the_only_one_is_said() -> None:
    history = History()
    history.put(0, sound=("secondary",), damaged=("primary",))
    history.at(0.1)

    found = watch(history).recovery_points()

    assert [one.level for one in found if one.kind is Kind.RPO] == [Level.OK, Level.OK]
    (copies,) = (one for one in found if one.kind is Kind.COPIES)
    assert "verified in secondary alone" in copies.problem


def test_an_increment_counts_only_with_all_that_it_continues() -> None:
    history = History()
    full = history.put(0)
    history.put(0.5, parent=0)
    history.at(0.6)
    objectives = watch(history)
    assert age_of(objectives).age == pytest.approx(0.1 * 86_400)

    for store in ("primary", "secondary"):
        history.check(full, store, sound=False)

    assert age_of(objectives).level is Level.BREACH
    assert "cannot be restored" in age_of(objectives).problem


def test_what_was_saved_before_a_restore_does_not_count() -> None:
    history = History()
    history.put(0)
    history.put(1, before_restore="restore-1")

    assert age_of(watch(history.at(1.1))).age == pytest.approx(1.1 * 86_400)


def test_a_backup_from_the_future_does_not_count_for_ever() -> None:
    history = History()
    history.put(300)
    only = age_of(watch(history.at(1.1)))
    history.put(1)

    found = age_of(watch(history))

    assert only.level is Level.BREACH
    assert "from the future" in only.problem
    assert (found.level, found.age) == (Level.OK, pytest.approx(0.1 * 86_400))


def test_a_source_that_is_seen_unchanged_is_as_new_as_that() -> None:
    history = History(component=Component.CONFIGURATION)
    ref = history.put(0, source="configuration", facts={"fingerprint": "f" * 64})
    checked = Checked(backup_id=ref.backup_id, checked_at=BEGIN + 9 * DAY, fingerprint="f" * 64)
    for store in history.stores.values():
        store.objects[ref.checked_key] = (
            document.encode(checked.model_dump(mode="json")),
            history.now,
        )
    sources = {
        "configuration": {
            "component": "configuration",
            "engine": "filetree",
            "options": {"parameters": ["/etc/neuroca"]},
        }
    }

    found = age_of(watch(history.at(10), sources=sources), "configuration")

    assert (found.level, found.age) == (Level.OK, 86_400)


def test_a_source_that_has_lost_half_its_rows_is_not_passed() -> None:
    history = History()
    for day in range(5):
        rows = 40 if day == 4 else 100
        tables = {"nca": {"tables": {"memory.items": {"rows": rows}}}}
        history.put(day, facts={"databases": tables})
    history.at(4.1)

    for catalog in (None, NullCatalog()):
        found = watch(history, catalog=catalog).recovery_points()
        (one,) = (one for one in found if one.kind is Kind.CONTENT)
        assert one.level is Level.BREACH
        assert "40 rows where the middle one of 4 before it has 100 rows" in one.problem


def test_no_backup_at_all_is_a_breach_and_says_so() -> None:
    found = age_of(watch(History()))

    assert (found.level, found.age) == (Level.BREACH, None)
    assert found.problem == "there is no backup at all"


@pytest.mark.parametrize("silent", [("secondary",), ("primary", "secondary")])
def test_a_store_that_does_not_answer_is_named(silent: tuple[str, ...]) -> None:
    history = History()
    history.put(0)
    history.at(0.1)
    for name in silent:
        history.stores[name].answers = False

    found = watch(history).recovery_points()

    stores = [one for one in found if one.kind is Kind.STORE]
    assert [(one.subject, one.level) for one in stores] == [(n, Level.BREACH) for n in silent]
    age = next(one for one in found if one.kind is Kind.RPO and one.subject == "postgres")
    assert age.level is (Level.OK if len(silent) == 1 else Level.BREACH)


class Silent(MemoryCatalog):
    """A catalog whose server is away."""

    def backups(self, **_: Any) -> Any:
        raise UnreachableError("no answer", remedy="Wait.")

    def restores(self, *, limit: int = 100) -> Any:
        raise UnreachableError(f"no answer to {limit}", remedy="Wait.")


def test_a_catalog_that_does_not_answer_is_named_and_the_manifests_tell() -> None:
    history = History()
    history.put(0)
    objectives = watch(history.at(0.1), catalog=Silent())

    found = objectives.recovery_points()

    (catalog,) = (one for one in found if one.kind is Kind.CATALOG)
    assert catalog.level is Level.BREACH
    assert "the figures are from the stores' manifests" in catalog.problem
    assert age_of(objectives).level is Level.OK
    assert {one.level for one in objectives.restore_tests()} == {Level.BREACH}
    assert any("does not answer" in one.problem for one in objectives.forecasts())


def test_what_the_catalog_calls_verified_and_no_store_has_is_a_breach() -> None:
    history = History()
    history.put(0)
    gone = history.put(1)
    history.at(1.1)
    for store in history.stores.values():
        for key in [key for key in store.objects if key.startswith(gone.prefix)]:
            del store.objects[key]

    found = [one for one in watch(history).recovery_points() if one.kind is Kind.CATALOG]

    assert [one.level for one in found] == [Level.BREACH]
    assert gone.backup_id in found[0].problem


def test_the_parts_of_a_source_are_those_of_the_newest_set() -> None:
    history = History(component=Component.MODEL_WEIGHTS)
    history.put(0, source="models__gone")
    kept = history.put(1, source="models__kept")
    history.put_set(kept, whole=("models",))
    sources = {
        "models": {
            "component": "model_weights",
            "engine": "model_weights",
            "options": {"roots": ["/m"]},
        }
    }

    objectives = watch(history.at(1.1), sources=sources)

    subjects = {o.subject for o in objectives.recovery_points() if o.kind is Kind.RPO}
    assert subjects == {"models__kept", ""}


def finding(level: Level = Level.BREACH, subject: str = "postgres") -> Finding:
    return Finding(Kind.RPO, level, "database", subject, "is old", "Back it up.", 90_000, 86_400)


def state(
    ago: timedelta, *, level: Any = "breach", key: str = "rpo/database/postgres"
) -> MonitorState:
    at = BEGIN - ago
    return MonitorState(seen_at=at, told={key: Told(level=level, since=at, told_at=at)})


@pytest.mark.parametrize(
    ("before", "told"),
    [
        (None, True),
        (state(HOUR), False),
        (state(23 * HOUR + 49 * MINUTE), False),
        (state(23 * HOUR + 50 * MINUTE), True),
        (state(HOUR, level="warning"), True),
        (state(-HOUR), True),
        (state(HOUR, key="rpo/database/redis"), True),
    ],
)
def test_only_what_is_new_worse_or_has_lasted_is_told(
    before: MonitorState | None, *, told: bool
) -> None:
    decision = decide(BEGIN, [finding()], before, repeat=24 * HOUR)

    assert decision.tell == ((finding(),) if told else ())
    kept = decision.state.told["rpo/database/postgres"]
    assert kept.told_at == (BEGIN if told or before is None else before.seen_at)


looks = st.lists(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([Level.WARNING, Level.BREACH])),
    min_size=1,
    max_size=60,
)


@given(seen=looks, lost=st.sets(st.integers(0, 59), max_size=3))
def test_whatever_comes_and_goes_nothing_is_missed_and_nothing_told_too_often(
    seen: list[dict[str, Level]], lost: set[int]
) -> None:
    """Look every hour at findings that come and go; in the hours `lost` the state is lost."""
    state: MonitorState | None = None
    last: dict[str, tuple[int, Level]] = {}
    before: dict[str, Level] = {}
    for hour, levels in enumerate(seen):
        if hour in lost:
            state, last, before = None, {}, {}
        findings = [
            Finding(Kind.COPIES, level, "database", name, "problem", "remedy")
            for name, level in levels.items()
        ]
        decision = decide(BEGIN + hour * HOUR, findings, state, repeat=24 * HOUR)
        told = {one.subject for one in decision.tell}
        for name, level in levels.items():
            new = name not in before
            worse = not new and level > before[name]
            due = name in last and hour - last[name][0] >= 24
            assert (name in told) == (new or worse or due)
            if name in told:
                last[name] = (hour, level)
        assert set(decision.over) == {
            f"copies/database/{name}" for name in before.keys() - levels.keys()
        }
        state, before = decision.state, levels


def test_a_warning_of_age_is_no_news_and_any_other_warning_is() -> None:
    copies = Finding(Kind.COPIES, Level.WARNING, "database", "postgres", "one copy", "Verify.")

    decision = decide(BEGIN, [finding(Level.WARNING), copies], None, repeat=24 * HOUR)

    assert decision.tell == (copies,)


def test_what_was_not_looked_at_is_not_over() -> None:
    decision = decide(
        BEGIN, [], state(HOUR), repeat=24 * HOUR, covers=lambda _, component: component == "logs"
    )

    assert decision.over == ()
    assert decision.state.told == state(HOUR).told


def test_a_state_that_cannot_be_read_has_everything_told_again_and_is_replaced() -> None:
    history = History()
    history.put(0)
    history.at(1.1)
    objectives = watch(history)
    assert look(objectives)
    for store in history.stores.values():
        store.objects[telling.KEY] = (b"{}", history.now)

    assert look(objectives), "unreadable is not told"
    assert not look(objectives)


def test_one_store_is_enough_to_remember_and_without_any_all_is_told_again() -> None:
    history = History()
    history.at(1.1)
    history.stores["primary"].answers = False
    objectives = watch(history)
    look(objectives)
    history.stores["primary"].answers = True
    again = look(objectives)
    assert {one.kind for one in again} <= {Kind.STORE}
    for store in history.stores.values():
        store.answers = False

    for _ in range(2):
        assert {one.subject for one in look(objectives)} == {"primary", "secondary", "postgres"}
    assert not objectives.keep(MonitorState(seen_at=history.now))


def test_the_message_has_a_line_for_each_and_stays_short() -> None:
    many = [finding(subject=f"source_{number}") for number in range(30)]

    text = telling.message(many)

    assert text.splitlines()[0] == "BREACH: database/source_0: is old. Back it up."
    assert len(text.splitlines()) == 21
    assert "And 10 more" in text
    assert telling.subject(many) == "NCA backups: 30 breaches: database"
    assert telling.subject(many[:1]) == "NCA backups: 1 breach: database"


def test_the_sweep_and_the_rebuild_know_the_state_as_ours() -> None:
    history = History()
    history.put(0)
    objectives = watch(history.at(1.1))
    look(objectives)

    assert all(telling.KEY in store.objects for store in history.stores.values())
    assert history.retention.sweep(actor="test").strangers == []
    assert rebuild(history.catalog, history.stores).problems == []


def restored(history: History, age: timedelta, **changes: Any) -> None:
    at = history.now - age
    history.catalog.record_restore(
        RestoreRecord.model_validate(
            {
                "restore_id": f"restore-{at.timestamp()}",
                "backup_id": history.ref(0).backup_id,
                "store": "primary",
                "target": "sandbox",
                "actor": "somebody",
                "started_at": at,
                "finished_at": at,
                "seconds": {"load": 10.0},
                "bytes_restored": 100_000_000,
                "outcome": "restored",
                **changes,
            }
        )
    )


@pytest.mark.parametrize(
    ("age", "changes", "level"),
    [
        (91 * DAY, {}, Level.OK),
        (93 * DAY, {}, Level.BREACH),
        (DAY, {"outcome": "failed in load"}, Level.BREACH),
        (DAY, {"target": "postgres in place"}, Level.BREACH),
        (DAY, {"target": "restore test (connection)"}, Level.OK),
        (-DAY, {}, Level.BREACH),
    ],
)
def test_a_restore_test_counts_for_a_quarter_if_it_succeeded(
    age: timedelta, changes: dict[str, Any], level: Level
) -> None:
    history = History().at(400)
    restored(history, age, **changes)

    (found,) = watch(history).restore_tests()

    assert (found.component, found.subject, found.level) == ("database", "postgres", level)


def test_never_tested_is_a_breach_and_so_is_not_being_able_to_know() -> None:
    history = History()

    assert [one.level for one in watch(history).restore_tests()] == [Level.BREACH]
    (found,) = watch(history, catalog=NullCatalog()).restore_tests()
    assert found.level is Level.BREACH
    assert "no catalog is configured" in found.problem
