"""Step 6 of a recovery: traffic, watching, the first new backups, and what is left to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from typing_extensions import override

from neuroca_backup.errors import BackupError
from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.model.identity import Component, set_id
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.operators.approval import SecondPersonOperator
from neuroca_backup.operators.recovery_restore import brought_back
from neuroca_backup.operators.recovery_step import (
    RecoveryOperator,
    Situation,
    attempt_of,
)
from neuroca_backup.operators.restore import together

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

_BEGUN, _TROUBLE = "begun", "trouble"


class ConfirmOperator(SecondPersonOperator):
    """Ask somebody who has looked at the system whether traffic may be led to it.

    The log says which checks have passed and which have not. Anybody may answer, who triggered the
    recovery included. Without an answer no traffic is led anywhere.
    """

    undone = "Traffic was not led back"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"subject": "Lead traffic back", **kwargs})

    @override
    def execute(self, context: Context) -> dict[str, Any]:
        with translated():
            here = Situation.of(context)
            plan = here.approved_plan(context)
            if not plan.redirect:
                raise AirflowSkipException(
                    "Nobody is asked: "
                    + ("a drill has no traffic" if plan.drill else "backup.yaml has no command")
                )
            events = here.journal.read(tolerant=True).events
        back = brought_back(events)
        missing = [one.source for one in plan.sources if one.plan and one.source not in back]
        checks = {one.subject: one for one in events if one.kind is EventKind.CHECKED}
        words = {True: "passed", False: "NOT PASSED"}
        self.log.info("Not restored by themselves: %s", ", ".join(missing) or "nothing")
        for name, one in checks.items():
            self.log.info("%s: %s %s", name, words[one.passed], one.details.get("problem") or "")
        raise self.ask(
            context,
            sha256=plan.sha256,
            subject=f"Lead traffic to the recovered system of {plan.recovery_id}?",
            # Airflow keeps these words when it asks again: nothing that may change is in them.
            body=f"It runs `{' '.join(plan.redirect)}`. The log of this task says what is back and "
            "which checks have passed; look at the system yourself, too.",
        )

    @override
    def execute_complete(
        self, context: Context, event: dict[str, Any], sha256: str = "", deadline: str = ""
    ) -> dict[str, Any]:
        found = super().execute_complete(context, event, sha256=sha256, deadline=deadline)
        with translated():
            here = Situation.of(context)
            here.journal.append(
                EventKind.CONFIRMED,
                once=f"confirmed:{attempt_of(context)}",
                actor=found["approved_by"],
            )
        return found

    @override
    def digest_now(self, context: Context) -> str:
        return Situation.of(context).plan.sha256

    @override
    def barred(self, context: Context) -> Mapping[str, str]:
        return {}

    @override
    def refuse(self, context: Context, why: str) -> NoReturn:
        raise AirflowFailException(f"{self.undone}: {why}. Clear this task to ask again.")


class RedirectOperator(RecoveryOperator):
    """Run the command that leads the traffic back, `recovery.redirect` in backup.yaml."""

    ui_color = "#7a5195"

    @override
    def work(self, here: Situation, context: Context) -> None:
        from neuroca_backup.services.recovery import hooks  # noqa: PLC0415 - only the task needs it

        plan = here.approved_plan(context)
        hook = here.runtime.settings.recovery.redirect
        if not plan.redirect or hook is None:
            raise AirflowSkipException("There is no command to lead traffic back.")
        hooks.require_planned(hook.command, plan.redirect, name="recovery.redirect")
        for line in hooks.run(hook, recovery_id=plan.recovery_id):
            self.log.info("%s", line)
        here.note(EventKind.REDIRECTED, once=f"redirected:{attempt_of(context)}")


class MonitorSensor(BaseSensorOperator):
    """Watch the recovered system for `recovery.monitor`; no worker waits meanwhile.

    Every target is asked again and again. One that has not answered in between fails this task at
    the end, even if it answers by then.

    Args:
        window: How long.
    """

    ui_color = "#2d6a31"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, window: timedelta, **kwargs: Any) -> None:
        self.window = window
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "mode": "reschedule",
                "timeout": (window * 2 + timedelta(hours=1)).total_seconds(),
                **kwargs,
            }
        )

    def poke(self, context: Context) -> bool:
        """Return whether the window is over."""
        from neuroca_backup.services.recovery.hooks import answer  # noqa: PLC0415 - only tasks

        with translated():
            here = Situation.of(context)
            plan = here.approved_plan(context)
            if plan.drill:
                raise AirflowSkipException("Nothing is watched: throwaway servers are removed.")
            back = brought_back(here.journal.read(tolerant=True).events)
            silent = []
            for one in plan.sources:
                if one.plan is None or one.source not in back:
                    continue
                place = here.whereabouts(context, one)
                _, problem = answer(lambda place=place: place, one.plan.engine)  # type: ignore[misc]
                if problem:
                    silent.append(f"{one.source}: {problem}")
        store: Any = context["task_state_store"]
        now = datetime.now(UTC)
        ti: Any = context["ti"]
        begun_key, trouble_key = f"{_BEGUN}:{ti.try_number}", f"{_TROUBLE}:{ti.try_number}"
        begun = datetime.fromisoformat(store.get(begun_key) or now.isoformat())
        trouble: str = store.get(trouble_key) or ""
        for line in silent:
            self.log.warning("%s", line)
            trouble = trouble or f"{now.isoformat(timespec='seconds')} {line}"
        store.set(begun_key, begun.isoformat())
        if trouble:
            store.set(trouble_key, trouble)
        if now - begun < self.window:
            return False
        if trouble:
            raise AirflowFailException(
                f"The recovered system did not always answer; first: {trouble}. Find out why, then "
                "clear this task to watch anew."
            )
        return True


class BackUpAgainOperator(RecoveryOperator):
    """Back up one component of the recovered system, in full, read back from every store.

    It follows the connections of backup.yaml, which must lead to the recovered servers by now.

    Args:
        component: Which one.
    """

    ui_color = "#5b3f8c"

    def __init__(self, *, component: Component | str, **kwargs: Any) -> None:
        self.component = Component(component)
        super().__init__(**kwargs)

    @override
    def work(self, here: Situation, context: Context) -> dict[str, Any]:
        from neuroca_backup.services.backup import BackupType  # noqa: PLC0415 - only the task's

        plan = here.approved_plan(context)
        if plan.drill:
            raise AirflowSkipException("Nothing is backed up: a drill leaves the system alone.")
        if self.component not in {one.component for one in plan.components}:
            raise AirflowSkipException(f"{self.component} was not lost.")
        run: Any = context["dag_run"]
        runtime = here.runtime
        made = set_id(at=run.run_after, run=f"after {plan.recovery_id}")
        names: list[str] = []
        failures: list[BackupError] = []
        for source in runtime.settings.sources_of(self.component):
            try:
                parts = runtime.parts(source)
            except BackupError as error:
                self.log.error("%s: %s", source, error)  # noqa: TRY400 - raised below
                failures.append(error)
                continue
            for part in parts:
                names.append(part.source)
                ref = runtime.ref(made, part.source)
                try:
                    mode = runtime.settings.pipeline.mode
                    runtime.backups.run(ref, mode=mode, backup_type=BackupType.FULL)
                    runtime.verifier.verify(ref)
                except BackupError as error:
                    self.log.error("%s: %s", part.source, error)  # noqa: TRY400 - raised below
                    failures.append(error)
                    continue
                here.note(
                    EventKind.BACKED_UP,
                    part.source,
                    once=f"backed_up:{ref.backup_id}",
                    backup_id=ref.backup_id,
                )
        if failures:
            raise failures[0]
        whole = [one for one in runtime.settings.sources_of(self.component) if one not in names]
        recorded = runtime.sets().record(made, self.component, names, whole=whole)
        return {"set_id": recorded.set_id}


class RemoveSandboxesOperator(BaseOperator):
    """Stop every throwaway server of this run, and leave nothing of it in the spool."""

    ui_color = "#5f6368"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> None:
        """Stop them, the others, too, where one fails."""
        from neuroca_backup import sandbox  # noqa: PLC0415 - only the task needs it
        from neuroca_backup.errors import NotFoundError  # noqa: PLC0415 - as above

        failures: list[BackupError] = []
        with translated():
            here = Situation.of(context)
            try:
                plan = here.plan
            except NotFoundError:
                return  # nothing was planned, so nothing was started
            here.runtime.agreement.clear(together(context))
            for one in plan.sources:
                if one.plan is None:
                    continue
                root = here.runtime.spool.sandbox(one.plan.restore_id)
                try:
                    if here.request.keep_sandbox:
                        self.log.warning("The sandbox below %s is kept; stop it when done", root)
                    else:
                        sandbox.stop(root)
                    here.runtime.restores.clear(one.plan.restore_id)
                except BackupError as error:
                    self.log.error("%s", error)  # noqa: TRY400 - raised below
                    failures.append(error)
            if failures:
                raise failures[0]
