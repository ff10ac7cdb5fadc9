"""The sensor of a recovery time objective."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from neuroca_backup.hooks.neuroca import run_actor, translated
from neuroca_backup.triggers.recovery_objective import RecoveryObjectiveTrigger, watch_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.recovery.watch import Watch

# The limit of the objective ends the wait, or the end of the recovery.
_NO_LIMIT_OF_AIRFLOW = timedelta(days=366)


class RecoveryObjectiveSensor(BaseSensorOperator):
    """Wait until everything of an objective is restored and checked; fail once that is too late.

    Time counts from the moment when the disaster was declared. The log shows the time used, the
    time left, the forecast and what is open. People are told at 50, 75 and 90 percent of the
    limit, and when it is over. Failing stops no restore. It may be started anew at any time: all
    that it knows is in the journal of the recovery. An objective of which nothing was lost is
    skipped.

    Args:
        recovery_id: Which recovery; templated. It must have been declared.
        objective: Which objective, e.g. `database`, `memory_tiers` or `full_system`; templated.
        deferrable: Wait in the triggerer; otherwise as `mode` says, `poke` or `reschedule`.
        poke_interval: Seconds between two looks.
        kwargs: Those of every sensor.
    """

    template_fields: Sequence[str] = ("recovery_id", "objective")
    ui_color = "#8a5a00"
    ui_fgcolor = "#ffffff"

    def __init__(
        self,
        *,
        recovery_id: str,
        objective: str,
        deferrable: bool = True,
        poke_interval: float = 30,
        **kwargs: Any,
    ) -> None:
        kwargs = {"doc_md": type(self).__doc__, "timeout": _NO_LIMIT_OF_AIRFLOW, **kwargs}
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.recovery_id = recovery_id
        self.objective = objective
        self.deferrable = deferrable
        self._watch: Watch | None = None

    def execute(self, context: Context) -> Any:
        """Look once, and wait where nothing is decided yet."""
        if not self.deferrable:
            return super().execute(context)
        if self.poke(context):
            return None
        watch = self._watch_in(context)
        assert watch.due is not None  # noqa: S101 - every look that comes back has set it
        return self.defer(
            trigger=RecoveryObjectiveTrigger(
                recovery_id=self.recovery_id,
                objective=self.objective,
                actor=_actor(context),
                due=watch.due.isoformat(),
                every=self.poke_interval,
            ),
            method_name="resume",
        )

    def poke(self, context: Context) -> bool:
        """Return whether the objective is met; fail once it can be met in time no more.

        Raises:
            AirflowSkipException: Nothing of the objective was lost.
            AirflowFailException: It was breached, or the recovery has ended without it.
            AirflowException: The journal cannot be read, so nobody can tell.
        """
        with translated():
            sight = self._watch_in(context).look()
        return self._decide(sight.verdict, sight.text)

    def resume(self, context: Context, event: dict[str, Any]) -> None:  # noqa: ARG002 - Airflow's
        """Take what the trigger found; raises what `poke` does."""
        self._decide(event["verdict"], event["text"])

    def _decide(self, verdict: str, text: str) -> bool:
        from neuroca_backup.services.recovery.watch import Verdict  # noqa: PLC0415 - for the task

        match Verdict(verdict):
            case Verdict.WAIT:
                return False
            case Verdict.MET:
                self.log.info("%s", text)
                return True
            case Verdict.ABSENT:
                raise AirflowSkipException(text)
            case Verdict.BREACHED:
                raise AirflowFailException(
                    f"{text}. The restores go on: their tasks and logs say what is open and why."
                )
            case Verdict.ENDED:
                raise AirflowFailException(
                    f"The recovery has ended without this objective. {text}. Its journal says why: "
                    f"`neuroca-backup recoveries show {self.recovery_id}`."
                )
            case Verdict.UNKNOWN:
                raise AirflowException(text)

    def _watch_in(self, context: Context) -> Watch:
        """Return the watch of this task, which stays the same from look to look."""
        if self._watch is None:
            with translated():
                self._watch = watch_of(
                    self.recovery_id, self.objective, actor=_actor(context), context=context
                )
        return self._watch


def _actor(context: Context) -> str:
    return run_actor(context["dag_run"])
