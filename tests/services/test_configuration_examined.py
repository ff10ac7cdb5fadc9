"""Restored configuration is read as what its names say; no value of it is ever told."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.connections import FileConnections
from neuroca_backup.engines import Answer, RestoreTarget, named
from neuroca_backup.engines.filetree.parsing import problem_of
from neuroca_backup.errors import ComparisonError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import set_id
from neuroca_backup.runtime import Runtime
from neuroca_backup.services import asking
from neuroca_backup.settings import Settings, sample_text
from support.dumping import Dumped, dump_to, restore_all
from support.wiring import local_places

if TYPE_CHECKING:
    from collections.abc import Sequence

FILETREE = named("filetree")
SECRET = "s3cret-v4lue"
HERE = Endpoint.this_machine()


def tree_of(folder: Path, **contents: str) -> Path:
    """Make a tree of files whose names have `_` for `.`."""
    tree = folder / "etc"
    tree.mkdir()
    for name, content in contents.items():
        (tree / name.replace("_", ".")).write_text(content)
    return tree


def examined(
    endpoint: Endpoint, facts: dict[str, Any], *only: str
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return all problems, and why something was not asked."""
    answers: Sequence[Answer] = FILETREE.examine(endpoint, facts, only=only)  # type: ignore[attr-defined]  # an optional ability
    problems = tuple(problem for one in answers for problem in one.problems)
    return problems, {one.question: one.unasked for one in answers if one.unasked}


def restored(folder: Path, dumped: Dumped, *only: str) -> Endpoint:
    target = Endpoint.this_machine(folder / "restored")
    restore_all(FILETREE, dumped.restorable(*only), target)
    return target


def without_findings(dumped: Dumped) -> dict[str, Any]:
    """Return the facts of a backup from before anybody looked."""
    return {word: fact for word, fact in dumped.manifest.dump.facts.items() if word != "unsound"}


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.yaml", f"a: 1\nb: {SECRET}]: x: y", "it is not YAML (line 2, column"),
        ("a.yml", f"a: *{SECRET}", "it is not YAML (line 1, column 4)"),
        ("a.yaml", f"a: {SECRET}\x07", "characters that YAML does not allow"),
        ("a.json", f'{{"a": "{SECRET}",}}', "it is not JSON (line 1, column"),
        ("a.json", "", "it is not JSON (line 1, column 1)"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.toml", f"a = 1\nb = {SECRET}", "it is not TOML (line 2, column 5)"),
        (".env", f"A=1\n\nexport {SECRET} is lost\n", "it is not .env (line 3)"),
        ("app.env", f"A='{SECRET}\n", "it is not .env (line 1)"),
        (".env.production", "A=\udcff", "it is not UTF-8 text (byte 2)"),
        ("backup.yaml", f"backup: {{{SECRET}: 1}}", "it is not a backup.yaml that this version"),
        ("backup.yaml", "[]", "it is not a backup.yaml that this version takes"),
    ],
)
def test_what_a_file_is_not_is_told_by_its_place_and_without_a_value(
    name: str, content: str, place: str
) -> None:
    found = problem_of(f"etc/{name}", content.encode("utf-8", "surrogateescape"))
    assert place in found
    assert SECRET not in found.replace(f"backup.{SECRET}", "")  # a key is no value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.yaml", "a: !vault |\n  x\n---\nb: &x [1]\nc: *x\n"),
        ("empty.yaml", ""),
        ("a.json", '{"a": [1, null]}'),
        ("a.toml", "[a]\nb = 2026-11-01\n"),
        (".env", "# c\n\nexport A=1\nB='two\nlines'\nC\n"),
        ("backup.yaml", sample_text()),
    ],
)
def test_a_sound_file_is_no_problem(name: str, content: str) -> None:
    assert problem_of(f"etc/{name}", content.encode()) == ""


def test_a_restored_file_that_cannot_be_read_is_a_problem_and_one_of_the_source_is_known(
    tmp_path: Path,
) -> None:
    tree = tree_of(
        tmp_path, good_yaml="a: 1\n", bad_json=f"{{{SECRET}", key_pem=SECRET, app_env="A=1\n"
    )
    os.link(tree / "bad.json", tree / "worse.json")
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, parameters=[str(tree)])
    facts, notes = dumped.manifest.dump.facts, " ".join(dumped.manifest.dump.notes)
    inside = str(tree / "bad.json").lstrip("/")
    assert facts["unsound"] == {"count": 1, "paths": [inside]}
    assert f"Not sound in the source: /{inside}: it is not JSON (line 1, column 2)" in notes
    assert SECRET not in notes
    target = restored(tmp_path, dumped)
    for place in (target, HERE):
        problems, unasked = examined(place, facts)
        assert problems == ()
        assert unasked["files not asked"].startswith(f"/{inside} was not sound when it was")
    # A backup that nobody looked into when it was made: the copy is all there is to go by.
    problems, _ = examined(target, without_findings(dumped))
    assert problems == (f"/{inside}: it is not JSON (line 1, column 2)",)
    (tmp_path / "restored" / inside).with_name("good.yaml").write_text("a: [1\n")
    problems, _ = examined(target, facts)
    assert len(problems) == 1
    assert "good.yaml: it is not YAML" in problems[0]


def test_what_the_manifest_says_of_unsound_files_does_not_grow_with_them(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    for number in range(150):
        (tree / f"{number:03}.json").write_text("{")
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, parameters=[str(tree)])
    unsound = dumped.manifest.dump.facts["unsound"]
    assert (unsound["count"], len(unsound["paths"])) == (150, 100)
    assert "and 145 more files" in " ".join(dumped.manifest.dump.notes)
    problems, unasked = examined(restored(tmp_path, dumped), dumped.manifest.dump.facts)
    assert len(problems) == 6, "five of those that the manifest does not name, and how many more"
    assert "and more was not sound" in unasked["files not asked"]


def test_files_too_large_or_of_no_known_kind_are_said_not_to_have_been_asked(
    tmp_path: Path,
) -> None:
    tree = tree_of(tmp_path, large_json=" " * (2 * 1024 * 1024 + 1))
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, parameters=[str(tree)])
    problems, unasked = examined(restored(tmp_path, dumped), dumped.manifest.dump.facts)
    assert problems == ()
    assert "none of them is YAML" in unasked["files are what their names say"]
    assert "large.json is larger than 2 MB" in unasked["files not asked"]


SCHEMA = {"type": "object", "properties": {"workers": {"type": "integer"}}, "required": ["name"]}


def test_files_are_held_to_the_schema_of_their_pattern_and_no_value_is_told(
    tmp_path: Path,
) -> None:
    tree = tree_of(
        tmp_path,
        right_yaml="name: 2026-11-01\nworkers: 4\n",
        wrong_yaml=f"name: x\nworkers: {SECRET}\n",
        lacking_json="{}",
        odd_yaml="name: x\n1: 2\n",
        free_toml="workers = 'x'\n",
    )
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    schemas = {"*.yaml": str(schema), f"{tree}/*.json": str(schema)}
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, parameters=[str(tree)], schemas=schemas)
    assert dumped.manifest.dump.facts["unsound"]["count"] == 3, "the source is held to it, too"
    target = restored(tmp_path, dumped)
    problems, _ = examined(target, without_findings(dumped))
    assert problems == (
        f"{tree}/lacking.json: it breaks `required` of {schema} at $",
        f"{tree}/odd.yaml: it has a key that is no text, so {schema} cannot tell",
        f"{tree}/wrong.yaml: it breaks `type` of {schema} at $.workers",
    )


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{", "it is not JSON"),
        ("5", r"it is no JSON Schema"),
        ('{"type": 5}', r"it is no JSON Schema: \$.type is wrong"),
        ('{"$ref": "http://127.0.0.1:9/x"}', "refers to another schema"),
        ('{"properties": {"name": {"pattern": "("}}}', r"\$.properties.name.pattern is wrong"),
    ],
)
def test_a_schema_that_is_none_is_a_problem_of_its_own(
    tmp_path: Path, schema: str, words: str
) -> None:
    tree = tree_of(tmp_path, a_yaml="name: x\n")
    (tmp_path / "schema.json").write_text(schema)
    options = {"parameters": [str(tree)], "schemas": {"*.yaml": str(tmp_path / "schema.json")}}
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, **options)
    problems, _ = examined(restored(tmp_path, dumped), without_findings(dumped))
    assert len(problems) == 1
    assert re.search(words, problems[0])


def test_a_schema_is_taken_from_the_restored_copy_and_one_that_is_nowhere_is_not_asked(
    tmp_path: Path,
) -> None:
    tree = tree_of(tmp_path, a_yaml="workers: x\n", schema_json=json.dumps(SCHEMA))
    schemas = {"*.yaml": str(tree / "schema.json"), "*.json": "/nowhere/schema.json"}
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, parameters=[str(tree)], schemas=schemas)
    target = restored(tmp_path, dumped)
    (tree / "schema.json").unlink()
    problems, unasked = examined(target, without_findings(dumped))
    assert len(problems) == 1
    assert "a.yaml: it breaks" in problems[0]
    assert unasked["schema /nowhere/schema.json"] == "it is not on this machine"
    with pytest.raises(ConfigurationError, match=r"options\.schemas.*absolute path"):
        FILETREE.options({"parameters": ["/etc/x"], "schemas": {"*.yaml": "schema.json"}})


def test_of_a_part_in_place_only_that_part_is_looked_into(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, a_yaml="[", b_yaml="[", c_yaml="[")
    options = {
        "parameters": [f"{tree}/a.yaml", f"{tree}/b.yaml"],
        "security": [f"{tree}/c.yaml"],
    }
    dumped = dump_to(tmp_path / "dump", FILETREE, HERE, **options)
    facts = without_findings(dumped)
    for only, names in (
        (("security",), ["c"]),
        ((f"{tree}/a.yaml",), ["a"]),
        (("security", f"{tree}/a.yaml"), ["a", "c"]),
        ((), ["a", "b", "c"]),
    ):
        problems, _ = examined(HERE, facts, *only)
        assert [Path(one.partition(":")[0]).stem for one in problems] == names


def test_a_restore_through_the_whole_system_fails_on_what_it_cannot_read(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, app_yaml=yaml.safe_dump({"workers": 4}))
    places = local_places(tmp_path)
    source = {
        "component": "configuration",
        "engine": "filetree",
        "options": {"parameters": [str(tree)]},
    }
    settings = {
        "schedule": {"configuration": "0 1 * * 0"},
        "storage": places.storage,
        "retention": {},
        "encryption": places.encryption,
        "pipeline": {"spool": str(tmp_path / "spool")},
        "sources": {"configuration": source},
    }
    runtime = Runtime.build(
        Settings.model_validate(settings), FileConnections(environ=places.environ)
    )
    runtime.__dict__["catalog"] = MemoryCatalog()
    moment = datetime.now(UTC)
    ref = runtime.ref(set_id(at=moment, run="examined"), "configuration")
    runtime.backups.run(ref, mode=runtime.settings.pipeline.mode)
    runtime.verifier.verify(ref)
    target = RestoreTarget(Endpoint.this_machine(tmp_path / "restored"))
    plan = runtime.restores.plan(
        component=ref.component,
        source=ref.source,
        restore_id="restore-examined",
        backup_id=ref.backup_id,
    )
    fetched = runtime.restores.fetch(plan)
    facts = runtime.restores._manifest(plan, ref).manifest.dump.facts
    assert facts["unsound"] == {"count": 0, "paths": []}
    assert "files are what their names say" in facts[asking.FACT]
    runtime.restores.load(plan, fetched, target)
    runtime.restores.compare(plan, target)
    runtime.restores.publish(plan, fetched, target)
    assert "questions answered" in runtime.restores.examine(plan, target)[0]
    (tmp_path / "restored" / str(tree).lstrip("/") / "app.yaml").write_text("[")
    with pytest.raises(ComparisonError, match=r"app\.yaml: it is not YAML"):
        runtime.restores.examine(plan, target)
    runtime.restores.clear(plan.restore_id)
