"""Step 3 of a recovery: new servers where they are needed, and every target asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.exceptions import AirflowSkipException
from typing_extensions import override

from neuroca_backup.hooks.neuroca import translated
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.operators.recovery_step import (
    TARGET_GROUP,
    RecoveryOperator,
    Situation,
    attempt_of,
)
from neuroca_backup.operators.restore_step import Bench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument


class ProvisionOperator(RecoveryOperator):
    """Run the command that makes the new servers, `recovery.provision` in backup.yaml.

    A drill needs none: it brings its own throwaway servers.
    """

    ui_color = "#2e6b9e"

    @override
    def work(self, here: Situation, context: Context) -> None:
        from neuroca_backup.services.recovery import hooks  # noqa: PLC0415 - only the task needs it

        plan = here.approved_plan(context)
        hook = here.runtime.settings.recovery.provision
        if not plan.provision or hook is None:
            raise AirflowSkipException(
                "Nothing is provisioned: "
                + ("a drill has throwaway servers" if plan.drill else "backup.yaml has no command")
            )
        hooks.require_planned(hook.command, plan.provision, name="recovery.provision")
        for line in hooks.run(hook, recovery_id=plan.recovery_id):
            self.log.info("%s", line)
        here.note(
            EventKind.PROVISIONED,
            once=f"provisioned:{attempt_of(context)}",
            how=" ".join(hook.command),
        )


class TargetsOperator(RecoveryOperator):
    """Say which sources are restored by themselves; the group of their targets has one of each."""

    @override
    def work(self, here: Situation, context: Context) -> list[dict[str, Any]]:
        plan = here.approved_plan(context)
        wanted = [one for one in plan.sources if not one.left_to and one.plan is not None]
        return [here.order(index, one, checks=TARGET_GROUP) for index, one in enumerate(wanted)]


class AnswersSensor(BaseSensorOperator):
    """Wait until the server that one source is restored to answers; no worker waits meanwhile.

    Args:
        order: What `targets` says of the source.
    """

    template_fields: Sequence[str] = ("order",)
    ui_color = "#2e6b9e"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, order: MappedArgument | dict[str, Any], **kwargs: Any) -> None:
        self.order = order
        super().__init__(
            **{
                "doc_md": type(self).__doc__,
                "map_index_template": "{{ task.order['source'] }}",
                "mode": "reschedule",
                **kwargs,
            }
        )

    def poke(self, context: Context) -> bool:
        """Return whether it answers; a target that may not be written to fails at once."""
        assert isinstance(self.order, dict)  # noqa: S101 - Airflow has rendered it by now
        from neuroca_backup.services.recovery.hooks import answer  # noqa: PLC0415 - only tasks

        with translated():
            here = Situation.of(context)
            bench = Bench.of(context, form=self.order["form"])
            if bench.request.target == "sandbox":
                self.log.info("A throwaway server is started by the next task")
                return True
            plan = RestorePlan.from_json(self.order["plan"])
            version, problem = answer(lambda: bench.target(plan).endpoint, plan.engine)
            if problem:
                self.log.warning("%s does not answer yet: %s", self.order["source"], problem)
                return False
            self.log.info("%s", version)
            here.note(
                EventKind.ANSWERED,
                self.order["source"],
                once=f"answered:{self.order['source']}:{attempt_of(context)}",
            )
            return True
