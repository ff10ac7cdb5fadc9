"""The tasks of the DAG `rotate_keys`. Each operator only places one service call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import Component

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.definitions._internal.expandinput import MappedArgument


@dataclass(frozen=True, slots=True)
class RotationRequest:
    """The fields of the form; the DAG's params have the same names."""

    rotate: bool = False
    purge_old: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> RotationRequest:
        """Return the request that `params` describe; none of them is a scheduled run's.

        Raises:
            ConfigurationError: A field is unknown or neither true nor false, or `purge_old` is set
                without `rotate`.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        for name, value in params.items():
            if not isinstance(value, bool):
                raise ConfigurationError(
                    f"{name}: {value!r} is neither true nor false",
                    remedy="Write true or false, without quotes.",
                    value=value,
                )
        request = cls(**params)
        if request.purge_old and not request.rotate:
            raise ConfigurationError(
                "purge_old needs rotate", remedy="Set both, or leave both away."
            )
        return request


class RotationOperator(BaseOperator):
    """A task of a key rotation; subclasses say what it does."""

    ui_color = "#3b5b8c"
    ui_fgcolor = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})


class PlanRotationOperator(RotationOperator):
    """Look how old every key is, and return the sources whose keysets are looked at."""

    def execute(self, context: Context) -> list[dict[str, str]]:
        """Return `component` and `source` of everything that any store has backups of."""
        with translated():
            RotationRequest.parse(dict(context["params"]))
            rotation = NeurocaHook().runtime.rotation
            ages, found = rotation.ages(), rotation.sources()
        for age in ages:
            if age.warning:
                self.log.warning("%s: %s", age.label, age.warning)
            else:
                self.log.info("%s is %s days old", age.label, age.days)
        context["ti"].xcom_push(key="due", value=[one.label for one in ages if one.due])
        return [{"component": one.value, "source": source} for one, source in found]


class RotateKeysOperator(RotationOperator):
    """Wrap the keysets of one source for the keys of today; without `rotate`, only count them.

    What is current is left as it is, so it may be repeated. It fails where something could not be
    done; the rest of the source is done.

    Args:
        order: `component` and `source`, one of those that `plan` returned.
    """

    template_fields: Sequence[str] = ("order",)

    def __init__(self, *, order: MappedArgument | dict[str, str], **kwargs: Any) -> None:
        self.order = order
        super().__init__(**kwargs)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return how many keysets there are, were wrapped anew, and are still under an old key."""
        assert isinstance(self.order, dict)  # noqa: S101 - Airflow has rendered it by now
        component, source = Component(self.order["component"]), self.order["source"]
        with translated():
            request = RotationRequest.parse(dict(context["params"]))
            rotation = NeurocaHook().runtime.rotation
            if request.rotate:
                found = rotation.rotate(component, source, purge_old=request.purge_old)
            else:
                found = rotation.status(component, source)
        for stale in found.stale:
            self.log.warning("%s", stale)
        if found.problems:
            kind = AirflowException if found.transient else AirflowFailException
            raise kind(f"{component}/{source}: {'; '.join(found.problems)}")
        return {
            "source": source,
            "documents": found.documents,
            "rotated": found.rotated,
            "purged": found.purged,
            "remaining": found.remaining,
            "oldest_days": found.oldest_days,
        }


class RecordRotationOperator(RotationOperator):
    """Log what the run found, and fail where a key is due, or anything is under an old one.

    It runs whatever became of the others: its success never makes a failed run green.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the sums over all sources."""
        ti = context["ti"]
        planned = ti.xcom_pull(task_ids="plan")
        due = ti.xcom_pull(task_ids="plan", key="due") or []
        indexes = list(range(len(planned or [])))
        pulled = ti.xcom_pull(task_ids="rotate", map_indexes=indexes) if indexes else []
        done = [one for one in pulled if one]
        names = ("documents", "rotated", "purged", "remaining")
        report: dict[str, Any] = {name: sum(one[name] for one in done) for name in names}
        report["oldest_days"] = max((one["oldest_days"] for one in done), default=0)
        self.log.info("Keys: %s", report)
        wrong = [f"{label} is due to be rotated" for label in due]
        if report["remaining"]:
            wrong.append(
                f"{report['remaining']} keysets are under an old key: trigger `rotate_keys` with "
                "`rotate`"
            )
        if planned is None or len(done) < len(indexes):
            wrong.append("not everything could be looked at: the red tasks' logs say why")
        if wrong:
            raise AirflowFailException(f"{'; '.join(wrong)}.")
        return report
