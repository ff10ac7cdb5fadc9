"""Sanitising tables of PostgreSQL: what stands in the way, and that SQL does what Python does."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import errors

from neuroca_backup.errors import BackupError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.services import sanitise
from neuroca_backup.services.sanitise.masking import Masker
from neuroca_backup.services.sanitise.tables import Tables
from neuroca_backup.settings import RuleSettings
from support.wiring import ask, session

VALUES = ["Zdeňka Ångström 🧠", "a", 'O\'Hara \\ "x"', "x" * 300]
TABLES = """
CREATE TABLE people (
    id int PRIMARY KEY, name text, born date, code varchar(8), full_name text
        GENERATED ALWAYS AS (name || '!') STORED,
    must text NOT NULL DEFAULT 'x', data jsonb, raw bytea, key uuid, number bigint);
CREATE TABLE letters (id int PRIMARY KEY, person int REFERENCES people, body text);
CREATE TABLE watched (body text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NEW; END$$;
CREATE TRIGGER always BEFORE UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION tell();
ALTER TABLE watched ENABLE ALWAYS TRIGGER always;
CREATE TABLE ruled (body text);
CREATE RULE instead AS ON UPDATE TO ruled DO INSTEAD NOTHING;
CREATE VIEW seen AS SELECT name FROM people;
CREATE TABLE parted (at int, body text) PARTITION BY RANGE (at);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
INSERT INTO parted VALUES (1, 'a personal story of somebody');
"""


@pytest.fixture
def database(fresh_database: Endpoint) -> Endpoint:
    with session(fresh_database) as opened:
        opened.execute(TABLES)
        for number, value in enumerate(VALUES):
            opened.execute(
                "INSERT INTO people (id, name, data, raw, key, number)"
                " VALUES (%s, %s, jsonb_build_object('who', %s::text), %s,"
                " gen_random_uuid(), %s)",
                [number, value, value, value.encode(), 2**40 + number],
            )
        opened.execute("INSERT INTO letters SELECT id, id, 'b' FROM people")
    return fresh_database


def rule(table: str, **words: Any) -> RuleSettings:
    return RuleSettings.model_validate({"table": f"public.{table}", **words})


def facts(database: Endpoint) -> dict[str, Any]:
    return {"databases": {database.database: {}}}


@pytest.mark.parametrize("kind", ["name", "email", "phone", "text"])
def test_the_server_makes_the_fakes_that_python_makes(database: Endpoint, kind: str) -> None:
    masker, copy = Masker(), Tables(database, [database.database])
    rules = [
        rule("people", column="name", action="fake", kind=kind),
        rule("people", column="data", field="who", action="hash"),
        rule("people", column="raw", action="hash"),
    ]

    copy.apply(copy.check(rules), masker)

    with session(database) as opened:
        rows = opened.execute("SELECT name, data ->> 'who', raw, full_name FROM people ORDER BY id")
        assert rows.fetchall() == [
            (
                masker.fake(value, kind),
                masker.digest(value).hex(),
                masker.digest(value.encode()),
                masker.fake(value, kind) + "!",
            )
            for value in VALUES
        ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"table": "gone", "column": "x", "action": "hash"}, "is not in the copy"),
        ({"table": "people", "column": "x", "action": "hash"}, "is not in the copy"),
        ({"table": "people", "column": "data", "field": "x", "action": "hash"}, "is not in the"),
        ({"table": "people", "column": "must", "action": "null"}, "may not be null"),
        ({"table": "people", "column": "full_name", "action": "hash"}, "is computed by the server"),
        ({"table": "people", "column": "born", "action": "hash"}, "is date, to which 'hash'"),
        ({"table": "people", "column": "code", "action": "hash"}, "room for 8 characters"),
        (
            {"table": "people", "column": "name", "field": "x", "action": "hash"},
            "is text, not JSON",
        ),
        ({"table": "people", "column": "id", "action": "hash"}, "letters_person_fkey"),
        ({"table": "letters", "column": "person", "action": "hash"}, "letters_person_fkey"),
        ({"table": "watched", "column": "body", "action": "hash"}, "triggers that always fire"),
        ({"table": "ruled", "column": "body", "action": "hash"}, "has rewrite rules"),
        ({"table": "seen", "column": "name", "action": "hash"}, "not a table that has rows"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_place_and_nothing_is_changed(
    database: Endpoint, words: dict[str, Any], problem: str
) -> None:
    rules = [
        rule("letters", column="body", action="hash"),
        RuleSettings.model_validate({**words, "table": f"public.{words['table']}"}),
    ]

    with pytest.raises(BackupError, match=problem) as said:
        sanitise.sanitise(database, facts(database), rules)

    assert "othing was changed" in str(said.value)
    assert ask(database, database.database, "SELECT count(*) FROM letters WHERE body = 'b'") == 4


def test_both_ends_of_a_foreign_key_are_changed_alike_partitions_as_well(
    database: Endpoint,
) -> None:
    rules = [
        rule("people", column="id", action="hash"),
        rule("letters", column="person", action="hash"),
        rule("people", column="key", action="hash"),
        rule("people", column="number", action="hash"),
        rule("people", column="name", action="drop"),
        rule("people", column="data", action="drop"),
        rule("people", column="raw", action="null"),
        rule("parted", column="body", action="hash"),
        rule("gone", column="x", action="hash", optional=True),
    ]
    with session(database) as opened:
        opened.execute("DROP VIEW seen; ALTER TABLE people DROP COLUMN full_name")

    outcome = sanitise.sanitise(database, facts(database), rules)

    assert outcome.absent == ("public.gone x",)
    assert outcome.searched > 4
    together = "SELECT count(*) FROM letters JOIN people ON people.id = letters.person"
    assert ask(database, database.database, together) == 4
    with session(database) as opened, pytest.raises(errors.UndefinedColumn):
        opened.execute("SELECT name FROM people")
    assert len(ask(database, database.database, "SELECT body FROM parted_1")) == 64


def test_a_copy_of_a_value_that_no_rule_names_is_found(database: Endpoint) -> None:
    with session(database) as opened:
        opened.execute("CREATE TABLE copied AS SELECT name FROM people")

    with pytest.raises(BackupError, match="is still somewhere in the sanitised copy") as said:
        sanitise.sanitise(database, facts(database), [rule("people", column="name", action="hash")])
    assert not any(value in str(said.value) for value in VALUES if len(value) > 1)
