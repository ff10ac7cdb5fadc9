"""The sensor of an objective in Airflow: deferred, poked, rescheduled, and started anew."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.sdk.exceptions import AirflowFailException

from dags.stand import YAML
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.sensors.recovery_objective import RecoveryObjectiveSensor
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.triggers import recovery_objective
from neuroca_backup.triggers.recovery_objective import RecoveryObjectiveTrigger
from support.recovering import BOTH, Recovering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dags.stand import Airflow

MAIL = "  notifications: {email: [oncall@nca.example]}\n"
EVERY = 0.02  # seconds between two looks
DAG = """
from airflow.sdk import DAG
from neuroca_backup.sensors.recovery_objective import RecoveryObjectiveSensor

with DAG(dag_id="recovering", params={"recovery_id": ""}):
    common = {"recovery_id": "{{ params.recovery_id }}", "poke_interval": 0.2}
    database = {**common, "objective": "database"}
    deferred = RecoveryObjectiveSensor(task_id="deferred", **database)
    poked = RecoveryObjectiveSensor(task_id="poked", deferrable=False, **database)
    rescheduled = RecoveryObjectiveSensor(
        task_id="rescheduled", deferrable=False, mode="reschedule", **database
    )
    late = RecoveryObjectiveSensor(task_id="late", objective="memory_tiers", **common)
    absent = RecoveryObjectiveSensor(task_id="absent", objective="full_system", **common)
    deferred >> [poked, rescheduled]
"""


@pytest.fixture
def stores(tmp_path: Path) -> dict[str, LocalStore]:
    """Two directories, and the backup.yaml that names them."""
    made = {name: LocalStore(name, tmp_path / name) for name in BOTH}
    for one in made.values():
        one.initialise()
    LocalKeyFile.generate(tmp_path / "keys.json")
    text = YAML.format(root=tmp_path, mode="staged", sources=MAIL)
    (tmp_path / "backup.yaml").write_text(text)
    return made


class Triggered(Recovering):
    """A recovery of which two hours pass in a second, its trigger, and what was sent."""

    PACE = 7200

    def __init__(self, stores: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(stores)
        self.sent: list[str] = []
        self.begun = time.monotonic()
        monkeypatch.setattr(recovery_objective, "utc_now", self.pace)

        def send(_channels: Any, *, subject: str, message: str, context: Any) -> int:
            self.sent.append(subject)
            return 1

        monkeypatch.setattr("neuroca_backup.notifications.channels.Channels.send", send)

    def pace(self) -> datetime:
        passed = time.monotonic() - self.begun
        self.now = self.at + timedelta(seconds=passed * self.PACE)
        return self.now

    def trigger(self, objective: str = "database", *, hours: float = 4) -> RecoveryObjectiveTrigger:
        return RecoveryObjectiveTrigger(
            recovery_id=self.ref.recovery_id,
            objective=objective,
            actor="airflow:x/y",
            due=(self.at + timedelta(hours=hours)).isoformat(),
            every=EVERY,
        )

    def run(self, trigger: RecoveryObjectiveTrigger, *, seconds: float = 20) -> list[Any]:
        """Run it as the triggerer does; after `seconds` that is shut down."""
        fired: list[Any] = []

        async def follow() -> None:
            fired.extend([event.payload async for event in trigger.run()])

        async def bounded() -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(follow(), seconds)

        asyncio.run(bounded())
        return fired

    def anew(self, trigger: RecoveryObjectiveTrigger) -> RecoveryObjectiveTrigger:
        """Return it as another triggerer would make it."""
        place, kwargs = trigger.serialize()
        assert place == f"{RecoveryObjectiveTrigger.__module__}.RecoveryObjectiveTrigger"
        return RecoveryObjectiveTrigger(**kwargs)


@pytest.fixture
def triggered(
    stores: dict[str, LocalStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Triggered:
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", str(tmp_path / "backup.yaml"))
    return Triggered(stores, monkeypatch)


def test_a_triggerer_that_is_restarted_in_the_middle_goes_on_to_the_breach(
    triggered: Triggered,
) -> None:
    first = triggered.trigger()
    assert triggered.run(first, seconds=1.2) == []
    assert triggered.sent == ["Drill: objective database: 50 % of the time is used"]

    (fired,) = triggered.run(triggered.anew(first))

    assert fired["verdict"] == "breached"
    assert "open: postgres, redis" in fired["text"]
    assert triggered.sent == [
        *(f"Drill: objective database: {one} % of the time is used" for one in (50, 75, 90)),
        "Drill: objective database: BREACHED",
    ]
    assert [kind for kind, _ in triggered.told()] == ["warned"] * 3 + ["breached"]


def test_it_fires_when_everything_is_back(triggered: Triggered) -> None:
    timer = threading.Timer(0.2, lambda: [triggered.back(one) for one in ("postgres", "redis")])
    timer.start()
    (fired,) = triggered.run(triggered.trigger())
    timer.join()
    assert fired["verdict"] == "met"
    assert triggered.told(EventKind.MET) == [("met", "database")]


def test_stores_that_are_gone_for_a_while_do_not_end_it(
    triggered: Triggered, tmp_path: Path
) -> None:
    def hide(*, hidden: bool) -> None:
        for name in BOTH:
            shown, away = tmp_path / name, tmp_path / f"{name}.away"
            shown.rename(away) if hidden else away.rename(shown)

    trigger = triggered.trigger()
    assert triggered.run(trigger, seconds=0.2) == []
    hide(hidden=True)
    assert triggered.run(trigger, seconds=0.2) == []
    hide(hidden=False)
    for one in ("postgres", "redis"):
        triggered.back(one)
    (fired,) = triggered.run(trigger)
    assert fired["verdict"] == "met"


def test_what_cannot_be_read_until_the_limit_is_never_met(
    triggered: Triggered, tmp_path: Path
) -> None:
    (tmp_path / "backup.yaml").write_text("nonsense")
    (fired,) = triggered.run(triggered.trigger(hours=0.2))
    assert fired["verdict"] == "unknown"
    assert "nobody can tell" in fired["text"]


def test_a_look_of_the_sensor_waits_until_the_objective_is_decided(triggered: Triggered) -> None:
    sensor = RecoveryObjectiveSensor(
        task_id="x", recovery_id=triggered.ref.recovery_id, objective="database", deferrable=False
    )
    context: Any = {"dag_run": SimpleNamespace(dag_id="a", run_id="b")}
    assert sensor.poke(context) is False
    triggered.tell(EventKind.ENDED, outcome="rejected")
    with pytest.raises(AirflowFailException, match="has ended without this objective"):
        sensor.poke(context)


def test_the_sensor_in_all_its_modes_under_a_whole_run(
    stores: dict[str, LocalStore],
    airflow: Callable[[Mapping[str, str]], Airflow],
    tmp_path: Path,
) -> None:
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "recovering.py").write_text(DAG)
    document = yaml.safe_load((tmp_path / "backup.yaml").read_text())
    document["backup"]["notifications"] = {}
    (tmp_path / "backup.yaml").write_text(yaml.safe_dump(document))
    recovering = Recovering(stores, at=datetime.now(UTC) - timedelta(hours=2.5), run="dag")
    recovering.minute(61).tell(EventKind.RESTORED, "working")
    recovering.minute(10 * 60).tell(EventKind.CHECKED, "working", passed=True)

    def restore_once_it_waits() -> None:
        patience = time.monotonic() + 120
        while not recovering.told(EventKind.WARNED) and time.monotonic() < patience:
            time.sleep(0.2)
        for one in ("postgres", "redis"):
            recovering.minute(155).back(one)

    thread = threading.Thread(target=restore_once_it_waits)
    thread.start()
    made = airflow({"NEUROCA_BACKUP_CONFIG": str(tmp_path / "backup.yaml")})
    outcome = made.run("recovering", {"recovery_id": recovering.ref.recovery_id}, dags=dags)
    thread.join()

    assert outcome.tasks == {
        "deferred": "success",
        "poked": "success",
        "rescheduled": "success",
        "late": "failed",
        "absent": "skipped",
    }
    assert "memory_tiers: met late, 10 h 0 min used of 6 h 0 min" in outcome.output
    assert "Nothing of the objective full_system was lost" in outcome.output
    assert "running trigger in line" in outcome.output
    assert recovering.told(EventKind.BREACHED, EventKind.MET).count(("met", "database")) == 1
