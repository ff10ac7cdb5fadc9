"""Pinecone end to end, against a double of its published API (support/doubles/pinecone_api.py)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pinecone._internal.http_client import get_budget_registry

from neuroca_backup.engines import RestoreTarget, named
from neuroca_backup.engines.pinecone import database, session
from neuroca_backup.engines.pinecone.session import Session
from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    EmptySourceError,
    IncompatibleVersionError,
    InterruptedToolError,
    NotFoundError,
    PermanentError,
    TargetRefusedError,
    ToolMissingError,
    TransientError,
)
from neuroca_backup.vectors import http_service, transfer
from support.doubles.http_double import Fault
from support.doubles.pinecone_api import DEFAULT, PineconeDouble
from support.engines.pinecone import (
    DENSE,
    DIMENSION,
    HYBRID,
    INDEX,
    add,
    create,
    endpoint_of,
    index_of,
)
from support.vector_runs import begin, dumped, killed, restore

ENGINE: Any = named("pinecone")
SPARSE = {"_sparse_values": {"type": "sparse_vector"}}
POD = {
    "deployment_type": "pod",
    "environment": "us-east1-gcp",
    "pod_type": "p1.x1",
    "replicas": 1,
    "shards": 1,
}


@pytest.fixture
def source() -> Iterator[PineconeDouble]:
    with PineconeDouble() as double:
        yield double


@pytest.fixture
def target() -> Iterator[PineconeDouble]:
    with PineconeDouble(api_key="pcsk_another") as double:
        yield double


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lasts for a minute in earnest lasts for seconds here."""
    monkeypatch.setattr(http_service, "PATIENCE_SECONDS", 4.0)
    monkeypatch.setattr(Session, "fresh_seconds", 2.0)
    # The client counts the failures of a host over all tests, and at fifty retries no more.
    get_budget_registry()._reset()


def held(double: PineconeDouble, name: str = INDEX) -> dict[str, Any]:
    """Return all vectors that an index holds, by namespace."""
    double.vectors(name)
    return {space: one for space, one in double.indexes[name].namespaces.items() if one}


def test_two_hundred_vectors_come_back_and_none_of_a_later_hundred(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=120)
    add(source, count=80, namespace="tenant a/b?#")
    before = {space: dict(one) for space, one in held(source).items()}
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    add(source, count=60)
    add(source, count=40, namespace="later")
    assert ENGINE.summary(backup.last) == "1 collections, 200 vectors"
    restore(ENGINE, backup, endpoint_of(target))
    assert held(target) == before
    assert sum(map(len, held(target).values())) == 200


def test_metadata_sparse_values_and_strange_ids_come_back_as_they_were(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source, "hybrid", fields=HYBRID)
    create(source, "sparse", fields=SPARSE)
    metadata = {
        "text": 'näïve "quoted" \\ \n end',
        "number": 0.1,
        "whole": 2**53,
        "flag": False,
        "list": ["b", "a"],
        "": "no name",
    }
    # A hundred ids that are as long as ids may be do not fit into one address.
    ids = [f"{n:03d}{'x' * 500}" for n in range(100)] + ["a&b=c d%/?#+", "../up", "'"]
    with index_of(source, "hybrid") as index:
        for namespace in ("", "other"):
            index.upsert(
                namespace=namespace,
                vectors=[
                    {
                        "id": one,
                        "values": [n + 0.1] * DIMENSION,
                        "metadata": metadata if n % 2 else {},
                        **(
                            {"sparse_values": {"indices": [2**32 - 1, n], "values": [0.3, 1e-7]}}
                            if n % 3
                            else {}
                        ),
                    }
                    for n, one in enumerate(ids)
                ],
            )
    with index_of(source, "sparse") as index:
        index.upsert(
            vectors=[
                {"id": f"s{n}", "sparse_values": {"indices": [n, 70], "values": [0.5, n + 1]}}
                for n in range(20)
            ]
        )
    restore(ENGINE, dumped(ENGINE, endpoint_of(source), tmp_path), endpoint_of(target))

    def in_order(one: dict[str, Any]) -> dict[str, Any]:
        sparse = one.get("sparseValues")
        pairs = sorted(zip(sparse["indices"], sparse["values"], strict=True)) if sparse else None
        return {**one, "sparseValues": pairs}

    for name in ("hybrid", "sparse"):
        was, now = held(source, name), held(target, name)
        assert {s: {i: in_order(v) for i, v in one.items()} for s, one in now.items()} == {
            s: {i: in_order(v) for i, v in one.items()} for s, one in was.items()
        }
    assert target.indexes["hybrid"].model["schema"] == source.indexes["hybrid"].model["schema"]


def test_an_index_is_made_again_as_it_was_or_where_the_connection_says(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    target.start_seconds = 0.4
    where = {"deployment_type": "managed", "cloud": "aws", "region": "us-west-2"}
    create(source, deployment=where, deletion_protection="enabled", tags={"team": "memory"})
    add(source, count=30)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    restore(ENGINE, backup, endpoint_of(target))
    model = target.indexes[INDEX].model
    assert model["deployment"] == where
    assert model["deletion_protection"] == "enabled"
    assert model["tags"] == {"team": "memory"}
    with PineconeDouble() as third:
        elsewhere = {"region": "eu-central-1"}
        restore(ENGINE, backup, replace(endpoint_of(third), extra=elsewhere))
        assert third.indexes[INDEX].model["deployment"] == {**where, **elsewhere}


def test_requests_stay_below_what_the_service_takes(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    wide = {"_values": {**DENSE["_values"], "dimension": 1536}}
    create(source, fields=wide)
    with index_of(source) as index:
        for first in range(0, 250, 50):
            index.upsert(
                vectors=[
                    {"id": f"w{n:04d}", "values": [(n * 1536 + i) / 7 for i in range(1536)]}
                    for n in range(first, first + 50)
                ]
            )
    restore(ENGINE, dumped(ENGINE, endpoint_of(source), tmp_path), endpoint_of(target))
    assert held(target) == held(source)
    assert 2 < target.times("POST", "/vectors/upsert") < 25


def test_counts_that_lag_behind_are_waited_for(source: PineconeDouble, tmp_path: Path) -> None:
    create(source)
    add(source, count=200)
    late = Fault("POST", "/describe_index_stats", change=lambda one: {**one, "namespaces": {}})
    late.times = 4
    source.faults.append(late)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    assert late.times == 0
    assert backup.last.dump.facts["collections"][INDEX]["partitions"] == {DEFAULT: 200}


def test_a_listing_that_lags_behind_is_waited_for(source: PineconeDouble, tmp_path: Path) -> None:
    create(source)
    add(source, count=200)
    late = _without_the_last(source, times=2)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    assert late.times == 0
    assert backup.last.dump.facts["collections"][INDEX]["count"] == 200


def test_a_listing_that_stays_short_is_an_error_and_no_short_export(
    source: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=200)
    _without_the_last(source, times=1000)
    with pytest.raises(InterruptedToolError, match=r"190 rows .* the store itself counts 200"):
        dumped(ENGINE, endpoint_of(source), tmp_path)


def _without_the_last(double: PineconeDouble, *, times: int) -> Fault:
    """Let listings lack ten vectors of their last page."""

    def short(body: dict[str, Any]) -> dict[str, Any]:
        return body if "pagination" in body else {**body, "vectors": body["vectors"][:-10]}

    # The first question of a dump is whether the namespace without a name is empty.
    double.faults.append(Fault("GET", "/vectors/list", change=short, times=times, skip=1))
    return double.faults[-1]


def test_vectors_that_are_listed_but_cannot_be_read_yet_are_asked_for_again(
    source: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=150)

    def short(body: dict[str, Any]) -> dict[str, Any]:
        return {
            **body,
            "vectors": {i: v for i, v in body["vectors"].items() if i < "memory-000145"},
        }

    source.faults.append(Fault("GET", "/vectors/fetch", change=short))
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    assert backup.last.dump.facts["collections"][INDEX]["count"] == 150
    source.faults.append(Fault("GET", "/vectors/fetch", change=short, times=1000))
    with pytest.raises(InterruptedToolError, match=r"5 vectors .* cannot be read"):
        dumped(ENGINE, endpoint_of(source), tmp_path)


def test_vectors_that_are_deleted_meanwhile_do_not_fail_the_dump(
    source: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=300)

    def delete() -> None:
        held = source.vectors(INDEX)
        for n in range(250, 260):
            del held[f"memory-{n:06d}"]
        source.indexes[INDEX].counted.append((time.monotonic(), {DEFAULT: len(held)}))

    source.faults.append(Fault("GET", "/vectors/fetch", then=delete, skip=1))
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    assert backup.last.dump.facts["collections"][INDEX]["count"] == 290
    assert "was written to meanwhile (300 rows before, 290 after)" in backup.last.dump.notes[0]


def test_counts_from_before_a_quick_dump_are_not_those_from_after_it(
    source: PineconeDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(source)
    add(source, count=300)

    def delete() -> None:
        source.vectors(INDEX).pop("memory-000299")
        source.indexes[INDEX].counted.append((time.monotonic(), {DEFAULT: 299}))

    monkeypatch.setattr(session, "_SAME_SECONDS", 60.0)
    source.faults.append(Fault("GET", "/vectors/fetch", then=delete))
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    assert backup.last.dump.facts["collections"][INDEX]["count"] == 299


def test_a_restore_waits_until_what_it_wrote_can_be_seen(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=150)
    add(source, count=50, namespace="tenant-a")
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    target.lag, target.stats_lag = 0.5, 0.4
    restore(ENGINE, backup, endpoint_of(target))
    assert held(target) == held(source)


def test_a_restore_whose_writes_never_show_fails_by_its_deadline(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(source)
    add(source, count=20)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    target.lag = 3600
    monkeypatch.setattr(database, "_BUILD_SECONDS", 0.5)
    with pytest.raises(TransientError, match="counts 0 of 20"):
        ENGINE.load(backup, RestoreTarget(endpoint_of(target)))


def test_rate_limits_cut_connections_and_faults_of_the_service_are_outlasted(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=250)
    backup_of = (
        Fault("GET", "/vectors/fetch", status=429, headers={"Retry-After": "0"}, times=5),
        Fault("GET", "/vectors/list", cut=True, skip=2),
        Fault("GET", "/vectors/fetch", cut=True, skip=1),
        Fault("POST", "/describe_index_stats", status=503),
    )
    source.faults.extend(backup_of)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    # The answer to a write may be lost although the write was done.
    target.faults += [
        Fault("POST", "/vectors/upsert", status=500, after=True),
        Fault("POST", "/vectors/upsert", cut=True),
        Fault("POST", "/vectors/upsert", status=429, headers={"Retry-After": "1"}),
    ]
    restore(ENGINE, backup, endpoint_of(target))
    assert [fault.times for fault in (*source.faults, *target.faults)] == [0] * 7
    assert held(target) == held(source)


def test_a_service_that_stays_away_is_a_transient_error_without_the_key(
    source: PineconeDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(source)
    add(source, count=20)
    monkeypatch.setattr(http_service, "PATIENCE_SECONDS", 0.5)
    source.faults.append(Fault("GET", "/vectors/list", status=503, times=1000))
    with pytest.raises(TransientError, match="503") as caught:
        dumped(ENGINE, endpoint_of(source), tmp_path)
    assert source.api_key not in repr((caught.value, caught.value.facts, caught.value.__context__))


def test_an_index_for_other_vectors_is_refused_untouched(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=20)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    place = RestoreTarget(endpoint_of(target), replace=True)
    for change, words in (
        ({"dimension": 1536}, "8 dimensions.*1536|1536.*8"),
        ({"metric": "euclidean"}, r"l2.*cosine"),
    ):
        target.indexes.clear()
        create(target, fields={"_values": {**DENSE["_values"], **change}})
        writes = len([one for one in target.log if one[0] != "GET"])
        with pytest.raises(IncompatibleVersionError, match=words):
            ENGINE.preflight(backup, place)
        asked = [path for method, path in target.log if method != "GET"][writes:]
        assert set(asked) <= {"/describe_index_stats"}


def test_indexes_that_cannot_be_listed_are_refused_with_the_reason(
    source: PineconeDouble, tmp_path: Path
) -> None:
    create(source, "pods", deployment=POD)
    create(source, "documents", fields={"title": {"type": "string", "full_text_search": {}}})
    create(source)
    add(source, count=10)
    for name, words in (("pods", "pod-based"), ("documents", "documents")):
        with pytest.raises(IncompatibleVersionError, match=words):
            dumped(ENGINE, endpoint_of(source), tmp_path, indexes=[name])
    # One that the client leaves out of its own listing is not left out in silence.
    source.indexes["pods"].model["name"] = "new"
    source.indexes["pods"].model["schema"] = {"fields": {"_values": {"type": "hologram"}}}
    source.indexes["new"] = source.indexes.pop("pods")
    del source.indexes["documents"]
    with pytest.raises(PermanentError, match=r"does not understand.*hologram"):
        dumped(ENGINE, endpoint_of(source), tmp_path)
    assert dumped(ENGINE, endpoint_of(source), tmp_path, indexes=[INDEX]).last.dump.facts


def test_an_index_in_place_is_replaced_as_a_whole_and_keeps_its_host(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=40, namespace="tenant-a")
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    create(target, tags={"theirs": "yes"})
    add(target, count=90)
    add(target, count=15, namespace="other")
    port, before = target.indexes[INDEX].port, held(target)
    with pytest.raises(TargetRefusedError):
        ENGINE.preflight(backup, RestoreTarget(endpoint_of(target)))
    with pytest.raises(TargetRefusedError):
        ENGINE.load(backup, RestoreTarget(endpoint_of(target)))
    assert held(target) == before
    notes = restore(ENGINE, backup, endpoint_of(target), replace=True)
    assert f"{INDEX} will be replaced" in notes
    assert held(target) == held(source)
    assert target.indexes[INDEX].port == port
    assert target.indexes[INDEX].model["tags"] == {"theirs": "yes"}


def test_some_namespaces_are_not_restored_over_an_index_that_has_others(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=10)
    add(source, count=40, namespace="tenant-a")
    backup = dumped(ENGINE, endpoint_of(source), tmp_path, namespaces=["tenant-a"])
    create(target)
    add(target, count=15, namespace="other")
    with pytest.raises(TargetRefusedError, match="other"):
        ENGINE.preflight(backup, RestoreTarget(endpoint_of(target), replace=True))
    target.indexes.clear()
    restore(ENGINE, backup, endpoint_of(target))
    assert {space: len(one) for space, one in held(target).items()} == {"tenant-a": 40}
    with pytest.raises(NotFoundError, match=r"no namespace nobody; it has .*tenant-a"):
        dumped(ENGINE, endpoint_of(source), tmp_path, namespaces=["nobody"])


def test_a_load_that_was_killed_is_repeated_from_the_beginning(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=300)
    add(source, count=50, namespace="tenant-a")
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    place = RestoreTarget(endpoint_of(target))
    killed(
        target,
        lambda: begin("load", "pinecone", backup, place),
        method="POST",
        path="/vectors/upsert|/describe_index_stats",
    )
    assert 0 < len(target.vectors(INDEX)) <= 300
    # Half a copy is ours, so nobody has to allow that it is replaced.
    ENGINE.load(backup, place)
    assert list(ENGINE.compare(backup, place)) == []
    ENGINE.publish(backup, place)
    assert held(target) == held(source)


def test_what_was_changed_in_a_copy_is_found(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=60)
    backup = dumped(ENGINE, endpoint_of(source), tmp_path)
    place = RestoreTarget(endpoint_of(target))
    ENGINE.load(backup, place)
    target.faults.append(Fault("POST", "/query", change=lambda _: {"matches": []}, times=1000))
    assert "nearest neighbours by $values" in str(*ENGINE.compare(backup, place))
    target.faults.clear()
    copy = target.vectors(INDEX)
    one = copy["memory-000003"]
    copy["memory-000003"] = {**one, "values": [*one["values"][:-1], 9.0]}
    assert "memory-000003" in str(*ENGINE.compare(backup, place))
    copy["memory-000003"] = one
    with index_of(target) as index:
        index.upsert(vectors=[{"id": "more", "values": [1.0] * DIMENSION}])
    found = str(*ENGINE.compare(backup, place))
    assert found == f"rows of {INDEX}, partition {DEFAULT}: expected 60, found 61"


def test_json_lines_are_what_the_runbook_shows_and_can_be_added(
    source: PineconeDouble, target: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    add(source, count=10)
    add(source, count=5, namespace="tenant-a")
    with index_of(source) as index:
        odd = {"id": "theirs", "values": "theirs", "metadata": True}
        index.upsert(vectors=[{"id": "odd", "values": [1.0] * DIMENSION, "metadata": odd}])
    file = tmp_path / "vector_db.jsonl"
    with ENGINE.connect(endpoint_of(source)) as opened:
        transfer.export(opened, endpoint_of(source), file, "all")
    line = json.loads(file.read_text().splitlines()[-1])
    assert line["id"] == "memory-000004"
    assert line["namespace"] == "tenant-a"
    assert line["metadata"]["topic"] == "concept 4"
    with ENGINE.connect(endpoint_of(target)) as opened:
        transfer.load(opened, endpoint_of(target), file, add=False)
    assert held(target) == held(source)
    # Lines that were written by hand, into an index that holds vectors.
    file.write_text(json.dumps({"id": "more", "values": [0.5] * DIMENSION}) + "\n")
    target.lag = 0.3
    with ENGINE.connect(endpoint_of(target)) as opened:
        transfer.load(opened, endpoint_of(target), file, add=True)
    assert len(target.vectors(INDEX)) == 12


def test_wrong_keys_and_names_are_told_without_the_key(
    source: PineconeDouble, tmp_path: Path
) -> None:
    create(source)
    wrong = replace(endpoint_of(source), password="pcsk_wrong_key")
    with pytest.raises(AccessDeniedError) as caught:
        ENGINE.probe(wrong)
    assert "pcsk_wrong_key" not in repr((caught.value, caught.value.facts))
    with pytest.raises(ConfigurationError, match="API key"):
        ENGINE.probe(replace(wrong, password=""))
    with pytest.raises(NotFoundError, match=f"nothing; it has {INDEX}"):
        dumped(ENGINE, endpoint_of(source), tmp_path, indexes=["nothing"])
    with pytest.raises(EmptySourceError):
        dumped(ENGINE, endpoint_of(source), tmp_path)
    assert dumped(ENGINE, endpoint_of(source), tmp_path, allow_empty=True).last.dump.empty


def test_options_that_mean_nothing_are_refused() -> None:
    for given in ({"indexes": "some"}, {"namespaces": []}, {"indexes": [""]}):
        with pytest.raises(ConfigurationError, match=next(iter(given))):
            ENGINE.options(given)


def test_the_engine_is_cheap_to_import_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (
        "import sys, neuroca_backup.engines.pinecone, neuroca_backup.engines.qdrant\n"
        "heavy = {'pinecone', 'qdrant_client', 'numpy', 'pyarrow', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    monkeypatch.setitem(sys.modules, "pinecone", None)
    with pytest.raises(ToolMissingError, match=re.escape("pip install neuroca-backup[pinecone]")):
        ENGINE.probe(endpoint_of(PineconeDouble()))
