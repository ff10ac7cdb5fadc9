"""The DAG `rotate_keys`: what it is made of, and a whole run of it over two directories."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dags.stand import YAML
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.local import LocalKeyFile
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
    assert dag.timetable.summary == "0 7 1 * *"
    assert {name: dag.params[name] for name in dag.params} == {"rotate": False, "purge_old": False}
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


def test_a_run_tells_of_an_old_key_and_a_run_with_rotate_changes_it(
    airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> None:
    stand = Stand(tmp_path)
    stand.write(note=b"one")
    ref = stand.back_up(age=timedelta(hours=1))
    old = (tmp_path / "local.key").rename(tmp_path / "old.key")
    new = LocalKeyFile.generate(tmp_path / "keys.json")
    moved = f"  key_rotation: {{previous_local_key_files: [{old}]}}\n"
    (tmp_path / "backup.yaml").write_text(YAML.format(root=tmp_path, mode="staged", sources=moved))
    made = airflow({"NEUROCA_BACKUP_CONFIG": str(tmp_path / "backup.yaml")})

    looked = made.run("rotate_keys")
    assert (looked.tasks["rotate[0]"], looked.tasks["record"]) == ("success", "failed")
    assert "2 keysets are under an old key" in looked.output
    assert f"{ref.backup_id}, wrapped 0 days ago; still opened by local" in looked.output

    turned = made.run("rotate_keys", {"rotate": True})
    assert turned.state == "success", turned.output[-4000:]
    assert turned.labels["rotate[0]"] == f"{ref.component}/{ref.source}"
    manifest = stand.manifest(ref)
    for store in stand.stores.values():
        key = ref.keys_key(manifest.attempt)
        keys = KeysDocument.decode(store.get(key), name=key)
        assert [one.id for one in keys.recipients] == [new.id]
        Keyring([new]).unwrap(keys, backup_id=ref.backup_id, name=key)
    assert datetime.now(UTC) > ref.time
