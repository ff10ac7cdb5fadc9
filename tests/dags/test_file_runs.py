"""Runs of sources that are files: parts found at run time, and sources that have not changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.operators.backup_run import SourceTasks
from support.files_runs import FilesBench
from support.registering import register

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dags.stand import Airflow, Outcome

STAGES = ["dump", "compress", "encrypt", "upload", "replicate", "verify"]


class Stand:
    """Files, stores, and an Airflow that backs them up."""

    def __init__(self, root: Path, make: Callable[[Mapping[str, str]], Airflow]) -> None:
        self.bench = FilesBench(root)
        self.bench.write_yaml()
        self.airflow = make(
            {
                "NEUROCA_BACKUP_CONFIG": str(root / "backup.yaml"),
                "NEUROCA_TEST_ENGINES": "1",
            }
        )

    def model(self, name: str, content: str = "weights") -> None:
        folder = self.bench.models / name
        folder.mkdir(exist_ok=True)
        (folder / "model.bin").write_text(content)

    def spooled(self) -> list[Path]:
        return [path for path in (self.bench.root / "spool").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def stand(
    airflow: Callable[[Mapping[str, str]], Airflow], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        yield Stand(tmp_path_factory.mktemp("files"), airflow)


@dataclass(frozen=True)
class Mended:
    """Three models, one of which could not be read in the first run, and could in the second."""

    stand: Stand
    first: Outcome
    second: Outcome


@pytest.fixture(scope="module")
def mended(stand: Stand) -> Mended:
    for name in ("Llama 3", "broken", "phi"):
        stand.model(name, content=f"weights of {name}")
    unreadable = stand.bench.models / "broken" / "unreadable"
    unreadable.touch()
    first = stand.airflow.run("backup_model_weights")
    unreadable.unlink()
    return Mended(stand, first, stand.airflow.run("backup_model_weights"))


def states(run: Outcome, index: int, group: str = "models.part") -> list[str]:
    return [run.tasks[f"{group}.{stage}[{index}]"] for stage in STAGES]


def test_every_model_has_stages_of_its_own_that_are_named_after_it(mended: Mended) -> None:
    run = mended.first

    parts = run.xcoms["models.discover/return_value"]
    assert [part["name"] for part in parts] == ["Llama 3", "broken", "phi"]
    assert parts[0]["source"].startswith("models__llama_3_")
    assert [part["source"] for part in parts[1:]] == ["models__broken", "models__phi"]
    assert run.labels["models.part.verify[0]"] == "Llama 3"
    assert states(run, 0) == ["success"] * 6
    manifest = mended.stand.bench.listed(parts[0]["source"])[-1].manifest
    assert manifest is not None
    assert manifest.dump.facts["part"] == "Llama 3"
    assert manifest.plain_size == len("weights of Llama 3"), "its own files alone"
    assert [event["uri"] for event in run.events] == ["x-neuroca-backup://model_weights/models"] * 2
    assert {event["extra"]["backup_id"].partition("-models")[2] for event in run.events} == {
        parts[0]["source"].removeprefix("models"),
        "__phi",
    }


def test_a_model_that_fails_does_not_stop_the_others_and_makes_the_run_red(mended: Mended) -> None:
    run = mended.first

    assert run.state == "failed"
    assert states(run, 1) == ["failed", *["upstream_failed"] * 5]
    assert states(run, 2) == ["success"] * 6
    assert run.tasks["set"] == "failed"
    assert run.tasks["clear_spool"] == "success"
    assert "no verified backup of models__broken" in run.output
    assert mended.stand.spooled() == []


def test_the_next_run_makes_what_is_missing_and_what_has_not_changed_stands(mended: Mended) -> None:
    run, stand = mended.second, mended.stand
    llama, broken, phi = (p["source"] for p in run.xcoms["models.discover/return_value"])

    assert run.state == "success", run.output[-8000:]
    assert states(run, 0) == states(run, 2) == ["success", *["skipped"] * 5]
    assert states(run, 1) == ["success"] * 6
    assert run.tasks["clear_spool"] == "success"
    recorded = run.xcoms["set/return_value"]
    assert recorded["unchanged"] == sorted([llama, phi])
    found = stand.bench.runtime.sets().find(
        recorded["set_id"], components=[stand.bench.runtime.component("models")]
    )
    assert found.complete
    new = [name for name, one in found.members.items() if found.set_id in one.backup_id]
    assert (sorted(found.members), new) == (sorted([llama, broken, phi]), [broken])
    assert stand.spooled() == []


class Pulled:
    """Stands in for a task instance: the XComs of a run, by task, of mapped ones a list."""

    def __init__(self, **xcoms: Any) -> None:
        self._xcoms = {name.replace("__", "."): value for name, value in xcoms.items()}

    def xcom_pull(self, *, task_ids: str, map_indexes: list[int] | None = None) -> Any:
        found = self._xcoms.get(task_ids)
        return found if map_indexes is None else (found or [None] * len(map_indexes))


def test_where_no_part_was_found_the_source_itself_is_what_is_missing() -> None:
    tasks = SourceTasks(source="models", first="dump", divided=True)

    for found in (None, []):
        (result,) = tasks.results(Pulled(models__discover=found))
        assert (result.source, result.verified, result.standing) == ("models", None, None)


def test_each_part_has_its_own_result_whichever_of_its_tasks_failed() -> None:
    tasks = SourceTasks(source="models", first="stream", divided=True)
    new, old = {"backup_id": "new", "checked_at": ""}, {"backup_id": "old", "checked_at": "2026"}
    parts = [{"source": f"models__{n}", "name": str(n)} for n in range(3)]

    found = list(
        tasks.results(
            Pulled(
                models__discover=parts,
                models__part__stream=[new, None, old],
                models__part__verify=[{"backup_id": "new"}, None, None],
            )
        )
    )

    assert [one.source for one in found] == ["models__0", "models__1", "models__2"]
    assert [one.standing for one in found] == [None, None, "old"]
    assert [bool(one.verified) for one in found] == [True, False, False]


def test_a_run_in_which_nothing_has_changed_is_green_skips_visibly_and_keeps_the_set(
    stand: Stand,
) -> None:
    (stand.bench.etc / "app.yaml").write_text("a: 1\n")
    bench = stand.bench
    first = bench.ref("configuration", age=timedelta(hours=1))
    bench.back_up(ref=first)
    bench.runtime.sets().record(first.set_id, first.component, ["configuration"])

    second = stand.airflow.run("backup_configuration")

    assert second.state == "success", second.output[-8000:]
    assert [second.tasks[f"configuration.{stage}"] for stage in STAGES] == [
        "success",
        *["skipped"] * 5,
    ]
    assert second.tasks["clear_spool"] == "success"
    assert second.xcoms["set/return_value"]["set_id"] == first.set_id
    assert second.xcoms["set/return_value"]["unchanged"] == ["configuration"]
    assert second.events == []
    assert f"configuration is unchanged: it is what {first.backup_id} holds" in second.output
    assert f"{first.backup_id} stands for this backup" in second.output
    assert len(stand.bench.listed()) == 1
    assert stand.spooled() == []
