"""Whole runs of the DAG `retention` over two directories."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import YAML
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.stores.local import LocalStore
from support.histories import BOTH, History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dags.stand import Airflow


@pytest.fixture
def history(tmp_path: Path) -> History:
    """Backups of January 2026 of two sources, all of them older than anything is kept."""
    made = History()
    for day in range(8):
        made.put(day)
    for day in range(5):
        made.put(day, source="mongodb")
    for name in BOTH:
        store = LocalStore(name, tmp_path / name)
        store.initialise()
        for key, (data, _) in made.stores[name].objects.items():
            store.put(key, data)
    LocalKeyFile.generate(tmp_path / "keys.json")
    (tmp_path / "backup.yaml").write_text(YAML.format(root=tmp_path, mode="staged", sources=""))
    return made


def marked(folder: Path, source: str) -> int:
    return len(list((folder / "primary" / "database" / source).rglob("tombstone.json")))


def test_a_run_does_what_is_certain_and_asks_for_the_rest(
    history: History, airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> None:
    made = airflow({"NEUROCA_BACKUP_CONFIG": str(tmp_path / "backup.yaml")})

    careful = made.run("retention")

    assert careful.state == "failed", "a green `record` would hide that something was left undone"
    assert careful.tasks["record"] == "failed"
    assert (careful.tasks["apply[0]"], careful.tasks["apply[1]"]) == ("success", "failed")
    assert careful.labels["apply[1]"] == "database/postgres"
    assert careful.tries["apply[1]"] == 1, "no retry brings a confirmation"
    assert "5 of 8 verified backups would expire at once" in careful.output
    assert careful.tasks["sweep"] == "success"
    assert (marked(tmp_path, "mongodb"), marked(tmp_path, "postgres")) == (2, 0)


def test_a_dry_run_logs_the_plan_and_hands_nothing_on(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from neuroca_backup.operators import retention  # noqa: PLC0415 - after the environment

    hook = SimpleNamespace(runtime=SimpleNamespace(retention=history.at(100).retention))
    monkeypatch.setattr(retention, "NeurocaHook", lambda: hook)
    plan, before = retention.PlanRetentionOperator(task_id="plan"), history.snapshot()
    context: Any = {"params": {"dry_run": True, "confirm": False}}

    assert plan.execute(context) == []

    told = capsys.readouterr()
    assert f"{history.ref(0).backup_id}: expire: older than 30 days" in told.out + told.err
    assert history.snapshot() == before
    context["params"]["dry_run"] = False
    assert plan.execute(context) == [
        {"component": "database", "source": "mongodb"},
        {"component": "database", "source": "postgres"},
    ]
    sweep = retention.SweepOperator(task_id="sweep")
    context["params"]["dry_run"] = True
    assert sweep.execute(context)["objects"] == 0


def test_a_confirmation_reaches_the_plan(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowFailException  # noqa: PLC0415 - as below

    from neuroca_backup.operators import retention  # noqa: PLC0415 - after the environment

    hook = SimpleNamespace(runtime=SimpleNamespace(retention=history.at(100).retention))
    monkeypatch.setattr(retention, "NeurocaHook", lambda: hook)
    order = {"component": "database", "source": "postgres"}
    apply = retention.ApplyRetentionOperator(task_id="apply", order=order)
    run = SimpleNamespace(dag_id="retention", run_id="manual")
    context: Any = {"params": {"dry_run": False, "confirm": False}, "dag_run": run}

    with pytest.raises(AirflowFailException, match="more than 50 %"):
        apply.execute(context)
    context["params"]["confirm"] = True

    assert apply.execute(context)["expired"] == 5
    assert history.catalog.events()[0].actor == "airflow:retention/manual"
