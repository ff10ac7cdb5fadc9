"""Questions to the memory tiers: each is asked for its own items, and of its own server."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.engines import Answer, named
from support.doubles.qdrant_api import QdrantDouble
from support.dumping import dump_to, restore_all
from support.engines import qdrant
from support.engines.mongodb import connected
from support.memory_items import add_items
from support.redis_keys import client_of, flush

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


def answers(kind: str, endpoint: Endpoint, facts: dict[str, Any], *only: str) -> dict[str, Answer]:
    found = named(kind).examine(endpoint, facts, only=only)  # type: ignore[attr-defined]  # an optional ability
    return {one.question: one for one in found}


def problems(found: dict[str, Answer]) -> list[str]:
    return [problem for one in found.values() for problem in one.problems]


def test_of_working_memory_the_keys_of_the_tier_are_read_and_no_others(
    redis_server: Endpoint, redis_twin: Endpoint, tmp_path: Path
) -> None:
    flush(redis_server, redis_twin)
    add_items(redis_server, 200)
    engine = named("working_memory")
    dumped = dump_to(tmp_path / "dump", engine, redis_server)
    facts = dumped.manifest.dump.facts
    restore_all(engine, dumped.restorable(), redis_twin)
    found = answers("working_memory", redis_twin, facts)
    assert problems(found) == []
    assert "database 0: keys of the tier can be read" in found
    # What is left belongs to somebody else.
    with client_of(redis_twin) as client:
        client.flushall()
        client.set("other:key", "x")
    known = {name: {**one, "expiring": 0} for name, one in facts["databases"].items()}
    found = answers("working_memory", redis_twin, {**facts, "databases": known})
    assert "it holds no key of the tier" in problems(found)
    assert problems(answers("working_memory", redis_twin, facts, "session=s1")) == []
    flush(redis_server, redis_twin)


def test_a_replica_that_takes_no_writes_is_a_problem_of_working_memory(
    redis_server: Endpoint, redis_twin: Endpoint, tmp_path: Path
) -> None:
    flush(redis_server, redis_twin)
    add_items(redis_server, 8)
    dumped = dump_to(tmp_path / "dump", named("working_memory"), redis_server)
    with client_of(redis_twin) as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 9)
    found = answers("working_memory", redis_twin, dumped.manifest.dump.facts)
    assert "it is a slave, which takes no writes" in problems(found)
    flush(redis_server, redis_twin)


@pytest.fixture
def tier(mongodb: Endpoint, mongodb_twin: Endpoint) -> Iterator[str]:
    name = f"examined_{secrets.token_hex(4)}"
    with connected(mongodb) as client, connected(mongodb_twin) as twin:
        client[name]["episodes"].insert_many(
            {"_id": n, "session": f"s{n % 10}", "user": n % 5} for n in range(200)
        )
        client[name]["episodes"].create_index("user", sparse=True)
        client[name]["others"].insert_one({"_id": 1})
        client[name].create_collection("seen", viewOn="episodes", pipeline=[])
        yield name
        client.drop_database(name)
        twin.drop_database(name)


def test_of_episodic_memory_every_index_of_the_tier_is_read_through(
    tier: str, mongodb: Endpoint, mongodb_twin: Endpoint, tmp_path: Path
) -> None:
    engine = named("episodic_memory")
    dumped = dump_to(tmp_path / "dump", engine, mongodb, collections=[f"{tier}.*"])
    facts = dumped.manifest.dump.facts
    restore_all(engine, dumped.restorable(), mongodb_twin)
    found = answers("episodic_memory", mongodb_twin, facts)
    assert set(found) == {
        f"{tier}.{name}: every index answers" for name in ("episodes", "others", "seen")
    }
    assert problems(found) == []
    assert all(not one.unasked for one in found.values())
    part = answers("episodic_memory", mongodb_twin, facts, "collection=episodes", "session=s1")
    assert set(part) == {f"{tier}.episodes: every index answers"}
    with connected(mongodb_twin) as client:
        client[tier]["others"].drop()
    assert answers("episodic_memory", mongodb_twin, facts)[
        f"{tier}.others: every index answers"
    ].unasked


def test_of_semantic_memory_every_collection_of_the_tier_is_searched(tmp_path: Path) -> None:
    engine = named("semantic_memory")
    with QdrantDouble() as source, QdrantDouble() as twin:
        qdrant.fill(source)
        here, there = qdrant.endpoint_of(source), qdrant.endpoint_of(twin)
        dumped = dump_to(tmp_path / "dump", engine, here, embedding_model="m")
        facts = dumped.manifest.dump.facts
        restore_all(engine, dumped.restorable(), there)
        found = answers("semantic_memory", there, facts)
        assert any("a search by" in question for question in found)
        assert problems(found) == []
    with QdrantDouble() as empty:
        place = qdrant.endpoint_of(empty)
        assert "there is no such collection" in problems(answers("semantic_memory", place, facts))
        part = answers("semantic_memory", place, facts, "session=s1")
        assert problems(part) == []
        assert all(one.unasked for one in part.values())
        assert part
