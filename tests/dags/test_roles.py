"""Each task runs on the workers of its role, where backup.yaml names some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow.sdk import DAG

QUEUES = """
  access:
    queues: {writer: w, replicator: c, verifier: v, restorer: r, retention: d, rotator: k}
"""


@pytest.mark.parametrize(
    ("mode", "written"),
    [("staged", {"dump", "compress", "encrypt", "upload"}), ("streamed", {"stream"})],
)
def test_each_task_runs_on_the_workers_of_its_role(
    configure: Callable[..., Path],
    parsed: Callable[[], Mapping[str, DAG]],
    mode: str,
    written: set[str],
) -> None:
    path = configure(mode=mode)
    path.write_text(path.read_text() + QUEUES)

    dags = parsed()

    of = {task.task_id.rpartition(".")[2]: task.queue for task in dags["backup_database"].tasks}
    cleared = {"clear_spool"} if mode == "staged" else set()
    assert {task for task, queue in of.items() if queue == "w"} == written | cleared
    assert (of["replicate"], of["verify"], of["set"]) == ("c", "v", "v")
    assert {task.queue for task in dags["restore"].tasks} == {"r"}
    assert {task.queue for task in dags["retention"].tasks} == {"d"}
    for dag, queue in (
        ("verify_backups", "v"),
        ("monitor_objectives", "v"),
        ("restore_test", "r"),
        ("disaster_recovery", "r"),
        ("rotate_keys", "k"),
    ):
        assert {task.queue for task in dags[dag].tasks} == {queue}, dag
