"""Qdrant end to end, against a double of its published API (support/doubles/qdrant_api.py)."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from neuroca_backup.engines import Restorable, RestoreTarget, named
from neuroca_backup.engines.qdrant import database
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    EmptySourceError,
    IncompatibleVersionError,
    InterruptedToolError,
    NotFoundError,
    TargetRefusedError,
    ToolMissingError,
    TransientError,
)
from neuroca_backup.vectors import http_service, parts, transfer
from support.doubles.http_double import Fault
from support.doubles.qdrant_api import QdrantDouble
from support.engines.qdrant import COLLECTION, add, client_of, endpoint_of, fill
from support.vector_runs import begin, dumped, killed, restore

ENGINE: Any = named("qdrant")


@pytest.fixture
def source() -> Iterator[QdrantDouble]:
    with QdrantDouble() as double:
        yield double


@pytest.fixture
def target() -> Iterator[QdrantDouble]:
    with QdrantDouble(api_key="another_secret") as double:
        yield double


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts for a minute in earnest lasts for seconds here."""
    monkeypatch.setattr(http_service, "PATIENCE_SECONDS", 3.0)


@pytest.fixture
def backup(source: QdrantDouble, tmp_path: Path) -> Restorable:
    fill(source)
    return dumped(ENGINE, endpoint_of(source), tmp_path)


def place_of(double: QdrantDouble, *, replace: bool = False) -> RestoreTarget:
    """Return a double as a target."""
    return RestoreTarget(endpoint_of(double), replace=replace)


def test_two_hundred_points_come_back_and_none_of_a_later_hundred(
    source: QdrantDouble, target: QdrantDouble, backup: Restorable
) -> None:
    before = dict(source.points(COLLECTION))
    add(source, count=100)
    assert ENGINE.summary(backup.last) == "1 collections, 200 vectors"
    restore(ENGINE, backup, endpoint_of(target))
    assert target.points(COLLECTION) == before
    assert len(target.points(COLLECTION)) == 200
    assert list(target.stored) == [COLLECTION]
    assert target.aliases == {}


def rich(double: QdrantDouble) -> None:
    """Create a collection with one of everything that a collection can have."""
    vector = models.VectorParams
    with client_of(double) as client:
        client.create_collection(
            "rich",
            vectors_config={
                "text": vector(
                    size=4,
                    distance=models.Distance.COSINE,
                    hnsw_config=models.HnswConfigDiff(m=24),
                    on_disk=True,
                ),
                "image": vector(
                    size=3,
                    distance=models.Distance.EUCLID,
                    datatype=models.Datatype.UINT8,
                    quantization_config=models.BinaryQuantization(
                        binary=models.BinaryQuantizationConfig(always_ram=True)
                    ),
                ),
                "half": vector(
                    size=3, distance=models.Distance.MANHATTAN, datatype=models.Datatype.FLOAT16
                ),
                "late": vector(
                    size=2,
                    distance=models.Distance.DOT,
                    multivector_config=models.MultiVectorConfig(
                        comparator=models.MultiVectorComparator.MAX_SIM
                    ),
                ),
            },
            sparse_vectors_config={
                "words": models.SparseVectorParams(
                    modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=True)
                )
            },
            shard_number=3,
            replication_factor=2,
            write_consistency_factor=2,
            on_disk_payload=False,
            hnsw_config=models.HnswConfigDiff(m=8, ef_construct=64, payload_m=8),
            optimizers_config=models.OptimizersConfigDiff(
                indexing_threshold=5000, memmap_threshold=7000
            ),
            wal_config=models.WalConfigDiff(wal_capacity_mb=64),
            quantization_config=models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(
                    type=models.ScalarType.INT8, quantile=0.99, always_ram=True
                )
            ),
            strict_mode_config=models.StrictModeConfig(enabled=True, max_query_limit=50),
            metadata={"owner": "semantic tier"},
        )
        client.create_payload_index("rich", "when", models.PayloadSchemaType.DATETIME)
        client.create_payload_index(
            "rich",
            "body",
            models.TextIndexParams(
                type=models.TextIndexType.TEXT,
                tokenizer=models.TokenizerType.WORD,
                min_token_len=2,
                lowercase=True,
            ),
        )
        ids = [0, 7, 2**64 - 1, *(str(uuid.UUID(int=n << 60)) for n in range(1, 130))]
        client.upsert(
            "rich",
            [
                models.PointStruct(
                    id=one,
                    vector={
                        name: values
                        for place, (name, values) in enumerate(
                            {
                                "text": [n + 0.1, 1.0, -2.0, 1e-3],
                                "image": [n % 256, 255, 0],
                                "half": [0.1, n / 3, -1.0],
                                "late": [[0.1, n], [2.0, 3.0], [n, 1.5]][: 1 + n % 3],
                                "words": models.SparseVector(
                                    indices=[2**32 - 1, n], values=[0.3, 1e-7]
                                ),
                            }.items()
                        )
                        # Every vector is absent from some point.
                        if n % 7 != place
                    },
                    payload={"body": f"näïve {n}", "deep": {"list": [1, None, [2.5]]}}
                    if n % 2
                    else None,
                )
                for n, one in enumerate(ids)
            ],
        )
        client.update_collection_aliases(
            [
                models.CreateAliasOperation(
                    create_alias=models.CreateAlias(alias_name=alias, collection_name="rich")
                )
                for alias in ("semantic", "ltm")
            ]
        )


def test_everything_that_a_collection_can_have_comes_back(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path
) -> None:
    rich(source)
    source.index_seconds = target.index_seconds = 0.3
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    # A server names its vectors in any order.
    vectors = source.stored["rich"].config["params"]["vectors"]
    source.stored["rich"].config["params"]["vectors"] = dict(reversed(vectors.items()))
    again = dumped(ENGINE, endpoint_of(source), tmp_path)
    facts = [one.last.dump.facts["collections"]["rich"] for one in (backup, again)]
    assert facts[0]["fingerprint"] == facts[1]["fingerprint"]
    restore(ENGINE, backup, endpoint_of(target))
    was, now = source.stored["rich"], target.stored["rich"]
    assert now.points == was.points
    assert now.config == was.config
    assert now.schema == was.schema
    # Nothing was indexed while points arrived.
    assert now.created["optimizers_config"]["indexing_threshold"] == 0
    assert "strict_mode_config" not in now.created
    assert target.aliases == {"semantic": "rich", "ltm": "rich"}


def test_old_data_answers_under_its_name_until_the_copy_is_published(
    target: QdrantDouble, backup: Restorable
) -> None:
    fill(target, count=30)
    before = dict(target.points(COLLECTION))
    with pytest.raises(TargetRefusedError):
        ENGINE.preflight(backup, place_of(target))
    place = place_of(target, replace=True)
    notes = ENGINE.preflight(backup, place)
    assert notes == ["1 collections with data will be deleted once their copies are compared"]
    ENGINE.load(backup, place)
    assert list(ENGINE.compare(backup, place)) == []
    assert target.points(COLLECTION) == before
    notes = ENGINE.publish(backup, place)
    assert any("is an alias now" in note for note in notes)
    assert len(target.points(COLLECTION)) == 200
    assert len(target.stored) == 1


def test_a_copy_behind_an_alias_is_backed_up_by_its_name_and_can_be_replaced_again(
    target: QdrantDouble, backup: Restorable, tmp_path: Path
) -> None:
    fill(target, count=30)
    restore(ENGINE, backup, endpoint_of(target), replace=True)
    # The same backup over its own copy: what answers must not be what is loaded.
    add(target, count=50)
    ENGINE.load(backup, place_of(target, replace=True))
    assert len(target.points(COLLECTION)) == 250
    ENGINE.publish(backup, place_of(target, replace=True))
    assert len(target.points(COLLECTION)) == 200
    assert len(target.stored) == len(target.aliases) == 1
    later = dumped(ENGINE, endpoint_of(target), tmp_path)
    assert list(later.last.dump.facts["collections"]) == [COLLECTION]
    with QdrantDouble() as third:
        restore(ENGINE, later, endpoint_of(third))
        assert list(third.stored) == [COLLECTION]
        assert third.aliases == {}


def test_publishing_that_stopped_after_the_old_collection_went_is_finished_by_a_repeat(
    target: QdrantDouble, backup: Restorable
) -> None:
    fill(target, count=30)
    place = place_of(target, replace=True)
    ENGINE.load(backup, place)
    killed(
        target,
        lambda: begin("publish", "qdrant", backup, place),
        method="DELETE|POST",
        path=f"/collections/({COLLECTION}|aliases)$",
    )
    ENGINE.publish(backup, place)
    assert ENGINE.publish(backup, place) in ([], ())
    assert len(target.points(COLLECTION)) == 200
    assert list(ENGINE.compare(backup, place)) == []


def test_a_load_that_was_killed_is_repeated_from_the_beginning(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        fill(source, name)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    place = place_of(target)
    killed(
        target,
        lambda: begin("load", "qdrant", backup, place),
        method="PUT",
        path="/points",
    )
    assert "first" in target.stored
    # Half a copy is nobody's data: nobody has to allow that it is replaced, no backup takes it.
    with pytest.raises(EmptySourceError):
        dumped(ENGINE, endpoint_of(target), tmp_path)
    notes = restore(ENGINE, backup, endpoint_of(target))
    assert any("200 rows" in note for note in notes)
    assert target.points("first") == source.points("first")
    assert target.points("second") == source.points("second")
    assert target.aliases == {}


def test_a_copy_counts_as_indexed_only_when_the_server_says_so(
    target: QdrantDouble, backup: Restorable, monkeypatch: pytest.MonkeyPatch
) -> None:
    target.index_seconds = 0.5
    restore(ENGINE, backup, endpoint_of(target))
    target.index_seconds = 3600
    monkeypatch.setattr(database, "_BUILD_SECONDS", 0.3)
    with pytest.raises(TransientError, match="status is yellow"):
        ENGINE.load(backup, place_of(target, replace=True))
    target.broken = "no space left on device"
    with pytest.raises(InterruptedToolError, match="no space left"):
        ENGINE.load(backup, place_of(target, replace=True))


def test_json_lines_take_points_from_one_server_to_another(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path
) -> None:
    rich(source)
    fill(source, count=20)
    with client_of(source) as client:
        client.set_payload(COLLECTION, {"id": "theirs", "vector": [1], "$": None}, points=[3])
    file = tmp_path / "qdrant.jsonl.gz"
    with ENGINE.connect(endpoint_of(source)) as opened:
        transfer.export(opened, endpoint_of(source), file, "all")
    with ENGINE.connect(endpoint_of(target)) as opened:
        transfer.load(opened, endpoint_of(target), file, add=False)
    for name in (COLLECTION, "rich"):
        was, now = source.points(name), target.points(name)
        for one, point in was.items():
            assert now[one]["vectors"] == point["vectors"]
            assert (now[one]["payload"] or None) == (point["payload"] or None)
        assert target.stored[name].config == source.stored[name].config
    # Into what is there, its own configuration stays.
    add(source, count=30)
    target.stored[COLLECTION].config["optimizer_config"]["indexing_threshold"] = 777
    (more := tmp_path / "more.jsonl").write_text('{"id": "4000", "values": [1,0,0,0,0,0,0,0]}\n')
    target.stored.pop("rich")
    with ENGINE.connect(endpoint_of(target)) as opened:
        transfer.load(opened, endpoint_of(target), more, add=True)
    assert len(target.points(COLLECTION)) == 21
    assert target.stored[COLLECTION].config["optimizer_config"]["indexing_threshold"] == 777


def test_limits_cut_connections_and_faults_of_the_server_are_outlasted(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path
) -> None:
    fill(source)
    source.faults += [
        Fault("POST", "/points/scroll", status=429, headers={"Retry-After": "1"}),
        Fault("POST", "/points/scroll", cut=True, skip=1),
        Fault("POST", "/points/count", status=500),
    ]
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    target.faults += [
        Fault("PUT", "/points", status=503, after=True),
        Fault("PUT", "/points", cut=True),
        Fault("GET", "/aliases", status=502),
    ]
    restore(ENGINE, backup, endpoint_of(target))
    assert [fault.times for fault in (*source.faults, *target.faults)] == [0] * 6
    assert target.points(COLLECTION) == source.points(COLLECTION)


def test_a_server_that_stays_away_is_a_transient_error_without_the_key(
    source: QdrantDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(source)
    monkeypatch.setattr(http_service, "PATIENCE_SECONDS", 0.5)
    source.faults.append(Fault("POST", "/points/scroll", status=503, times=1000))
    with pytest.raises(TransientError, match="503") as caught:
        dumped(ENGINE, endpoint_of(source), tmp_path)
    assert source.api_key not in repr((caught.value, caught.value.facts, caught.value.__context__))


def test_an_export_that_ends_early_is_an_error_and_no_short_dump(
    source: QdrantDouble, tmp_path: Path
) -> None:
    fill(source)

    def ends(body: Any) -> Any:
        return {**body, "result": {**body["result"], "next_page_offset": None}}

    source.faults.append(Fault("POST", "/points/scroll", change=ends))
    with pytest.raises(InterruptedToolError, match=r"64 rows .* the store itself counts 200"):
        dumped(ENGINE, endpoint_of(source), tmp_path)

    def stays(body: Any) -> Any:
        return {**body, "result": {**body["result"], "next_page_offset": 64}}

    source.faults.append(Fault("POST", "/points/scroll", change=stays, times=1000))
    with pytest.raises(InterruptedToolError, match="does not get beyond point 64"):
        dumped(ENGINE, endpoint_of(source), tmp_path)


def test_large_points_are_read_and_written_in_pages_that_fit(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "BATCH_BYTES", 40_000)
    monkeypatch.setattr(database, "_PAGE_BYTES", 20_000)
    monkeypatch.setattr(database, "_INSERT_BYTES", 10_000)
    fill(source, count=10)
    with client_of(source) as client:
        client.upsert(
            COLLECTION,
            [
                models.PointStruct(id=n, vector=[0.1] * 8, payload={"text": "x" * (n * 9 % 3000)})
                for n in range(10, 300)
            ],
        )
    restore(ENGINE, dumped(ENGINE, endpoint_of(source), tmp_path), endpoint_of(target))
    assert target.points(COLLECTION) == source.points(COLLECTION)
    assert source.times("POST", "/points/scroll") > 15
    assert target.times("PUT", "/points") > 30


def test_other_dimensions_and_names_in_the_way_are_refused_untouched(
    source: QdrantDouble, target: QdrantDouble, tmp_path: Path
) -> None:
    fill(source)
    with client_of(source) as client:
        _alias(client, "ltm", COLLECTION)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    place = place_of(target, replace=True)
    with client_of(target) as client:
        wide = models.VectorParams(size=1536, distance=models.Distance.COSINE)
        client.create_collection(COLLECTION, vectors_config=wide)
        with pytest.raises(IncompatibleVersionError, match="1536 dimensions"):
            ENGINE.preflight(backup, place)
        client.delete_collection(COLLECTION)
        client.create_collection("theirs", vectors_config=wide)
        _alias(client, "ltm", "theirs")
        with pytest.raises(IncompatibleVersionError, match="ltm, by which"):
            ENGINE.preflight(backup, place)
        client.create_collection("ltm2", vectors_config=wide)
        also = {**backup.last.dump.facts["collections"][COLLECTION]["schema"]["transient"]}
        backup.last.dump.facts["collections"][COLLECTION]["schema"]["transient"] = {
            **also,
            "aliases": ["ltm2"],
        }
        with pytest.raises(IncompatibleVersionError, match="ltm2, by which"):
            ENGINE.preflight(backup, place)
        client.delete_collection("ltm2")
        _alias(client, COLLECTION, "theirs")
        with pytest.raises(IncompatibleVersionError, match="is an alias of the collection theirs"):
            ENGINE.preflight(backup, place)
    assert list(target.stored) == ["theirs"]
    assert target.aliases == {"ltm": "theirs", COLLECTION: "theirs"}


def _alias(client: Any, alias: str, name: str) -> None:
    client.update_collection_aliases(
        [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(alias_name=alias, collection_name=name)
            )
        ]
    )


def test_a_collection_with_shard_keys_of_its_own_is_refused_with_the_reason(
    source: QdrantDouble, tmp_path: Path
) -> None:
    fill(source)
    source.stored[COLLECTION].config["params"]["sharding_method"] = "custom"
    with pytest.raises(IncompatibleVersionError, match="shard keys"):
        dumped(ENGINE, endpoint_of(source), tmp_path)


def test_what_was_changed_in_a_copy_is_found(target: QdrantDouble, backup: Restorable) -> None:
    place = place_of(target)
    ENGINE.load(backup, place)
    nobody = Fault("POST", "/points/query", times=1000, change=lambda _: {"result": {"points": []}})
    target.faults.append(nobody)
    assert "nearest neighbours by $vector" in str(*ENGINE.compare(backup, place))
    target.faults.clear()
    copy = target.stored[COLLECTION]
    copy.config["quantization_config"] = {"binary": {}}
    assert "native" in str(*ENGINE.compare(backup, place))
    copy.config["quantization_config"] = None
    copy.points[2000] = copy.points[20]
    assert "expected 200, found 201" in str(*ENGINE.compare(backup, place))


def test_words_of_a_newer_server_are_no_difference(
    target: QdrantDouble, backup: Restorable
) -> None:
    place = place_of(target)
    ENGINE.load(backup, place)
    copy = target.stored[COLLECTION].config
    copy["optimizer_config"]["max_optimization_threads"] = 3
    copy["hnsw_config"]["inline_storage"] = False
    assert list(ENGINE.compare(backup, place)) == []


def test_wrong_keys_and_names_are_told_without_the_key(
    source: QdrantDouble, tmp_path: Path
) -> None:
    fill(source, count=0)
    wrong = replace(endpoint_of(source), password="a_wrong_secret")
    with pytest.raises(AccessDeniedError) as caught:
        ENGINE.probe(wrong)
    assert "a_wrong_secret" not in repr((caught.value, caught.value.facts))
    with pytest.raises(NotFoundError, match=f"nothing; it has {COLLECTION}"):
        dumped(ENGINE, endpoint_of(source), tmp_path, collections=["nothing"])
    with pytest.raises(EmptySourceError):
        dumped(ENGINE, endpoint_of(source), tmp_path)
    assert dumped(ENGINE, endpoint_of(source), tmp_path, allow_empty=True).last.dump.empty


def test_addresses_are_https_unless_told_otherwise_or_on_this_machine(
    source: QdrantDouble,
) -> None:
    one = endpoint_of(source)
    away = replace(one, host="qdrant.example.org")
    for endpoint, expected in (
        (one, f"http://127.0.0.1:{one.port}"),
        (replace(one, host="", port=None), "http://localhost:6333"),
        (away, f"https://qdrant.example.org:{one.port}"),
        (replace(away, extra={"https": False}), f"http://qdrant.example.org:{one.port}"),
        (replace(away, host="http://qdrant/"), f"http://qdrant:{one.port}"),
    ):
        assert http_service.address(endpoint, host="localhost", port=6333) == expected
    for extra, host in (({"https": "yes"}, "a"), ({}, "user:word@a"), ({}, "https://a/path")):
        with pytest.raises(ConfigurationError) as caught:
            http_service.address(replace(one, host=host, extra=extra), port=1)
        assert "word@" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="verify"):
        ENGINE.probe(replace(one, extra={"verify": 3}))


def test_a_missing_client_is_told_with_what_to_install(
    source: QdrantDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(ToolMissingError, match=re.escape("pip install neuroca-backup[qdrant]")):
        ENGINE.probe(endpoint_of(source))
