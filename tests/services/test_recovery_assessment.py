"""What a recovery would bring back, from real stores: sets, times, what is missing or silent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.errors import NotFoundError, StoreUnavailableError
from neuroca_backup.model.identity import Component
from neuroca_backup.services.recovery.request import RecoveryRequest
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from pathlib import Path

    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.services.recovery.plan import PlannedSource, RecoveryPlan


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FilesBench:
    register(monkeypatch)
    made = FilesBench(tmp_path)
    (made.models / "phi").mkdir()
    (made.models / "phi" / "model.bin").write_text("weights")
    return made


def back_up(bench: FilesBench, text: str, *, record: bool = True) -> BackupRef:
    (bench.etc / "app.yaml").write_text(text)
    ref = bench.ref("configuration")
    bench.back_up(ref=ref)
    if record:
        bench.runtime.sets().record(ref.set_id, ref.component, ["configuration"])
    return ref


def assess(bench: FilesBench, **form: Any) -> RecoveryPlan:
    runtime = bench.fresh()
    request = RecoveryRequest.parse(form, runtime.settings)
    return runtime.assessment.plan(
        request,
        recovery_id="20261123T120000Z-drill-1f0c9a3e",
        restore_prefix="restore-x",
        declared_at=datetime.now(UTC),
        actor="me",
        reached=runtime.assessment.look_around(request),
    )


def configuration(plan: RecoveryPlan) -> PlannedSource:
    return next(one for one in plan.sources if one.source == "configuration")


def moment(bench: FilesBench, ref: BackupRef) -> datetime:
    listed = next(one for one in bench.listed() if one.ref == ref)
    assert listed.manifest is not None
    return listed.manifest.dump.consistent_at


def backup_of(plan: RecoveryPlan) -> str:
    found = configuration(plan).plan
    assert found is not None
    return found.backup_id


def test_the_newest_set_comes_back_or_that_of_a_time_or_a_named_one(bench: FilesBench) -> None:
    first, second = back_up(bench, "a: 1\n"), back_up(bench, "a: 2\n")
    between = moment(bench, first) + (moment(bench, second) - moment(bench, first)) / 2

    newest = assess(bench)
    assert backup_of(newest) == second.backup_id
    assert newest.components[0].set_id == second.set_id
    assert backup_of(assess(bench, recover_to=between.isoformat())) == first.backup_id
    assert backup_of(assess(bench, recover_to=first.set_id)) == first.backup_id
    with pytest.raises(NotFoundError, match="There is no set 20200101T000000Z-00000000"):
        assess(bench, recover_to="20200101T000000Z-00000000")


def test_what_has_no_backup_from_before_a_time_is_named_and_the_others_are_planned(
    bench: FilesBench,
) -> None:
    ref = back_up(bench, "a: 1\n")
    bench.back_up("models__phi")
    before = moment(bench, ref) + timedelta(microseconds=1)

    plan = assess(bench, recover_to=before.isoformat())

    assert backup_of(plan) == ref.backup_id
    assert list(plan.problems) == ["models__phi"]
    assert "no verified backup of models__phi from before" in plan.problems["models__phi"]


def test_without_a_set_each_source_s_newest_is_taken_and_the_plan_says_so(
    bench: FilesBench,
) -> None:
    ref = back_up(bench, "a: 1\n", record=False)

    plan = assess(bench, components=["configuration"])

    assert backup_of(plan) == ref.backup_id
    (component,) = plan.components
    assert (component.component, component.set_id) == (Component.CONFIGURATION, "")
    assert "not of one moment" in component.notes[0]


def test_a_set_that_lacks_a_source_leaves_it_a_problem(bench: FilesBench) -> None:
    back_up(bench, "a: 1\n")
    ref = bench.ref("models__phi")
    bench.back_up("models__phi", ref=ref)
    bench.runtime.sets().record(ref.set_id, ref.component, ["models__phi"], whole=["models"])
    (bench.models / "llama").mkdir()

    plan = assess(bench, recover_to=ref.set_id, components=["model_weights", "configuration"])

    assert [one.source for one in plan.sources if one.plan] == ["configuration", "models__phi"]


def test_a_silent_store_is_named_and_the_other_is_read_without_it(bench: FilesBench) -> None:
    back_up(bench, "a: 1\n")
    (bench.root / "primary").rename(bench.root / "gone")

    plan = assess(bench, components=["configuration"])

    reached = {one.name: one.answers for one in plan.reached}
    assert (reached["primary"], reached["secondary"]) == (False, True)
    assert reached["configuration"] is None, "nobody can be asked about files"
    found = configuration(plan)
    assert found.plan is not None
    assert "secondary" in found.plan.stores
    assert found.levels["secondary"] == "PARSED"
    assert any(one.kind == "key" and one.answers for one in plan.reached)
    (bench.root / "secondary").rename(bench.root / "gone, too")
    with pytest.raises(StoreUnavailableError):
        assess(bench)


def test_the_loss_counts_from_what_comes_back_to_the_disaster_and_is_held_to_the_rpo(
    bench: FilesBench,
) -> None:
    bench.more["objectives"] = {"rpo": {"configuration": "1m"}}
    back_up(bench, "a: 1\n")

    fresh = assess(bench, components=["configuration"]).components[0]
    runtime = bench.fresh()
    late = runtime.assessment.plan(
        RecoveryRequest.parse({"components": ["configuration"]}, runtime.settings),
        recovery_id="20261123T120000Z-drill-1f0c9a3e",
        restore_prefix="restore-x",
        declared_at=datetime.now(UTC) + timedelta(hours=1),
        actor="me",
    ).components[0]

    assert fresh.within_rpo is True
    assert late.within_rpo is False
    assert late.loss_seconds == pytest.approx(3600, abs=60)
