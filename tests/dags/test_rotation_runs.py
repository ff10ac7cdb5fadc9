"""The DAG `rotate_keys`: what it is made of, and a whole run of it over two directories."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import YAML
from neuroca_backup.connections import FileConnections
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.audit import newest
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.settings import load
from support.reusing import Stand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from airflow.sdk import DAG

    from dags.stand import Airflow


def test_it_looks_monthly_changes_nothing_by_itself_and_ends_with_a_task_that_tells(
    configure: Callable[..., Path], parsed: Callable[[], dict[str, DAG]]
) -> None:
    configure()
    dag: Any = parsed()["rotate_keys"]
    assert (dag.timetable.expression, str(dag.timetable.timezone)) == ("0 7 1 * *", "UTC")
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.params.dump() == {"rotate": False, "purge_old": False}
    assert dag.get_task("record").trigger_rule == "all_done"
    assert dag.get_task("record").upstream_task_ids == {"rotate"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"rotat": True}, "no field 'rotat'"),
        ({"rotate": "yes"}, "neither true nor false"),
        ({"purge_old": True}, "purge_old needs rotate"),
    ],
)
def test_a_form_that_means_nothing_is_refused(form: dict[str, Any], words: str) -> None:
    from neuroca_backup.operators.rotation import RotationRequest  # noqa: PLC0415 - after Airflow

    with pytest.raises(ConfigurationError, match=words):
        RotationRequest.parse(form)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    """One backup under a key that backup.yaml names as a former one."""
    made = Stand(tmp_path)
    made.write(note=b"one")
    made.back_up(age=timedelta(hours=1))
    old = (tmp_path / "local.key").rename(tmp_path / "old.key")
    LocalKeyFile.generate(tmp_path / "keys.json")
    moved = f"  key_rotation: {{previous_local_key_files: [{old}]}}\n"
    (tmp_path / "backup.yaml").write_text(YAML.format(root=tmp_path, mode="staged", sources=moved))
    return made


class Instance:
    """A task instance that hands on what it is told."""

    def __init__(self, **pulled: Any) -> None:
        self.pushed: dict[str, Any] = {}
        self.pulled = pulled

    def xcom_push(self, *, key: str, value: Any) -> None:
        self.pushed[key] = value

    def xcom_pull(self, *, task_ids: str, key: str = "", map_indexes: Any = None) -> Any:  # noqa: ARG002 - Airflow's
        return self.pulled.get(key or task_ids)


def test_without_rotate_it_tells_of_the_old_key_and_is_red(
    stand: Stand,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from airflow.sdk.exceptions import AirflowFailException  # noqa: PLC0415 - as below

    from neuroca_backup.operators import rotation  # noqa: PLC0415 - after the environment

    runtime = Runtime.build(load(tmp_path / "backup.yaml"), FileConnections(environ={}))
    hook = SimpleNamespace(runtime=runtime)
    monkeypatch.setattr(rotation, "NeurocaHook", lambda: hook)
    before = {
        one.key: stand.stores["primary"].get(one.key) for one in stand.stores["primary"].list()
    }
    planning = Instance()
    context: Any = {"params": {"rotate": False, "purge_old": False}, "ti": planning}

    orders = rotation.PlanRotationOperator(task_id="plan").execute(context)
    found = rotation.RotateKeysOperator(task_id="rotate", order=orders[0]).execute(context)

    assert len(orders) == 1
    assert (found["documents"], found["rotated"], found["remaining"]) == (2, 0, 2)
    told = capsys.readouterr()
    assert "wrapped 0 days ago; still opened by local" in told.out + told.err
    for key, data in before.items():
        assert stand.stores["primary"].get(key) == data
    record = rotation.RecordRotationOperator(task_id="record")
    for pulled, words in (
        ({"plan": orders, "due": [], "rotate": [found]}, "2 keysets are under an old key"),
        ({"plan": orders, "due": ["kms x"], "rotate": [{**found, "remaining": 0}]}, "kms x is due"),
        ({"plan": orders, "rotate": []}, "not everything could be looked at"),
        ({}, "not everything could be looked at"),
    ):
        with pytest.raises(AirflowFailException, match=words):
            record.execute({"ti": Instance(**pulled)})  # type: ignore[arg-type,typeddict-item]
    done: Any = {"ti": Instance(plan=orders, due=[], rotate=[{**found, "remaining": 0}])}
    assert record.execute(done)["documents"] == 2


def test_a_run_with_rotate_wraps_every_keyset_for_the_new_key(
    stand: Stand, airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> None:
    made = airflow({"NEUROCA_BACKUP_CONFIG": str(tmp_path / "backup.yaml")})

    turned = made.run("rotate_keys", {"rotate": True})

    assert turned.state == "success", turned.output[-4000:]
    component, source = next(Inventory(stand.stores).sources())
    (found,) = Inventory(stand.stores).newest_first(component, source)
    ref = found.ref
    assert turned.labels["rotate[0]"] == f"{ref.component}/{ref.source}"
    new, manifest = LocalKeyFile(tmp_path / "keys.json"), stand.manifest(ref)
    for store in stand.stores.values():
        key = ref.keys_key(manifest.attempt)
        keys = KeysDocument.decode(store.get(key), name=key)
        assert [one.id for one in keys.recipients] == [new.id]
        Keyring([new]).unwrap(keys, backup_id=ref.backup_id, name=key)
    event = next(newest(stand.stores["primary"])).event
    assert (event.action, event.result) == ("rotate keys", "done")
    assert "airflow:rotate_keys/" in event.actor
