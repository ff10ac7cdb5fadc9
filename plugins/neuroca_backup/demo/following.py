"""Following a DAG run to its end: the states of its tasks as they change, a failure's own words."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from neuroca_backup.demo.airflow_api import AirflowApi, TaskRun
from neuroca_backup.demo.screen import Screen
from neuroca_backup.errors import NotFoundError, PermanentError, ToolFailedError, UnreachableError

_POLL_SECONDS = 0.5
_READ_SECONDS = 120
# Calls that may fail one after the other, each after up to 30 s, before it is no hiccup any more.
_HICCUPS = 5
_TAIL_LINES = 25
_STYLES = {
    "success": "green",
    "skipped": "magenta",
    "failed": "bold red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
}
_SILENT = ("", "scheduled", "queued")


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that succeeded, with its tasks by `TaskRun.place`."""

    dag_id: str
    run_id: str
    tasks: Mapping[str, TaskRun]


@dataclass(slots=True)
class Follower:
    """Triggers DAGs and waits for them. `check` raises when Airflow itself has died meanwhile."""

    api: AirflowApi
    screen: Screen
    check: Callable[[], None]
    _shown: dict[tuple[str, str], str] = field(default_factory=dict)

    def wait_for(self, dag_id: str) -> None:
        """Return once Airflow has read the DAG.

        Raises:
            PermanentError: Its file cannot be read.
            NotFoundError: It did not turn up in time.
        """
        deadline = time.monotonic() + _READ_SECONDS
        while not self.api.knows(dag_id):
            self.check()
            if errors := self.api.import_errors():
                raise PermanentError(
                    f"Airflow cannot read {errors[0]}",
                    remedy="Mend that file, then run `make demo` again.",
                )
            if time.monotonic() >= deadline:
                raise NotFoundError(
                    f"Airflow has not read the DAG {dag_id} within {_READ_SECONDS} s",
                    remedy="Look at .demo/logs/dag-processor.log.",
                    dag_id=dag_id,
                )
            time.sleep(_POLL_SECONDS)

    def run(self, dag_id: str, conf: Mapping[str, Any]) -> FinishedRun:
        """Run the DAG to its end; raises what `finish` does."""
        return self.finish(dag_id, self.api.trigger(dag_id, conf))

    def finish(self, dag_id: str, run_id: str) -> FinishedRun:
        """Follow a run to its end.

        Raises:
            ToolFailedError: A task failed; the ends of the failed tasks' logs have been printed.
            UnreachableError: Airflow died or stopped answering.
        """
        state, tasks = self._end_of(dag_id, run_id)
        if state != "success":
            failed = [task for task in tasks.values() if task.state == "failed"]
            for task in failed:
                self._show_log(dag_id, run_id, task)
            names = ", ".join(task.label for task in failed) or "no task"
            raise ToolFailedError(
                f"The run {run_id} of {dag_id} ended as {state}; failed: {names}",
                remedy="Its log above says why; the whole of it is below .demo/airflow/logs.",
                dag_id=dag_id,
                run_id=run_id,
            )
        return FinishedRun(dag_id=dag_id, run_id=run_id, tasks=tasks)

    def _end_of(self, dag_id: str, run_id: str) -> tuple[str, dict[str, TaskRun]]:
        hiccups = 0
        while True:
            self.check()
            try:
                state = self.api.run_state(dag_id, run_id)
                tasks = self.api.tasks(dag_id, run_id)
            except UnreachableError:
                hiccups += 1
                if hiccups > _HICCUPS:
                    raise
                continue
            hiccups = 0
            for task in tasks:
                self._show(dag_id, run_id, task)
            if state in {"success", "failed"}:
                return state, {task.place: task for task in tasks}
            time.sleep(_POLL_SECONDS)

    def _show(self, dag_id: str, run_id: str, task: TaskRun) -> None:
        key, state = (run_id, task.place), f"{task.state}/{task.attempt}"
        if self._shown.get(key) == state or task.state in _SILENT:
            return
        self._shown[key] = state
        again = f", try {task.attempt}" if task.attempt > 1 else ""
        took = "" if task.seconds is None else f"  {task.seconds:.1f} s"
        line = f"{dag_id}: {task.label:<28} {task.state}{again}{took}"
        self.screen.say(line, style=_STYLES.get(task.state, "dim"))

    def _show_log(self, dag_id: str, run_id: str, task: TaskRun) -> None:
        lines = self.api.log_lines(dag_id, run_id, task)[-_TAIL_LINES:]
        self.screen.say(f"The log of {dag_id}.{task.label}, try {task.attempt}, ends:")
        for line in lines:
            self.screen.console.print(f"    {line}", markup=False, highlight=False)
