"""Chains through the whole pipeline: backed up, verified, gathered, fetched and restored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymongo
import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import ChainBrokenError, DamagedError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.backup import BackupType
from neuroca_backup.services.inventory import Inventory, read_manifest
from neuroca_backup.settings import Settings
from support.wiring import connection, local_places

Client = pymongo.MongoClient[dict[str, Any]]
_counter = itertools.count()


def client(endpoint: Endpoint) -> Client:
    """Return an open client."""
    return pymongo.MongoClient(
        endpoint.host,
        endpoint.port,
        username=endpoint.user,
        password=endpoint.password,
        **endpoint.extra,
    )


class Bench:
    """One MongoDB source in two local stores, and a twin to restore to."""

    def __init__(self, root: Path, source: Endpoint, twin: Endpoint, *, mode: str) -> None:
        self.database = f"chain_{next(_counter)}_{mode}"
        self.source, self.twin, self.mode = source, twin, mode
        self.due = datetime.now(UTC) - timedelta(hours=1)
        places = local_places(root)
        settings = {
            "schedule": {"database": "0 2 * * *"},
            "storage": places.storage,
            "retention": {},
            "encryption": places.encryption,
            "pipeline": {"mode": mode, "spool": str(root / "spool")},
            "sources": {
                "mongodb": {
                    "component": "database",
                    "engine": "mongodb",
                    "connection": "source",
                    "options": {"databases": [self.database]},
                }
            },
        }
        environ = {"AIRFLOW_CONN_SOURCE": connection(source, "mongo")}
        self.runtime = Runtime.build(
            Settings.model_validate(settings), FileConnections(environ=environ)
        )
        self.runtime.__dict__["catalog"] = MemoryCatalog()

    def add(self, count: int) -> None:
        """Insert documents into the source."""
        with closing(client(self.source)) as opened:
            items = opened[self.database]["items"]
            items.insert_many([{"content": f"memory {n}"} for n in range(count)])

    def count(self) -> int:
        """Return how many documents the twin has."""
        with closing(client(self.twin)) as opened:
            return opened[self.database]["items"].count_documents({})

    def back_up(self, backup_type: BackupType = BackupType.AUTO) -> Manifest:
        """Make a backup and verify it."""
        # Runs are due minutes apart, so that their ids sort as they were made.
        self.due += timedelta(minutes=1)
        ref = self.runtime.ref(set_id(at=self.due, run="scheduled"), "mongodb")
        self.runtime.backups.run(ref, mode=self.mode, backup_type=backup_type)
        self.runtime.verifier.verify(ref)
        return read_manifest(self.runtime.stores["primary"], ref).manifest

    def restore(self, **words: Any) -> tuple[str, ...]:
        """Restore with every step; return the chain that was used."""
        restores, target = self.runtime.restores, RestoreTarget(self.twin, replace=True)
        plan = restores.plan(
            component=Component.DATABASE,
            source="mongodb",
            restore_id=f"restore-chain-{next(_counter)}",
            **words,
        )
        try:
            restores.preflight(plan, target)
            fetched = restores.fetch(plan)
            restores.load(plan, fetched, target)
            restores.compare(plan, target)
            restores.publish(plan, fetched, target)
        finally:
            restores.clear(plan.restore_id)
        return plan.chain

    def lose(self, manifest: Manifest, *, stores: tuple[str, ...]) -> None:
        """Delete a manifest, as a careless hand would."""
        for name in stores:
            self.runtime.stores[name].delete(manifest.ref.manifest_key)


@pytest.fixture(params=["staged", "streamed"])
def bench(
    request: pytest.FixtureRequest, tmp_path: Path, mongodb: Endpoint, mongodb_twin: Endpoint
) -> Iterator[Bench]:
    made = Bench(tmp_path, mongodb, mongodb_twin, mode=request.param)
    yield made
    for endpoint in (mongodb, mongodb_twin):
        with closing(client(endpoint)) as opened:
            opened.drop_database(made.database)


def ids(*manifests: Manifest) -> tuple[str, ...]:
    return tuple(manifest.backup_id for manifest in manifests)


def test_a_chain_is_made_by_itself_and_restored_to_each_of_its_points(bench: Bench) -> None:
    bench.add(200)
    full = bench.back_up()
    bench.add(100)
    first = bench.back_up()
    bench.add(50)
    between = datetime.now(UTC)
    bench.add(25)
    second = bench.back_up()
    bench.add(10)
    assert [one.kind for one in (full, first, second)] == ["full", "incremental", "incremental"]
    assert (first.parent, second.parent) == ids(full, first)
    assert "there is no backup to continue" in full.dump.notes[-1]
    assert bench.restore() == ids(full, first, second)
    assert bench.count() == 375
    assert bench.restore(backup_id=first.backup_id) == ids(full, first)
    assert bench.count() == 300
    assert bench.restore(until=between) == ids(full, first, second)
    assert bench.count() == 350
    third = bench.back_up(BackupType.FULL)
    assert (third.kind, third.parent) == ("full", None)


def test_a_lost_link_is_named_and_the_next_backup_is_a_full_one(bench: Bench) -> None:
    bench.add(200)
    full = bench.back_up()
    bench.add(100)
    first = bench.back_up()
    bench.add(50)
    second = bench.back_up()
    bench.lose(first, stores=("primary",))
    assert bench.restore() == ids(full, first, second)
    bench.lose(first, stores=("secondary",))
    with pytest.raises(ChainBrokenError) as caught:
        bench.restore(backup_id=second.backup_id)
    assert first.backup_id in caught.value.problem
    assert full.backup_id in caught.value.remedy
    bench.lose(full, stores=("primary", "secondary"))
    with pytest.raises(ChainBrokenError, match="No incremental backup"):
        bench.back_up(BackupType.INCREMENTAL)
    again = bench.back_up()
    assert again.kind == "full"
    assert second.backup_id in again.dump.notes[-1]
    bench.restore()
    assert bench.count() == 350


def test_a_link_that_is_damaged_in_every_store_stops_the_restore_before_the_target(
    bench: Bench,
) -> None:
    bench.add(200)
    full = bench.back_up()
    bench.add(100)
    first = bench.back_up()
    member = max(full.members, key=lambda one: one.stored.size)
    for store in bench.runtime.stores.values():
        with store.reader(full.key_of(member)) as raw:
            data = bytearray(raw.read())
        data[len(data) // 2] ^= 1
        store.delete(full.key_of(member))
        store.put(full.key_of(member), bytes(data))
    with pytest.raises(DamagedError, match=member.name):
        bench.restore()
    assert bench.count() == 0
    with pytest.raises(DamagedError):
        bench.runtime.verifier.verify(full.ref)
    with pytest.raises(ChainBrokenError, match=full.backup_id):
        bench.restore(backup_id=first.backup_id)
    listed = Inventory(bench.runtime.stores).look(BackupRef(first.backup_id, Component.DATABASE))
    assert listed.verified, "the link itself is sound; its chain is not"
