"""A whole run of `disaster_recovery` over files, on a day on which everything is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from neuroca_backup.model.recovery import EventKind
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dags.stand import Airflow
    from neuroca_backup.model.identity import BackupRef

STEPS = ["fetch", "stop", "save", "load", "compare", "publish", "examine", "record"]
# `dag.test` runs one task at a time: a clock that waits would wait for ever.
CLOCKS = "rto_.*"


def damage(bench: FilesBench, store: str, ref: BackupRef) -> None:
    """Change a byte of every member of a backup in one store."""
    members = [
        path
        for path in (bench.root / store / ref.prefix).rglob("*")
        if path.is_file() and "members" in path.parts
    ]
    assert members
    for path in members:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> FilesBench:
    made = FilesBench(tmp_path_factory.mktemp("recovery"))
    made.write_yaml()
    return made


def test_with_the_primary_gone_and_backups_damaged_all_that_can_be_done_is_done_and_told(
    bench: FilesBench, airflow: Callable[[Mapping[str, str]], Airflow]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        (bench.etc / "app.yaml").write_text("a: 1\n")
        for model in ("llama", "phi"):
            (bench.models / model).mkdir()
            (bench.models / model / "model.bin").write_text(f"weights of {model}")
        older, newest = bench.ref("configuration"), bench.ref("configuration")
        bench.back_up(ref=older)
        (bench.etc / "app.yaml").write_text("a: 2\n")
        bench.back_up(ref=newest)
        bench.runtime.sets().record(newest.set_id, newest.component, ["configuration"])
        llama, phi = bench.ref("models__llama"), bench.ref("models__phi")
        for ref in (llama, phi):
            bench.back_up(ref.source, ref=ref)
        damage(bench, "secondary", newest)
        damage(bench, "secondary", phi)
        (bench.root / "primary").rename(bench.root / "gone")

        run = airflow(
            {
                "NEUROCA_BACKUP_CONFIG": str(bench.root / "backup.yaml"),
                "NEUROCA_TEST_ENGINES": "1",
            }
        ).run("disaster_recovery", {}, NEUROCA_TEST_SUCCEEDS=CLOCKS)

        assert run.state == "failed", run.output[-8000:]
        configuration = "restore.configuration.source"
        assert {run.tasks[f"{configuration}.{step}[0]"] for step in STEPS} == {"success"}
        models = "restore.model_weights.source"
        assert {run.tasks[f"{models}.{step}[0]"] for step in STEPS} == {"success"}
        assert run.labels[f"{models}.fetch[1]"] == "models__phi"
        assert run.tasks[f"{models}.fetch[1]"] == run.tasks[f"{models}.record[1]"] == "failed"
        assert run.tasks["verify.configuration"] == "success"
        skipped = {name for name, state in run.tasks.items() if state == "skipped"}
        assert {"infrastructure.provision", "return.redirect", "verify.security"} <= skipped

        reading = (
            bench.fresh()
            .journal(run.xcoms["assess.plan/return_value"]["recovery_id"])
            .read(tolerant=True)
        )
        assert list(reading.unreachable) == ["primary"]
        restored = {
            one.subject: one.details for one in reading.events if one.kind is EventKind.RESTORED
        }
        assert restored["configuration"]["backup_id"] == older.backup_id
        assert newest.backup_id in str(restored["configuration"]["passed_over"])
        assert restored["configuration"]["stores"] == "secondary"
        assert restored.keys() == {"configuration", "models__llama"}
        (ended,) = (one for one in reading.events if one.kind is EventKind.ENDED)
        assert ended.details["outcome"] == "incomplete"
        assert "models__phi is not back" in run.output
        report = bench.fresh().journal(reading.declared.recovery_id).attachment("report.json")
        assert json.loads(report)["complete"] is False
        left = [path for path in (bench.root / "spool").rglob("*") if path.is_file()]
        assert left == [], "neither the spool nor a throwaway place has anything left"
        assert (bench.etc / "app.yaml").read_text() == "a: 2\n", "a drill touches nothing"
