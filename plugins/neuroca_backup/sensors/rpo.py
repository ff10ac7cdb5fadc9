"""A sensor for DAGs of your own: waits until a component is inside its RPO, or fails where not.

Everything heavy is imported inside the methods: DAG files import this module.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import Component
from neuroca_backup.triggers.rpo import RpoTrigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from neuroca_backup.services.objectives.findings import Finding

WAIT = "wait"
FAIL = "fail"


class RpoSensor(BaseSensorOperator):
    """Succeed once the newest verified backup of a component is younger than its RPO.

    What is not known is a breach. A component without an RPO is inside it once each of its sources
    has a verified backup. The XCom is what was found: its problem, age and limit in seconds.

    Args:
        component: The component, such as `database`.
        at_breach: `wait` until it is inside again, or `fail` at once.
        deferrable: Wait in the triggerer instead of a worker; `poke_interval` and `timeout` are
            the same.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"
    template_fields: Sequence[str] = ("component",)

    def __init__(
        self,
        *,
        component: Component | str,
        at_breach: Literal["wait", "fail"] = "wait",
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        if at_breach not in {WAIT, FAIL}:
            raise ValueError(f"at_breach: {at_breach!r} is neither {WAIT} nor {FAIL}")
        self.component = str(component)
        self.at_breach = at_breach
        self.deferrable = deferrable
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> Any:
        """Look until it is decided, here or in the triggerer; return what was found."""
        if not self.deferrable:
            return super().execute(context)
        poked = self.poke(context)
        if poked.is_done:
            return poked.xcom_value
        return self.defer(
            trigger=RpoTrigger(
                component=self.component, every=self.poke_interval, at_breach=self.at_breach
            ),
            timeout=timedelta(seconds=self.timeout),
            method_name=self.resume.__name__,
        )

    def poke(self, context: Context) -> PokeReturnValue:  # noqa: ARG002 - Airflow's signature
        """Look once.

        Raises:
            AirflowFailException: It is broken, and `at_breach` is `fail`.
        """
        with translated():
            try:
                component = Component(self.component)
            except ValueError:
                raise AirflowFailException(
                    f"component: {self.component!r} is not a component. Use one of: "
                    f"{', '.join(Component)}."
                ) from None
            found = NeurocaHook().runtime.objectives.held(component)
        return self._decide(found)

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002 - as above
        """Take what the trigger has seen.

        Raises:
            AirflowFailException: It is broken, and `at_breach` is `fail`.
            AirflowException: The trigger could not look.
        """
        from neuroca_backup.services.objectives.findings import (  # noqa: PLC0415 - only the task
            Finding,
        )

        if event.get("problem"):
            raise AirflowException(event["problem"])
        return self._decide(Finding.from_json(event["finding"])).xcom_value or {}

    def _decide(self, found: Finding) -> PokeReturnValue:
        from neuroca_backup.services.objectives.findings import (  # noqa: PLC0415 - only the task
            Level,
            ends_waiting,
        )

        self.log.info("%s: %s", found.level.word, found.sentence)
        ended = ends_waiting(found, at_breach=self.at_breach)
        if ended and found.level is Level.BREACH:
            _fail(found)
        return PokeReturnValue(is_done=ended, xcom_value=found.to_json() if ended else None)


def _fail(found: Finding) -> NoReturn:
    """Fail; where not even the age is known, a retry may know it."""
    if found.age is None:
        raise AirflowException(found.sentence)
    raise AirflowFailException(found.sentence)
