"""The tasks of a recovery one by one: who may approve, and that nothing is done without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    TaskAwaitingInput,
)

from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.recovery_activate import ApproveRecoveryOperator
from neuroca_backup.operators.recovery_assess import PlanRecoveryOperator
from neuroca_backup.operators.recovery_infrastructure import ProvisionOperator, TargetsOperator
from neuroca_backup.operators.recovery_report import ReportOperator
from neuroca_backup.operators.recovery_restore import ChooseOperator
from neuroca_backup.operators.recovery_return import BackUpAgainOperator, RedirectOperator
from neuroca_backup.operators.recovery_step import APPROVALS, Situation
from neuroca_backup.services.backup import BackupType
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT = datetime(2026, 11, 23, 2, tzinfo=UTC)
TRIGGERER, BOB, CAROL = "alice", "bob", "carol"


@dataclass
class Run:
    """Stands in for a run of the DAG: its form, its XComs, and who triggered it."""

    bench: FilesBench
    form: dict[str, Any]
    xcoms: dict[str, Any] = field(default_factory=dict)
    pushed: dict[str, Any] = field(default_factory=dict)
    store: dict[tuple[str, str], str] = field(default_factory=dict)

    def context(self, task_id: str) -> Any:
        run = SimpleNamespace(
            dag_id="disaster_recovery",
            run_id="manual",
            run_after=AT,
            start_date=AT,
            run_type="manual",
            triggering_user_name=TRIGGERER,
        )
        ti = SimpleNamespace(
            task_id=task_id,
            map_index=-1,
            try_number=1,
            xcom_pull=lambda task_ids, **_: self.xcoms.get(task_ids),
            xcom_push=lambda key, value: self.pushed.update({key: value}),
            get_task_states=lambda **_: {},
        )
        store = SimpleNamespace(
            get=lambda key: self.store.get((task_id, key)),
            set=lambda key, value: self.store.update({(task_id, key): value}),
        )
        return {"params": self.form, "dag_run": run, "ti": ti, "task_state_store": store}

    def do(self, operator: Any) -> Any:
        self.xcoms[operator.task_id] = found = operator.execute(self.context(operator.task_id))
        return found

    def answer(self, operator: Any, option: str, *, by: str, sha256: str = "", **event: Any) -> Any:
        """Let `by` answer a question that is asked."""
        with pytest.raises(TaskAwaitingInput) as asked:
            operator.execute(self.context(operator.task_id))
        words = dict(asked.value.kwargs or {})
        words["sha256"] = sha256 or words["sha256"]
        found = operator.execute_complete(
            self.context(operator.task_id),
            {"chosen_options": [option], "responded_by_user": {"name": by, "id": by}, **event},
            **words,
        )
        self.xcoms[operator.task_id] = found
        return found

    def events(self, kind: EventKind) -> list[Any]:
        recovery = self.xcoms["assess.plan"]["recovery_id"]
        return [
            one for one in self.bench.fresh().journal(recovery).read().events if one.kind is kind
        ]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    register(monkeypatch)
    commands = {
        name: {"command": ["/bin/touch", str(tmp_path / name)]}
        for name in ("provision", "redirect")
    }
    bench = FilesBench(tmp_path, more={"recovery": {"approvals": 2, **commands}})
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(bench.write_yaml()))
    # Airflow asks its database who was asked; here nobody but the test is.
    monkeypatch.setattr(
        "airflow.providers.standard.operators.hitl.HITLOperator.execute",
        lambda *_: (_ for _ in ()).throw(TaskAwaitingInput(method_name="execute_complete")),
    )
    (bench.etc / "app.yaml").write_text("a: 1\n")
    (bench.models / "phi").mkdir()
    (bench.models / "phi" / "model.bin").write_text("weights")
    bench.back_up()
    bench.back_up("models__phi")
    form = {
        "target": "new_environment",
        "what_happened": "the disk is gone",
        "connections": {
            "configuration": str(tmp_path / "new" / "etc"),
            "models": str(tmp_path / "new" / "models"),
        },
    }
    made = Run(bench, form)
    made.do(PlanRecoveryOperator(task_id="assess.plan", reached=[]))
    yield made
    assert not (tmp_path / "new").exists(), "no test here restores anything"


def approval(place: int) -> ApproveRecoveryOperator:
    return ApproveRecoveryOperator(
        task_id=APPROVALS[place - 1], place=place, response_timeout=timedelta(hours=1)
    )


def nothing_is_touched(run: Run) -> None:
    for task in (
        ProvisionOperator(task_id="infrastructure.provision"),
        TargetsOperator(task_id="infrastructure.targets"),
        ChooseOperator(task_id="restore.configuration.choose", priority="configuration"),
        RedirectOperator(task_id="return.redirect"),
        BackUpAgainOperator(task_id="return.back_up_configuration", component="configuration"),
    ):
        with pytest.raises(AirflowSkipException, match="was not approved"):
            run.do(task)
    assert not (run.bench.root / "provision").exists()
    with pytest.raises(AirflowFailException, match="is not approved: nothing was touched"):
        run.do(ReportOperator(task_id="return.report"))


def test_two_approvals_are_of_two_people_and_of_exactly_this_plan(run: Run) -> None:
    sha256 = run.xcoms["assess.plan"]["sha256"]

    assert run.answer(approval(1), "Approve", by=BOB)["approved_by"] == BOB
    found = run.answer(approval(2), "Approve", by=CAROL)

    assert found == {"approved_by": f"{BOB}, {CAROL}", "sha256": sha256}
    assert [one.actor for one in run.events(EventKind.APPROVED)] == [BOB, CAROL]
    orders = run.do(TargetsOperator(task_id="infrastructure.targets"))
    assert [one["source"] for one in orders] == ["configuration", "models__phi"]
    assert orders[0]["form"]["target_directory"].endswith("/new/etc")
    run.do(ProvisionOperator(task_id="infrastructure.provision"))
    assert (run.bench.root / "provision").exists()


@pytest.mark.parametrize(("place", "by"), [(1, TRIGGERER), (2, TRIGGERER), (2, BOB)])
def test_who_triggered_it_or_has_approved_before_is_asked_in_vain(
    run: Run, place: int, by: str
) -> None:
    if place == 2:
        run.answer(approval(1), "Approve", by=BOB)
    with pytest.raises(TaskAwaitingInput):
        run.answer(approval(place), "Approve", by=by)
    run.xcoms.pop(APPROVALS[-1], None)
    nothing_is_touched(run)


def test_a_rejection_leaves_everything_as_it_is_and_is_in_the_journal(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    with pytest.raises(AirflowFailException, match="Nothing was recovered: rejected by carol"):
        run.answer(approval(2), "Reject", by=CAROL)

    assert run.events(EventKind.REJECTED)[0].details["comment"] == "rejected by carol"
    nothing_is_touched(run)


def test_nobody_s_answer_is_no(run: Run) -> None:
    with pytest.raises(AirflowFailException, match="nobody answered within"):
        run.answer(approval(1), "", by="", timedout=True)
    nothing_is_touched(run)


def test_what_has_changed_since_it_was_approved_is_not_done(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    settings = run.bench.root / "backup.yaml"
    settings.write_text(settings.read_text().replace("/bin/touch", "/bin/rm"))
    with pytest.raises(AirflowFailException, match="approved by carol as plan"):
        run.answer(approval(2), "Approve", by=CAROL)
    nothing_is_touched(run)


def test_a_question_whose_words_are_of_an_older_plan_is_not_asked_again(run: Run) -> None:
    with pytest.raises(TaskAwaitingInput):
        run.do(approval(1))
    run.bench.back_up("models__phi", backup_type=BackupType.FULL)
    run.do(PlanRecoveryOperator(task_id="assess.plan", reached=[]))

    with pytest.raises(AirflowFailException, match="trigger a new run"):
        run.do(approval(1))


def test_a_stored_plan_that_somebody_has_changed_is_not_done(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    run.answer(approval(2), "Approve", by=CAROL)
    here = Situation.of(run.context("x"))
    changed = here.plan.model_copy(update={"provision": ("/bin/rm",)})
    here.journal.attach("plan.json", changed.encode())

    with pytest.raises(AirflowFailException, match="somebody has changed it"):
        run.do(ProvisionOperator(task_id="infrastructure.provision"))


def test_a_stored_plan_that_says_it_needs_nobody_is_found_out(run: Run) -> None:
    here = Situation.of(run.context("x"))
    here.journal.attach("plan.json", here.plan.model_copy(update={"approvals": 0}).encode())

    with pytest.raises(AirflowFailException, match="not the one that assess"):
        run.do(approval(1))
    nothing_is_touched(run)


def test_what_is_back_is_left_alone_when_the_choice_is_made_again(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    run.answer(approval(2), "Approve", by=CAROL)
    choose = ChooseOperator(task_id="restore.configuration.choose", priority="configuration")
    assert [one["source"] for one in run.do(choose)] == ["configuration"]
    here = Situation.of(run.context("x"))
    here.note(EventKind.RESTORED, "configuration", once="restored")

    with pytest.raises(AirflowSkipException, match="nothing left to restore in configuration"):
        run.do(choose)

    here.note(EventKind.FAILED, "configuration", once="failed")
    assert [one["source"] for one in run.do(choose)] == ["configuration"]


def test_a_command_that_is_not_the_approved_one_any_more_is_not_run(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    run.answer(approval(2), "Approve", by=CAROL)
    settings = run.bench.root / "backup.yaml"
    settings.write_text(settings.read_text().replace("/bin/touch", "/bin/rm"))

    with pytest.raises(AirflowFailException, match="not the command that was approved"):
        run.do(ProvisionOperator(task_id="infrastructure.provision"))


def test_the_first_new_backup_is_of_everything_that_was_lost_and_read_back(run: Run) -> None:
    run.answer(approval(1), "Approve", by=BOB)
    run.answer(approval(2), "Approve", by=CAROL)

    made = run.do(
        BackUpAgainOperator(task_id="return.back_up_model_weights", component="model_weights")
    )

    found = run.bench.fresh().sets().find(made["set_id"], components=["model_weights"])
    assert found.complete
    assert list(found.members) == ["models__phi"]
    assert [one.subject for one in run.events(EventKind.BACKED_UP)] == ["models__phi"]
