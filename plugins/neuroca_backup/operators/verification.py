"""The tasks of a verification run. Each operator only places one service call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.observability import stats

from neuroca_backup.hooks.neuroca import NeurocaHook, run_actor, translated
from neuroca_backup.model import quantity
from neuroca_backup.model.identity import Component
from neuroca_backup.operators.verification_request import VerificationRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument

REPORT = "report"
_COUNTS = ("checked", "not_checkable", "coming", "later", "overdue", "left_overdue", "bytes")


class VerificationOperator(BaseOperator):
    """A task of a verification run; subclasses say what it does."""

    ui_color = "#2d6a31"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})


class PlanVerificationOperator(VerificationOperator):
    """Find the sources that there are backups of. A dry run logs what would be checked, and why."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Return `component` and `source` of every source that is checked; of a dry run none."""
        with translated():
            request = VerificationRequest.parse(dict(context["params"]))
            service = NeurocaHook().runtime.checking
            found = service.sources(component=request.component, source=request.source)
            if not request.dry_run:
                return [{"component": one.value, "source": source} for one, source in found]
            for one in found:
                plan = service.plan(*one, whole=request.whole, level=request.level)
                self.log.info(
                    "%s/%s: %d copies would be checked (%s), %d overdue, %d later",
                    *one,
                    len(plan.checks),
                    quantity.size(plan.size),
                    plan.overdue,
                    len(plan.later),
                )
                for check in plan.checks:
                    words = (check.copy.ref.backup_id, check.copy.store, check.level.name)
                    self.log.info("%s in %s to %s: %s", *words, check.reason)
                for copy in plan.archived:
                    words = (copy.ref.backup_id, copy.store, copy.history)
                    self.log.warning("%s in %s is not checkable: archived, %s", *words)
                for sentence in plan.unknown:
                    self.log.warning("Not known: %s", sentence)
        self.log.info("A dry run: nothing is read")
        return []


class CheckOperator(VerificationOperator):
    """Read the copies of one source whose turn it is.

    What is due is looked for anew. The task fails when a copy is damaged or its level fell, when a
    check could not run, and when copies are still overdue; each copy is named with its levels
    before and now, and with what was found.

    Args:
        order: `component` and `source`, one of those that `plan` returned.
    """

    template_fields: Sequence[str] = ("order",)

    def __init__(self, *, order: MappedArgument | dict[str, str], **kwargs: Any) -> None:
        self.order = order
        super().__init__(**kwargs)

    def execute(self, context: Context) -> None:
        """Check; leave the report for `record`, whatever came of it."""
        assert isinstance(self.order, dict)  # noqa: S101 - Airflow has rendered it by now
        with translated(), stats.timer("neuroca_backup.verification", tags=self.order):
            request = VerificationRequest.parse(dict(context["params"]))
            report = NeurocaHook().runtime.checking.check(
                Component(self.order["component"]),
                self.order["source"],
                whole=request.whole,
                level=request.level,
            )
            told = report.to_json()
            self.log.info("Checked: %s", told)
            # A failed task has no result: `record` must be able to say what it found.
            context["ti"].xcom_push(key=REPORT, value=told)
            for name in ("fallen", "not_checkable", "left_overdue"):
                count = len(told[name]) if name == "fallen" else told[name]
                stats.gauge(f"neuroca_backup.verification.{name}", count, tags=self.order)
            report.require_sound()


class RecordVerificationOperator(VerificationOperator):
    """Log what the run came to, note it in the audit trail, and fail if any part of it failed.

    It also reads the documents of the backup sets. It runs whatever became of the others: its
    success never makes a failed run green.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the sums over all sources, and how many copies were read to which level."""
        ti = context["ti"]
        planned = ti.xcom_pull(task_ids="plan")
        indexes = list(range(len(planned or [])))
        pulled = ti.xcom_pull(task_ids="check", key=REPORT, map_indexes=indexes) if indexes else []
        done = [one for one in pulled if one]
        sums: dict[str, Any] = {name: sum(one[name] for one in done) for name in _COUNTS}
        levels: dict[str, int] = {}
        for one in done:
            for level, count in one["levels"].items():
                levels[level] = levels.get(level, 0) + count
        run = context["dag_run"]
        with translated():
            service = NeurocaHook().runtime.checking
            problems = [
                *([] if planned is not None else ["`plan` failed: nothing was checked"]),
                *_every(done, "fallen"),
                *_every(done, "failed"),
                *service.doubtful_sets(),
            ]
            if len(done) < len(indexes):
                problems.append(f"{len(indexes) - len(done)} sources were not checked at all")
            if sums["left_overdue"]:
                problems.append(f"{sums['left_overdue']} copies are still overdue")
            report = {**sums, "levels": levels, "problems": problems}
            service.note_run(actor=run_actor(run), details=report)
        self.log.info("Verification: %s", report)
        for sentence in _every(done, "archived"):
            self.log.warning("Not checkable: %s", sentence)
        if problems:
            raise AirflowFailException(
                f"{'; '.join(problems[:10])}. The logs of `check` say more; "
                "docs/reference/verification.md says what to do."
            )
        return report


def _every(reports: Iterable[dict[str, Any]], word: str) -> list[str]:
    return [sentence for one in reports for sentence in one[word]]
