"""Airflow's REST API as far as the demo needs it.

https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from neuroca_backup.errors import BackupError, PermanentError, UnreachableError

_TIMEOUT_SECONDS = 30
_NOT_FOUND = 404
# As many as Airflow gives at once, whatever is asked for (`[api] maximum_page_limit`).
_PAGE = 100
# Parts of Airflow as its health report calls them.
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of a run: its state ("" before it is scheduled), its try, and when it ran.

    `map_index` is -1 but for a mapped task, whose `label` then says which one it is.
    """

    task_id: str
    map_index: int
    label: str
    state: str
    attempt: int
    started: datetime | None
    ended: datetime | None

    @property
    def place(self) -> str:
        """The task's id, with its index where it is mapped: `source.publish[0]`."""
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"

    @property
    def seconds(self) -> float | None:
        """How long it ran, once it has ended."""
        if self.started is None or self.ended is None:
            return None
        return (self.ended - self.started).total_seconds()


class AirflowApi:
    """The API at `url`, used as `user`; the token is fetched at the first call that needs one."""

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self._url = url
        self._login = {"username": user, "password": password}
        self._token = ""
        # Whatever proxy this machine has, it does not lead to this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def healthy(self) -> bool:
        """Return whether every part of Airflow answers and says that it is well."""
        try:
            report = self._call("GET", "/api/v2/monitor/health")
        except BackupError:
            return False
        return all((report.get(part) or {}).get("status") == "healthy" for part in _PARTS)

    def knows(self, dag_id: str) -> bool:
        """Return whether the DAG has been read."""
        return self._get(f"/dags/{dag_id}", missing=None) is not None

    def import_errors(self) -> list[str]:
        """Return the errors of DAG files that cannot be read."""
        report = self._get("/importErrors")
        return [f"{e['filename']}: {e['stack_trace']}" for e in report["import_errors"]]

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Unpause the DAG, start a run of it with `conf`, and return the run's id."""
        self._authorised("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf)}
        run: dict[str, Any] = self._authorised("POST", f"/dags/{dag_id}/dagRuns", body)
        return str(run["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self._get(_run(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> Sequence[TaskRun]:
        """Return the tasks of a run in the order in which they started."""
        place = f"{_run(dag_id, run_id)}/taskInstances?limit={_PAGE}&order_by=start_date"
        report = self._get(place)
        found: list[Mapping[str, Any]] = list(report["task_instances"])
        while report["task_instances"] and len(found) < report["total_entries"]:
            report = self._get(f"{place}&offset={len(found)}")
            found += report["task_instances"]
        return [
            TaskRun(
                task_id=one["task_id"],
                map_index=one["map_index"],
                label=_label(one),
                state=one["state"] or "",
                attempt=one["try_number"],
                started=_time(one["start_date"]),
                ended=_time(one["end_date"]),
            )
            for one in found
        ]

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Return what a task gave to the tasks after it."""
        place = f"{_run(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._get(f"{place}?deserialize=false&stringify=false")["value"]

    def log_lines(self, dag_id: str, run_id: str, task: TaskRun) -> list[str]:
        """Return the log of a task's last try, line by line."""
        place = f"{_run(dag_id, run_id)}/taskInstances/{task.task_id}/logs/{task.attempt}"
        query = f"full_content=true&map_index={task.map_index}"
        content = self._get(f"{place}?{query}", missing={"content": []})["content"]
        return [line for entry in content for line in _log_lines(entry)]

    def _get(self, path: str, **missing: Any) -> Any:
        try:
            return self._authorised("GET", path)
        except _StatusError as error:
            if error.facts["code"] == _NOT_FOUND and missing:
                return missing["missing"]
            raise

    def _authorised(self, method: str, path: str, body: Any = None) -> Any:
        if not self._token:
            self._token = self._call("POST", "/auth/token", self._login)["access_token"]
        return self._call(method, f"/api/v2{path}", body)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own address
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
        )
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(2000).decode(errors="replace")
            raise _StatusError(
                f"Airflow's API answered {method} {path} with {error.code}: {text}",
                remedy="Look at .demo/logs/api-server.log, then run `make demo` again.",
                code=error.code,
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(
                f"Airflow's API did not answer {method} {path} ({type(error).__name__})",
                remedy="Look at .demo/logs/api-server.log, then run `make demo` again.",
            ) from None


class _StatusError(PermanentError):
    """An answer other than success; `code` is its HTTP status."""


def _run(dag_id: str, run_id: str) -> str:
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _label(task: Mapping[str, Any]) -> str:
    """Return the task's id, with the name that a mapped one gave itself, else its index."""
    if task["map_index"] < 0:
        return str(task["task_id"])
    return f"{task['task_id']} [{task.get('rendered_map_index') or task['map_index']}]"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _log_lines(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    errors = entry.get("error_detail") or ()
    told = (f"{error.get('exc_type')}: {error.get('exc_value')}" for error in errors)
    return [str(entry.get("event", "")), *told]
