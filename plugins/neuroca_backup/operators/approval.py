"""The question to another person before something is done: who may answer, and for how long."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk.exceptions import AirflowFailException, TaskAwaitingInput
from typing_extensions import override

from neuroca_backup.errors import BackupError
from neuroca_backup.hooks.neuroca import NeurocaHook

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

APPROVE = "Approve"
REJECT = "Reject"
SHOWN_DIGITS = 16
# Where an approval leaves why a run may not go on: no task after it would know otherwise.
REFUSAL = "refusal"
# What the words of the question are about, in the task's own store.
_SHOWN = "shown"


class SecondPersonOperator(HITLOperator):
    """Ask another person than the one who triggered the run; subclasses say what is asked.

    Who triggered the run may reject it, not approve it. What is asked for has a digest; after the
    answer it is made anew, and with another digest nothing is done. Nobody's answer within the
    time is no.

    Args:
        response_timeout: How long an answer is waited for.
    """

    ui_color = "#a3461c"
    ui_fgcolor = "#ffffff"
    # What was not done, in the words of a refusal.
    undone = "Nothing was done"

    def __init__(self, *, response_timeout: timedelta, **kwargs: Any) -> None:
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "options": [APPROVE, REJECT],
                "response_timeout": response_timeout,
                "retries": 0,  # a retry would ask again
                **kwargs,
            }
        )

    @abstractmethod
    def digest_now(self, context: Context) -> str:
        """Return the digest of what would be done now; raise `BackupError` if it cannot be."""

    def asked_about(self, context: Context) -> str:
        """Return what is approved, for the audit trail."""
        run: Any = context["dag_run"]
        return f"{run.dag_id}/{run.run_id}"

    def barred(self, context: Context) -> Mapping[str, str]:
        """Return who may not approve, by name, and why in words."""
        return {self.triggered_by(context): "has triggered this"}

    @override
    def execute_complete(
        self, context: Context, event: dict[str, Any], sha256: str = "", deadline: str = ""
    ) -> dict[str, Any]:
        if event.get("timedout") or "error" in event:
            self.refuse(context, f"nobody answered within {self._patience}")
        user: Mapping[str, str] = event.get("responded_by_user") or {}
        name = user.get("name") or user.get("id") or ""
        if event["chosen_options"] != [APPROVE]:
            self._note(context, name or "somebody unknown", "rejected", sha256=sha256)
            self.refuse(context, f"rejected by {name or 'somebody unknown'}")
        if not name:
            self.refuse(context, "approved by somebody whose name Airflow does not tell")
        for barred, why in self.barred(context).items():
            if barred not in user.values():
                continue
            until = datetime.fromisoformat(deadline)
            if until <= datetime.now(UTC):
                self.refuse(context, f"nobody but {name} answered within {self._patience}")
            self.log.error("%s %s, so another person has to approve it: asked again", name, why)
            raise self.question(context, sha256=sha256, deadline=until)
        self._require_the_same(context, sha256, approved_by=name)
        self._note(context, name, "approved", sha256=sha256)
        self.log.info("Approved by %s: plan %s", name, sha256)
        return {"approved_by": name, "sha256": sha256}

    def ask(self, context: Context, *, sha256: str, subject: str, body: str) -> BaseException:
        """Return what, once raised, lets the task wait for the answer without a worker.

        Airflow keeps the words of a task's first question when it is cleared and asks again. So
        what is asked for then must be what those words are about.
        """
        store: Any = context["task_state_store"]
        shown = store.get(_SHOWN) or sha256
        if shown != sha256:
            self.refuse(
                context,
                f"the plan is {sha256[:SHOWN_DIGITS]} now, and Airflow would show the question of "
                f"{shown[:SHOWN_DIGITS]} again: trigger a new run",
            )
        store.set(_SHOWN, sha256)
        self.subject = subject
        self.body = body
        deadline = datetime.now(UTC) + self._patience
        return self.question(context, sha256=sha256, deadline=deadline)

    def question(self, context: Context, *, sha256: str, deadline: datetime) -> BaseException:
        """Ask, or ask again; return what lets the task wait for the answer without a worker."""
        try:
            super().execute(context)
        except TaskAwaitingInput as waiting:
            return TaskAwaitingInput(
                method_name=waiting.method_name,
                kwargs={"sha256": sha256, "deadline": deadline.isoformat()},
                timeout=deadline - datetime.now(UTC),
            )
        return AirflowFailException("Airflow did not wait for an answer; nothing was touched.")

    def triggered_by(self, context: Context) -> str:
        """Return who triggered the run; without a name nobody can be told apart from them."""
        run: Any = context["dag_run"]
        name: str | None = run.triggering_user_name
        if not name:
            self.refuse(
                context,
                "Airflow does not tell who triggered it, so nobody can be told apart from them: "
                "trigger it from the UI or the API as a user",
            )
        return name

    def refuse(self, context: Context, why: str) -> NoReturn:
        """Fail, and leave word of why."""
        ti: Any = context["ti"]
        ti.xcom_push(key=REFUSAL, value=why)
        raise AirflowFailException(
            f"{self.undone}: {why}. Nothing was touched. Clear this task to ask again."
        )

    def _note(self, context: Context, who: str, result: str, *, sha256: str) -> None:
        audit = NeurocaHook().runtime.audit
        details = {"plan": sha256, "run": audit.actor}
        audit.note("approve", self.asked_about(context), actor=who, result=result, details=details)

    @property
    def _patience(self) -> timedelta:
        assert self.response_timeout is not None  # noqa: S101 - given at construction
        return self.response_timeout

    def _require_the_same(self, context: Context, sha256: str, *, approved_by: str) -> None:
        try:
            now = self.digest_now(context)
        except BackupError as error:
            self.refuse(context, f"approved by {approved_by}, but not possible now: {error}")
        if now != sha256:
            self.refuse(
                context,
                f"approved by {approved_by} as plan {sha256[:SHOWN_DIGITS]}, which by now would "
                f"be {now[:SHOWN_DIGITS]}: a backup, a connection or backup.yaml has changed",
            )
