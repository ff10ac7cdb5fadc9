"""Models in two buckets, each region with its own KMS key: through the runtime, as installed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, set_id
from neuroca_backup.model.status import Level
from neuroca_backup.runtime import Runtime
from neuroca_backup.services import needs
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.settings import Settings
from support import model_files
from support.wiring import Places, region_places

if TYPE_CHECKING:
    import pytest

LARGE = 64 * 1024
SHARDS = ("one", "two")


def wire(places: Places, folder: Path, *, mode: str) -> Runtime:
    settings = Settings.model_validate(
        {
            "schedule": {"model_weights": "0 4 * * 0"},
            "storage": places.storage,
            "retention": {"model_weights": "180d"},
            "encryption": places.encryption,
            "pipeline": {"spool": str(folder / "spool"), "mode": mode},
            "sources": {
                "models": {
                    "component": "model_weights",
                    "engine": "model_weights",
                    "options": {"roots": [str(folder / "models")]},
                }
            },
        }
    )
    runtime = Runtime.build(settings, FileConnections(environ=places.environ))
    runtime.__dict__["catalog"] = MemoryCatalog()
    return runtime


def back_up(runtime: Runtime, *, age: timedelta) -> BackupRef:
    (part,) = runtime.parts("models")
    ref = runtime.ref(set_id(at=datetime.now(UTC) - age, run=str(age)), part.source)
    runtime.backups.run(ref, mode=runtime.settings.pipeline.mode)
    results = runtime.verifier.verify(ref)
    assert results["primary"].level is Level.INTACT
    assert results["secondary"].level is Level.PARSED
    return ref


def test_a_second_backup_refers_to_the_first_whose_keys_are_wrapped_for_other_places(
    object_stores: dict[str, Endpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuroca_backup.engines.model_weights.dump.LARGE_BYTES", LARGE)
    home = tmp_path / "models" / "Llama 3"
    home.mkdir(parents=True)
    for shard in SHARDS:
        data = model_files.safetensors(weight=shard.encode() * LARGE)
        (home / f"{shard}.safetensors").write_bytes(data)
    places = region_places(object_stores)
    first = back_up(wire(places, tmp_path, mode="staged"), age=timedelta(days=7))
    (home / "one.safetensors").write_bytes(model_files.safetensors(weight=b"new" * LARGE))
    runtime = wire(places, tmp_path, mode="streamed")
    second = back_up(runtime, age=timedelta())
    manifest = read_manifest(runtime.stores["secondary"], second).manifest
    assert needs.origins(manifest) == {first.backup_id}
    held = [member.name for member in manifest.members if member.origin is not None]
    assert held == ["files/Llama%203/two.safetensors"]

    # The primary has lost what is referred to; the secondary's keys and bytes are enough.
    for key in set(needs.objects(manifest)):
        if key.startswith(first.prefix):
            runtime.stores["primary"].delete(key)
    target = RestoreTarget(Endpoint.this_machine(tmp_path / "restored"))
    plan = runtime.restores.plan(
        component=second.component,
        source=second.source,
        restore_id="restore-models",
        backup_id=second.backup_id,
    )
    runtime.restores.preflight(plan, target)
    fetched = runtime.restores.fetch(plan)
    runtime.restores.load(plan, fetched, target)
    runtime.restores.compare(plan, target)
    runtime.restores.publish(plan, fetched, target)
    runtime.restores.clear(plan.restore_id)
    for shard in SHARDS:
        name = f"{shard}.safetensors"
        assert (tmp_path / "restored" / "Llama 3" / name).read_bytes() == (home / name).read_bytes()
    assert set(fetched.bytes_by_store) == {"primary", "secondary"}
    assert any("two.safetensors was not taken from primary" in one for one in fetched.fallbacks)
