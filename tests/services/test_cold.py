"""A backup of which only a cold copy is left: retrieved, waited for, and restored whole."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.cli.restore_run import Order, Run
from neuroca_backup.errors import ArchivedError, ChainBrokenError
from neuroca_backup.hooks.neuroca import NeurocaHook
from neuroca_backup.model.retrieval import RetrievalTier
from neuroca_backup.model.status import Level
from neuroca_backup.operators import restore_retrieval
from neuroca_backup.operators.restore_request import RestoreRequest
from neuroca_backup.operators.restore_retrieval import AwaitRetrievalSensor
from neuroca_backup.operators.restore_step import Bench
from neuroca_backup.stores.s3 import objects
from support import buckets, wiring

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.model.identity import BackupRef
    from neuroca_backup.model.tickets import RestorePlan
    from neuroca_backup.runtime import Runtime

ROWS = 200


@pytest.fixture
def url(object_stores: Mapping[str, Endpoint]) -> Iterator[str]:
    found = str(object_stores["us-west-2"].extra["endpoint_url"])
    yield found
    buckets.retrievals_take(found, 0)


@pytest.fixture
def source(postgres: Endpoint, postgres_twin: Endpoint) -> Iterator[Endpoint]:
    with wiring.scratch_database(postgres, "cold_src", rows=ROWS, also_on=[postgres_twin]) as made:
        yield made


@pytest.fixture
def runtime(
    source: Endpoint,
    object_stores: Mapping[str, Endpoint],
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Runtime:
    """A runtime whose third store is a bucket for Glacier; small objects go there as well."""
    monkeypatch.setattr(objects, "SMALLEST_COLD", 0)
    places = wiring.region_places(object_stores)
    us = object_stores["us-west-2"]
    bucket = f"cold-{tmp_path.name[-20:].strip('_').replace('_', '-')}"
    s3: Any = wiring.wire(places, postgres=source, spool=tmp_path / "spool").stores["primary"]
    s3._client.create_bucket(
        Bucket=bucket,
        CreateBucketConfiguration={"LocationConstraint": us.extra["region_name"]},
    )
    tertiary = {
        "type": "s3",
        "bucket": bucket,
        "region": us.extra["region_name"],
        "connection": "us",
        "storage_class": "GLACIER",
    }
    storage = {**places.storage, "tertiary": tertiary}
    return wiring.wire(replace(places, storage=storage), postgres=source, spool=tmp_path / "spool")


def lose_near_copies(runtime: Runtime, ref: BackupRef) -> None:
    for name in ("primary", "secondary"):
        for key in wiring.keys_in(runtime, name, ref):
            runtime.stores[name].delete(key)


def test_a_backup_left_only_in_glacier_is_retrieved_and_restored(
    runtime: Runtime, postgres_twin: Endpoint, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = wiring.back_up(runtime)
    classes = {
        found.key.removeprefix(f"{ref.prefix}/").split("/", 1)[-1].split("/")[0]: found
        for found in runtime.stores["tertiary"].list(ref.prefix)
    }
    assert classes["members"].storage_class == "GLACIER"
    assert not classes["members"].readable
    assert {classes[name].storage_class for name in ("manifest.json", "keys.json")} == {"STANDARD"}

    # Next to a copy that reads at once, no archive is asked for anything.
    plan = wiring.plan_of(runtime, ref)
    assert runtime.retrievals.look(plan).objects == 0

    lose_near_copies(runtime, ref)
    plan = wiring.plan_of(runtime, ref)
    found = runtime.retrievals.look(plan)
    assert (found.objects, found.under_way) == (plan.members, 0)
    assert "3 h 0 min to 5 h 0 min after it was asked for with the tier standard" in found.words(
        RetrievalTier.STANDARD
    )
    assert "is retrieved first" in " ".join(runtime.checklist.integrity(plan))
    with pytest.raises(ArchivedError, match="--wait-for-retrieval"):
        runtime.restores.fetch(plan)
    with pytest.raises(ArchivedError):
        runtime.verifier.verify(ref)
    runtime.restores.clear(plan.restore_id)

    buckets.retrievals_take(url, 20)
    the_sensor_waits_without_a_worker(runtime, plan, monkeypatch)

    pauses: list[float] = []
    order = Order("postgres", backup_id=ref.backup_id, tier=RetrievalTier.BULK)
    run = Run(runtime, lambda: runtime.safety, nullcontext())  # type: ignore[arg-type]  # no services
    with pytest.raises(ArchivedError, match="repeat the command with --wait-for-retrieval"):
        run.retrieve(order, plan, pause=pauses.append)
    assert pauses == []
    run.retrieve(replace(order, wait_for_retrieval=True), plan, pause=pauses.append)
    assert pauses == [60.0] * len(pauses)
    assert pauses
    assert "retrieve" not in run.seconds, "a wait says nothing of how fast a restore is"

    restored = wiring.restore(runtime, postgres_twin, ref=ref)
    assert restored.fetched.bytes_by_store.keys() == {"tertiary"}
    assert wiring.count_rows(postgres_twin, "cold_src") == ROWS
    assert runtime.verifier.check(ref, "tertiary", level=Level.PARSED).sound


def the_sensor_waits_without_a_worker(
    runtime: Runtime, plan: RestorePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sensor asks at its first look, then only looks; told not to ask, it fails at once."""
    request = RestoreRequest(source="postgres")
    bench = Bench(runtime=runtime, hook=NeurocaHook(settings=runtime.settings), request=request)
    monkeypatch.setattr(restore_retrieval, "failed_check", lambda *_: None)
    order = {"source": "postgres", "plan": plan.to_json()}
    sensor = AwaitRetrievalSensor(task_id="await_retrieval", order=order)
    assert sensor.mode == "reschedule"
    context: Any = {"ti": type("Instance", (), {"map_index": 0})()}

    refusing = replace(bench, request=replace(request, retrieval="none"))
    monkeypatch.setattr(restore_retrieval.Bench, "of", lambda _: refusing)
    with pytest.raises(Exception, match="choose a tier under Retrieval in the form"):
        sensor.poke(context)
    assert runtime.retrievals.look(plan).under_way == 0, "nothing was asked for"

    monkeypatch.setattr(restore_retrieval.Bench, "of", lambda _: bench)
    assert not sensor.poke(context).is_done
    assert not sensor.poke(context).is_done
    assert runtime.retrievals.look(plan).under_way == plan.members


def test_the_first_of_a_month_alone_is_copied_and_can_be_restored_alone(
    runtime: Runtime, postgres_twin: Endpoint, url: str
) -> None:
    first, second = wiring.back_up(runtime), wiring.back_up(runtime)
    assert wiring.keys_in(runtime, "tertiary", first)
    assert wiring.keys_in(runtime, "tertiary", second) == []
    runtime.backups.replicate(first)  # repeated, it does no harm
    assert wiring.keys_in(runtime, "tertiary", second) == []
    assert len(list(runtime.stores["tertiary"].folders("database/postgres"))) == 1


def test_what_cannot_be_copied_with_its_chain_is_not_copied(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = wiring.fresh_ref(runtime)
    copies = runtime.backups._copies
    monkeypatch.setattr(copies, "_tertiary", None)
    runtime.backups.run(ref, mode="streamed")
    monkeypatch.undo()
    from neuroca_backup.services import replicate  # noqa: PLC0415 - its reader is replaced

    read = replicate.read_manifest

    def orphaned(store: Any, of: BackupRef) -> Any:
        sealed = read(store, of)
        parent = "20200101T000000Z-00000000-postgres"
        manifest = sealed.manifest.model_copy(update={"kind": "incremental", "parent": parent})
        return replace(sealed, manifest=manifest)

    monkeypatch.setattr(replicate, "read_manifest", orphaned)
    with pytest.raises(ChainBrokenError, match="needs 20200101T000000Z-00000000-postgres"):
        runtime.backups.replicate(ref)
    assert wiring.keys_in(runtime, "tertiary", ref) == []
