"""Questions to a restored copy: what does not work is found, and what was not asked is said."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymongo
import pytest

from neuroca_backup.engines import Answer, Question, named
from neuroca_backup.errors import ComparisonError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.services import asking
from support.wiring import (
    RestoreTarget,
    back_up,
    local_places,
    plan_of,
    scratch_database,
    session,
    wire,
)

SLOW = "-- How long does it take?\nSELECT 'slow' FROM pg_sleep(1.2) WHERE false"


@pytest.fixture
def database(postgres: Endpoint, postgres_twin: Endpoint) -> Iterator[Endpoint]:
    name = f"examined_{secrets.token_hex(4)}"
    with scratch_database(postgres, name, also_on=[postgres_twin]) as made:
        yield made


def asked(endpoint: Endpoint, *questions: Question) -> dict[str, Answer]:
    """Return the answers of one database by their questions, without its name."""
    facts: dict[str, Any] = {"databases": {endpoint.database: {}}}
    found = asking.ask(named("postgresql"), endpoint, facts, questions)
    return {one.question.removeprefix(f"{endpoint.database}: "): one for one in found}


def execute(endpoint: Endpoint, statement: str) -> None:
    with session(endpoint) as opened:
        opened.execute(statement)  # type: ignore[call-overload] # a test's own text


def test_a_sound_database_has_no_problem(database: Endpoint) -> None:
    answers = asked(database)
    assert {"every table can be read", "indexes", "sequences", "schema_version"} <= set(answers)
    assert [one for one in answers.values() if one.problems or one.unasked] == []


def test_a_sequence_behind_its_column_is_found_before_the_first_insert_fails(
    database: Endpoint,
) -> None:
    execute(database, "SELECT setval(pg_get_serial_sequence('memory.items', 'id'), 150)")
    (problem,) = asked(database)["sequences"].problems
    assert "goes on from 150, and memory.items.id holds 200" in problem


def test_an_index_that_is_not_valid_is_found(database: Endpoint) -> None:
    execute(database, "CREATE TABLE twice AS SELECT 1 AS n FROM generate_series(1, 2)")
    with pytest.raises(Exception, match="could not create unique index"):
        execute(database, "CREATE UNIQUE INDEX CONCURRENTLY broken ON twice (n)")
    assert asked(database)["indexes"].problems == ("the index broken is not valid",)


def test_a_schema_version_that_is_lost_is_found(database: Endpoint) -> None:
    execute(database, "CREATE TABLE memory.alembic_version (version_num text)")
    assert asked(database)["schema_version"].problems == ("memory.alembic_version has 0 rows",)


def test_every_row_of_a_question_of_ones_own_is_a_problem(database: Endpoint) -> None:
    many = Question("many", "SELECT content FROM memory.items ORDER BY id")
    wrong = Question("wrong", "SELECT nothing FROM nowhere")
    writing = Question("writing", "DELETE FROM memory.items RETURNING content")
    elsewhere = Question("elsewhere", "-- database: neuroca\nSELECT 'asked in the wrong place'")
    optional = Question("optional", "-- requires: memory.absent\nSELECT 'asked without its table'")
    answers = asked(database, many, wrong, writing, elsewhere, optional)
    assert answers["many"].problems == (
        *(f"memory {n}" for n in range(1, 6)),
        "and more of the kind",
    )
    assert "could not be answered" in answers["wrong"].problems[0]
    assert "read-only transaction" in answers["writing"].problems[0]
    assert answers["elsewhere"].unasked == "neuroca is not in this copy"
    assert "optional" not in answers


def test_a_copy_is_held_to_what_its_source_said(
    database: Endpoint, postgres_twin: Endpoint, tmp_path: Path
) -> None:
    runtime = wire(
        local_places(tmp_path),
        postgres=database,
        spool=tmp_path / "spool",
        options={"databases": [database.database]},
    )
    execute(database, "SELECT setval(pg_get_serial_sequence('memory.items', 'id'), 150)")
    ref = back_up(runtime)
    plan, target = plan_of(runtime, ref), RestoreTarget(postgres_twin)
    fetched = runtime.restores.fetch(plan)
    dump = runtime.restores._manifest(plan, ref).manifest.dump
    assert "sequences" in " ".join(dump.notes), "the source's own problem is a note"
    assert "goes on from" not in dump.model_dump_json(), "its words are for the log alone"
    assert dump.facts[asking.FACT][f"{database.database}: indexes"]["problems"] == ""
    runtime.restores.load(plan, fetched, target)
    runtime.restores.compare(plan, target)
    runtime.restores.publish(plan, fetched, target)
    notes = runtime.restores.examine(plan, target)
    assert "questions answered" in notes[0]
    assert any(one.startswith("As at the source") and "from 150" in one for one in notes)
    execute(
        replace(postgres_twin, database=database.database),
        "SELECT setval(pg_get_serial_sequence('memory.items', 'id'), 120)",
    )
    with pytest.raises(ComparisonError, match=r"in 1 ways: .*goes on from 120"):
        runtime.restores.examine(plan, target)
    runtime.restores.clear(plan.restore_id)


def test_a_slow_copy_is_a_problem_only_where_speed_is_asked_for() -> None:
    quick, slow = Answer("one", 0.01), Answer("one", 1.2)
    before = {"one": {"seconds": 0.01, "problems": ""}}
    assert asking.judge([quick], before, speed=True).problems == ()
    assert asking.judge([slow], before, speed=True).problems == (
        "one: 1.2 s, the source took 0.0 s",
    )
    noted = asking.judge([slow], before, speed=False)
    assert noted.problems == ()
    assert "one: 1.2 s, the source took 0.0 s" in noted.notes
    assert asking.judge([slow], {}, speed=True).problems == ()


def test_questions_are_read_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.sql").write_text("SELECT 2 WHERE false")
    (tmp_path / "a.sql").write_text("SELECT 1 WHERE false")
    postgres = named("postgresql")
    found = asking.read(postgres, [tmp_path, tmp_path / "b.sql"], source="postgres")
    assert [one.name for one in found] == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("engine", "name", "words"),
    [
        ("postgresql", "absent.sql", "No such file or directory"),
        ("postgresql", "empty", "it holds no question"),
        ("postgresql", "a.json", r"it ends in '\.json'"),
        ("redis_rdb", "a.json", "redis_rdb takes no questions"),
    ],
)
def test_a_question_that_is_none_is_refused_by_its_path(
    tmp_path: Path, engine: str, name: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=words):
        asking.read(named(engine), [tmp_path / name], source="postgres")


def test_questions_to_mongodb_are_pipelines(mongodb: Endpoint) -> None:
    name = f"examined_{secrets.token_hex(4)}"
    with pymongo.MongoClient[dict[str, Any]](
        mongodb.host,
        mongodb.port,
        username=mongodb.user,
        password=mongodb.password,
        **mongodb.extra,
    ) as client:
        try:
            client[name]["episodes"].insert_many({"_id": n} for n in range(3))
            client[name]["episodes"].create_index("user", sparse=True)
            facts = {
                "collections": {
                    f"{name}.{one}": {"type": "collection"} for one in ("episodes", "gone")
                }
            }
            words = {"database": name, "collection": "episodes"}
            questions = [
                Question("sound", json.dumps({**words, "pipeline": [{"$match": {"_id": 9}}]})),
                Question("unsound", json.dumps({**words, "pipeline": [{"$match": {"_id": 1}}]})),
                Question("broken", json.dumps({**words, "pipeline": [{"$nothing": 1}]})),
                Question("incomplete", json.dumps(words)),
                Question("text", "no JSON"),
            ]
            found = asking.ask(named("mongodb"), mongodb, facts, questions)
        finally:
            client.drop_database(name)
    answers = {one.question: one for one in found}
    assert answers[f"{name}.episodes: every index answers"].problems == ()
    assert answers[f"{name}.gone: every index answers"].unasked
    assert answers["sound"].problems == ()
    assert answers["unsound"].problems == ("the document 1",)
    assert "Unrecognized pipeline stage" in answers["broken"].problems[0]
    assert "does not have exactly the words" in answers["incomplete"].problems[0]
    assert "it is not JSON" in answers["text"].problems[0]
