"""What both pipelines promise whatever flows through them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from neuroca_backup.errors import DamagedError, EmptySourceError
from neuroca_backup.model.manifest import Dump, SealedManifest
from neuroca_backup.model.status import Level
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.pipeline import in_parallel, require_content
from support.moments import MOMENT
from support.wiring import (
    BOTH,
    back_up,
    fresh_ref,
    keys_in,
    local_places,
    scratch_database,
    wire,
)

if TYPE_CHECKING:
    from neuroca_backup.catalog.memory import MemoryCatalog
    from neuroca_backup.model.endpoint import Endpoint

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "memory_streamed.py"


def test_the_memory_of_a_streamed_backup_does_not_grow_with_the_data() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "15", "150"],
        env={**os.environ, "PYTHONPATH": str(BENCHMARK.parents[1] / "plugins")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    small, large = (json.loads(line)["peak_mb"] for line in done.stdout.splitlines())
    assert large < 400
    assert large - small < 60  # of the 135 MB that are added


@pytest.mark.parametrize("mode", BOTH)
def test_the_catalog_is_told_of_every_stage_and_of_both_copies(
    mode: str, postgres: Endpoint, tmp_path: Path
) -> None:
    with scratch_database(postgres, f"told_{mode}") as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            mode=mode,
            options={"databases": [source.database]},
        )
        ref = back_up(runtime)
    catalog: MemoryCatalog = runtime.catalog  # type: ignore[assignment]
    (entry,) = catalog.backups()
    assert entry.backup_id == ref.backup_id
    assert entry.levels == {"primary": Level.INTACT, "secondary": Level.PARSED}
    stages = {stage for _, stage in catalog.stages}
    expected = {"stream"} if mode == "streamed" else {"dump", "compress", "encrypt", "upload"}
    assert stages == {*expected, "replicate"}
    assert all(size > 0 for _, size in catalog.stages.values())


def test_both_pipelines_store_the_same_members_of_the_same_stages(
    postgres: Endpoint, tmp_path: Path
) -> None:
    stages = set()
    with scratch_database(postgres, "both_pipelines") as source:
        for mode in BOTH:
            runtime = wire(
                local_places(tmp_path),
                postgres=source,
                spool=tmp_path / "spool",
                mode=mode,
                options={"databases": [source.database]},
            )
            ref = back_up(runtime)
            manifest = read_manifest(runtime.stores["primary"], ref).manifest
            stages.add(manifest.stages)
            assert sorted(keys_in(runtime, "primary", ref)) == sorted(
                keys_in(runtime, "secondary", ref)
            )
            names = {member.name for member in manifest.members}
            assert "globals.sql" in names
            assert any(name.startswith("databases/both_pipelines") for name in names)
    assert stages == {("zstd", "tink-aes256-gcm-hkdf-1mb")}


def test_damage_to_the_spool_between_two_stages_gets_no_further(
    postgres: Endpoint, tmp_path: Path
) -> None:
    with scratch_database(postgres, "between_stages") as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            options={"databases": [source.database]},
        )
        stages = ("compress", "encrypt", "upload")
        for damaged in stages:
            ref = fresh_ref(runtime)
            ticket = runtime.backups.dump(ref)
            for stage in stages:
                if stage == damaged:
                    path = next((tmp_path / "spool" / ref.backup_id).rglob("globals.sql"))
                    data = bytearray(path.read_bytes())
                    data[len(data) // 2] ^= 1
                    path.write_bytes(data)
                    with pytest.raises(DamagedError, match=r"globals\.sql in spool"):
                        getattr(runtime.backups, stage)(ticket)
                    break
                ticket = getattr(runtime.backups, stage)(ticket)
            runtime.backups.clear(ref)
            assert ref.manifest_key not in keys_in(runtime, "primary", ref)


def test_damage_to_the_primary_is_not_replicated(postgres: Endpoint, tmp_path: Path) -> None:
    with scratch_database(postgres, "not_spread") as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            mode="streamed",
            options={"databases": [source.database]},
        )
        for word in ("globals.sql", "keys.json", "manifest.json"):
            ref = fresh_ref(runtime)
            runtime.backups.stream(ref)
            key = next(key for key in keys_in(runtime, "primary", ref) if key.endswith(word))
            data = bytearray(runtime.stores["primary"].get(key))
            data[-3] ^= 1
            runtime.stores["primary"].put(key, bytes(data))
            with pytest.raises(DamagedError, match=word):
                runtime.backups.replicate(ref)
            assert ref.manifest_key not in keys_in(runtime, "secondary", ref)


def test_another_attempt_in_the_secondary_is_no_copy_of_the_primary(
    postgres: Endpoint, tmp_path: Path
) -> None:
    with scratch_database(postgres, "other_attempt") as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            mode="streamed",
            options={"databases": [source.database]},
        )
        ref = back_up(runtime)
        runtime.stores["primary"].delete(ref.manifest_key)
        runtime.backups.stream(ref)
        with pytest.raises(DamagedError, match="they are no copies"):
            runtime.backups.replicate(ref)
        assert ref.manifest_key in keys_in(runtime, "secondary", ref)


def test_a_manifest_that_names_no_member_is_not_intact(postgres: Endpoint, tmp_path: Path) -> None:
    with scratch_database(postgres, "no_member") as source:
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            mode="streamed",
            options={"databases": [source.database]},
        )
        ref = back_up(runtime)
        primary = runtime.stores["primary"]
        bare = read_manifest(primary, ref).manifest.model_copy(update={"members": ()})
        primary.put(ref.manifest_key, SealedManifest.seal(bare, lambda _: "0" * 64).encode())
        result = runtime.verifier.check(ref, "primary", level=Level.INTACT)
        problems = [finding.problem for finding in result.findings]
        assert any("names no member" in problem for problem in problems)
        assert not result.sound


def test_results_come_in_the_order_of_the_items() -> None:
    assert in_parallel(lambda item: item * 2, range(50), workers=4) == list(range(0, 100, 2))


def test_the_first_error_keeps_what_has_not_begun_from_beginning() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(item: int) -> None:
        begun.append(item)
        if item == 1:
            failed.set()
            raise ZeroDivisionError
        assert failed.wait(10)
        time.sleep(0.002)  # or all would be done before anybody can look

    with pytest.raises(ZeroDivisionError):
        in_parallel(work, range(1000), workers=2)
    assert len(begun) < 1000


def test_a_dump_of_nothing_is_an_error_unless_it_is_known_to_be_empty() -> None:
    nothing = Dump(server_version="1", consistency=MOMENT, facts={})
    for sizes in ([], [0], [0, 0]):
        with pytest.raises(EmptySourceError, match="dump of postgres"):
            require_content(nothing, sizes, source="postgres")
        require_content(nothing.model_copy(update={"empty": True}), sizes, source="postgres")
    require_content(nothing, [0, 1], source="postgres")
