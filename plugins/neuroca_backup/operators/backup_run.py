"""The tasks of a backup run that are about all of it: parts, the set, the spool's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from neuroca_backup.errors import BackupError
from neuroca_backup.hooks.neuroca import NeurocaHook, translated
from neuroca_backup.model.identity import Component
from neuroca_backup.operators.backup import run_set_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import Context

# The group of the tasks of one part, within the group of its source.
PART_GROUP = "part"


@dataclass(frozen=True, slots=True)
class SourceTasks:
    """Where the tasks of a source are in the DAG.

    `first` is its first stage, `dump` or `stream`; a `divided` source has a task `discover` and
    stages for each part.
    """

    source: str
    first: str
    divided: bool = False

    @property
    def discover(self) -> str:
        """The task that finds the parts."""
        return f"{self.source}.discover"

    def stage(self, name: str) -> str:
        """Return the id of a stage's task."""
        group = f"{self.source}.{PART_GROUP}" if self.divided else self.source
        return f"{group}.{name}"

    def results(self, ti: Any) -> Iterator[SourceResult]:
        """Yield what the run gave of the source, or of each part; of a lost one, too."""
        if not self.divided:
            first, verified = (ti.xcom_pull(task_ids=self.stage(s)) for s in (self.first, "verify"))
            yield SourceResult(self.source, first, verified)
            return
        parts = ti.xcom_pull(task_ids=self.discover)
        if not parts:
            yield SourceResult(self.source, None, None)  # nobody knows which parts there are
            return
        indexes = list(range(len(parts)))
        firsts, verifieds = (
            ti.xcom_pull(task_ids=self.stage(name), map_indexes=indexes)
            for name in (self.first, "verify")
        )
        for part, first, verified in zip(parts, firsts, verifieds, strict=True):
            yield SourceResult(part["source"], first, verified)


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What the first and the last task of one source gave; None where they did not succeed."""

    source: str
    first: dict[str, Any] | None
    verified: dict[str, Any] | None

    @property
    def standing(self) -> str | None:
        """The id of the earlier backup that stands for this run's; None where one was due."""
        unchanged = self.first is not None and self.first.get("checked_at")
        return self.first["backup_id"] if self.first is not None and unchanged else None


class DiscoverOperator(BaseOperator):
    """Find every part that the source has now; the stages then run once for each of them.

    A source without any part is a failure.

    Args:
        source: The source's name in backup.yaml.
    """

    ui_color = "#2e6b9e"
    ui_fgcolor = "#ffffff"

    def __init__(self, *, source: str, **kwargs: Any) -> None:
        self.source = source
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> list[dict[str, str]]:  # noqa: ARG002 - Airflow's word
        """Return `source` (the name in ids) and `name` of every part."""
        with translated():
            parts = NeurocaHook().runtime.parts(self.source)
        self.log.info("%s has %d parts: %s", self.source, len(parts), [one.name for one in parts])
        return [{"source": one.source, "name": one.name} for one in parts]


class RecordSetOperator(BaseOperator):
    """Record in every store which backups of this run belong together.

    It runs whatever became of the sources, and fails unless every one of them has a verified
    backup: its success never makes a failed run green. For a source that has not changed it names
    the earlier backup; where none has changed, the earlier set stands.

    Args:
        component: The component that was backed up.
        sources: Where the tasks of its sources are.
    """

    ui_color = "#1f4e79"
    ui_fgcolor = "#ffffff"

    def __init__(
        self, *, component: Component | str, sources: Sequence[SourceTasks], **kwargs: Any
    ) -> None:
        self.component = Component(component)
        self.sources = tuple(sources)
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> dict[str, Any]:
        """Record the set; return its id and how far apart its backups are, in seconds."""
        found = [one for tasks in self.sources for one in tasks.results(context["ti"])]
        standing = {one.source: one.standing for one in found if one.standing is not None}
        with translated():
            recorded = (
                NeurocaHook()
                .runtime.sets()
                .record(
                    run_set_id(context),
                    self.component,
                    [one.source for one in found],
                    whole=[tasks.source for tasks in self.sources if tasks.divided],
                    unchanged=standing,
                )
            )
        unverified = [
            one.source for one in found if not one.verified and one.source not in standing
        ]
        if unverified:
            # A sound copy makes a set complete; a damaged one beside it must stay red.
            raise AirflowFailException(
                f"The set {recorded.set_id} is recorded, but the checks of {', '.join(unverified)} "
                "failed: the log of each verify says why."
            )
        refuse_blindness(context)
        return {
            "set_id": recorded.set_id,
            "component": str(recorded.component),
            "skew_seconds": recorded.skew_seconds,
            "unchanged": sorted(standing),
        }


class ClearSpoolOperator(BaseOperator):
    """Leave nothing of this run in the spool, whatever became of the run.

    Args:
        component: The component that the run backs up.
        sources: Its sources' names.
    """

    ui_color = "#5f6368"
    ui_fgcolor = "#ffffff"

    def __init__(
        self, *, component: Component | str, sources: Sequence[str], **kwargs: Any
    ) -> None:
        if not sources:
            raise ValueError("sources: name at least one source")
        self.component = Component(component)
        self.sources = tuple(sources)
        super().__init__(**{"doc_md": type(self).__doc__, **kwargs})

    def execute(self, context: Context) -> None:
        """Clear the spool of every source, of the others too where one fails."""
        failures: list[BackupError] = []
        with translated():
            backups = NeurocaHook().runtime.backups
            for source in self.sources:
                try:
                    backups.clear_all(run_set_id(context), self.component, source)
                except BackupError as error:
                    self.log.error("The spool still holds %s: %s", source, error)  # noqa: TRY400 - raised below
                    failures.append(error)
            if failures:
                raise failures[0]


def refuse_blindness(context: Context) -> None:
    """Fail a run that was started because a source could not be watched.

    Its backup says why where the tasks cannot read the source either. Where they can, it is the
    triggerer that cannot, and no change would be noticed.
    """
    events = [event for each in context["triggering_asset_events"].values() for event in each]
    payloads = [(event.extra or {}).get("payload") or {} for event in events]
    problems = dict.fromkeys(one["problem"] for one in payloads if one.get("problem"))
    if problems:
        raise AirflowFailException(
            "The backups are made, but changes are not noticed: the triggerer could not read what "
            f"it watches. {' '.join(problems)} Mend that, or set watch.enabled: false."
        )
