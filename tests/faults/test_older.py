"""Where no store has the wanted backup whole: the older one if that is allowed, and only then."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import ChainBrokenError, DamagedError, NotFoundError, SpoolError
from neuroca_backup.model.identity import Component
from support.wiring import add_rows, back_up, count_rows, databases, spool_names

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Bench
    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.model.tickets import RestorePlan
    from neuroca_backup.runtime import Runtime


def plan_of(runtime: Runtime, ref: BackupRef | None = None, *, allow_older: bool) -> RestorePlan:
    return runtime.restores.plan(
        component=Component.DATABASE,
        source="postgres",
        restore_id="restore-older",
        backup_id=None if ref is None else ref.backup_id,
        allow_older=allow_older,
    )


def members(bench: Bench, ref: BackupRef, store: str) -> list[Path]:
    return sorted((bench.root / store / ref.prefix).glob("*/members/**/*.*"))


def damage(bench: Bench, ref: BackupRef, *stores: str) -> None:
    """Flip a bit of the first member in each store."""
    for store in stores:
        path = members(bench, ref, store)[0]
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))


@pytest.fixture
def three(bench: Bench) -> tuple[Runtime, list[BackupRef]]:
    """Backups of 200, 210 and 220 rows, the newest last."""
    runtime = bench.runtime()
    refs = []
    for age in (3, 2, 1):
        refs.append(back_up(runtime, age=timedelta(hours=age)))
        add_rows(bench.source, 10)
    return runtime, refs


def test_damage_in_one_store_is_mended_by_the_other_and_needs_no_older_backup(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    damage(bench, refs[2], "primary")
    plan = plan_of(runtime, allow_older=True)

    notes = runtime.checklist.integrity(plan)
    fetched = runtime.restores.fetch(plan)

    assert any(note.startswith("primary is damaged") for note in notes)
    assert any("is intact in secondary" in note for note in notes)
    assert fetched.plan.backup_id == refs[2].backup_id
    assert fetched.fallbacks
    runtime.restores.clear(plan.restore_id)


def test_without_permission_the_refusal_names_the_older_backup(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    damage(bench, refs[2], "primary", "secondary")
    plan = plan_of(runtime, allow_older=False)

    for work in (runtime.checklist.integrity, runtime.restores.fetch):
        with pytest.raises(DamagedError, match=refs[2].backup_id) as caught:
            work(plan)
        assert caught.value.facts["older"] == refs[1].backup_id
        assert refs[1].backup_id in caught.value.remedy
        assert "--allow-older" in caught.value.remedy
    runtime.restores.clear(plan.restore_id)


def test_with_permission_the_newest_good_one_is_restored_and_every_step_back_is_told(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    for ref in refs[1:]:
        damage(bench, ref, "primary", "secondary")
    plan, target = plan_of(runtime, allow_older=True), RestoreTarget(bench.twin)
    assert plan.backup_id == refs[2].backup_id, "it was verified before it was damaged"

    notes = runtime.checklist.integrity(plan)
    runtime.checklist.versions(plan, target)
    fetched = runtime.restores.fetch(plan)
    assert bench.database not in databases(bench.twin), "nothing is touched before all is proven"
    report = fetched.plan
    runtime.restores.load(report, fetched, target)
    runtime.restores.compare(report, target)
    runtime.restores.publish(report, fetched, target)
    record = runtime.restores.record(
        report,
        actor="a test",
        target="twin",
        started_at=refs[0].time,
        seconds={},
        fetched=fetched,
        outcome="restored",
    )
    with pytest.raises(SpoolError, match=f"holds {refs[0].backup_id}, not {refs[2].backup_id}"):
        runtime.restores.load(plan, fetched, target)
    runtime.restores.clear(plan.restore_id)

    assert f"{refs[1].backup_id} will be fetched" in notes, "as far as anybody can tell by then"
    assert report.backup_id == record.backup_id == refs[0].backup_id
    assert count_rows(bench.twin, bench.database) == 200
    told = "\n".join(record.notes)
    for ref in refs[1:]:
        assert f"{ref.backup_id} is not restored, an older backup is, as was allowed" in told
    assert spool_names(runtime) == []


def test_where_no_backup_is_whole_nothing_is_restored_and_that_is_said(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    for ref in refs:
        damage(bench, ref, "primary", "secondary")
    plan = plan_of(runtime, allow_older=True)

    with pytest.raises(DamagedError, match=refs[0].backup_id) as caught:
        runtime.restores.fetch(plan)

    assert "No earlier verified backup of postgres" in caught.value.remedy
    runtime.restores.clear(plan.restore_id)


def test_a_backup_that_two_damaged_stores_have_whole_together_is_restored(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    damage(bench, refs[2], "primary")
    last = members(bench, refs[2], "secondary")[-1]
    last.write_bytes(last.read_bytes()[:-1])
    plan = plan_of(runtime, allow_older=False)

    notes = runtime.checklist.integrity(plan)
    fetched = runtime.restores.fetch(plan)

    assert any("only in primary and secondary together" in note for note in notes), notes
    assert fetched.plan.backup_id == refs[2].backup_id
    runtime.restores.clear(plan.restore_id)


def test_a_newer_backup_that_was_never_verified_is_passed_over_and_named(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    unverified = back_up(runtime, verify=False)
    plan = plan_of(runtime, allow_older=False)

    assert plan.backup_id == refs[2].backup_id
    assert plan.passed_over == (
        f"{unverified.backup_id} is newer, and passed over: no copy of it is verified",
    )


def test_a_backup_that_is_gone_gives_way_only_if_allowed(
    bench: Bench, three: tuple[Runtime, list[BackupRef]]
) -> None:
    runtime, refs = three
    plans = [plan_of(runtime, refs[2], allow_older=allowed) for allowed in (False, True)]
    for store in ("primary", "secondary"):
        (bench.root / store / refs[2].manifest_key).unlink()

    with pytest.raises((DamagedError, NotFoundError, ChainBrokenError)):
        runtime.restores.fetch(plans[0])
    fetched = runtime.restores.fetch(plans[1])

    assert fetched.plan.backup_id == refs[1].backup_id
    runtime.restores.clear(plans[1].restore_id)
