"""Whole runs of `disaster_recovery` over files: a drill, a new place, and what goes wrong in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.model.recovery import RecoveryRef
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dags.stand import Airflow, Outcome
    from neuroca_backup.services.recovery.journal import Reading

STEPS = ["fetch", "stop", "save", "load", "compare", "publish", "examine", "record"]
# `dag.test` runs one task at a time: a clock that waits would wait for ever.
CLOCKS = "rto_.*"


@dataclass
class Stand:
    """A configuration and two models with backups, and an Airflow that recovers them."""

    bench: FilesBench
    airflow: Airflow

    def run(self, **form: Any) -> Outcome:
        return self.airflow.run("disaster_recovery", form, NEUROCA_TEST_SUCCEEDS=CLOCKS)

    def journal(self, run: Outcome) -> Reading:
        recovery = run.xcoms["assess.plan/return_value"]["recovery_id"]
        return self.bench.fresh().journal(recovery).read()

    def back_up(self) -> None:
        ref = self.bench.ref("configuration")
        self.bench.back_up(ref=ref)
        self.bench.runtime.sets().record(ref.set_id, ref.component, ["configuration"])
        for model in ("models__llama", "models__phi"):
            self.bench.back_up(model)


@pytest.fixture(scope="module")
def stand(
    airflow: Callable[[Mapping[str, str]], Airflow], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        root = tmp_path_factory.mktemp("recovery")
        bench = FilesBench(root)
        (bench.etc / "app.yaml").write_text("a: 1\n")
        for model in ("llama", "phi"):
            (bench.models / model).mkdir()
            (bench.models / model / "model.bin").write_text(f"weights of {model}")
        bench.write_yaml()
        made = Stand(
            bench,
            airflow(
                {
                    "NEUROCA_BACKUP_CONFIG": str(root / "backup.yaml"),
                    "NEUROCA_TEST_ENGINES": "1",
                }
            ),
        )
        made.back_up()
        yield made


def test_a_drill_restores_everything_into_throwaway_places_by_priority(stand: Stand) -> None:
    run = stand.run()

    assert run.state == "success", run.output[-8000:]
    reading = stand.journal(run)
    assert RecoveryRef(reading.declared.recovery_id).drill
