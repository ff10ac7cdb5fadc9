from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from neuroca_backup import registry, stores
from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import Component
from neuroca_backup.settings import (
    LocalStoreSettings,
    S3StoreSettings,
    Settings,
    default_path,
    format_duration,
    load,
    parse_duration,
    sample_text,
    warnings,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "config" / "backup.yaml"
REFERENCE = ROOT / "docs" / "reference" / "configuration.md"

# The example of the backup runbook, to the letter.
RUNBOOK_EXAMPLE = """\
backup:
  schedule:
    database: "0 2 * * *"  # Daily at 2 AM
    memory_tiers: "0 3 * * *"  # Daily at 3 AM
    configuration: "0 1 * * 0"  # Weekly on Sunday at 1 AM
    model_weights: "0 4 * * 0"  # Weekly on Sunday at 4 AM
  storage:
    primary:
      type: "s3"
      bucket: "neuroca-backups"
      region: "us-west-2"
      path: "/backups"
    secondary:
      type: "s3"
      bucket: "neuroca-dr-backups"
      region: "eu-central-1"
      path: "/backups"
  retention:
    database: "30d"
    memory_tiers: "14d"
    configuration: "90d"
    model_weights: "180d"
    logs: "90d"
  encryption:
    enabled: true
    key_management: "kms"
    kms_key_id: "arn:aws:kms:us-west-2:123456789012:key/abcd1234-ef56-gh78-ij90-klmn1234pqrs"
"""

PRIMARY_KEY = "arn:aws:kms:us-west-2:123456789012:key/abcd1234-ef56-gh78-ij90-klmn1234pqrs"
SECONDARY_KEY = "arn:aws:kms:eu-central-1:123456789012:key/mrk-1"
SOURCE = "  sources:\n    postgres: {component: database, engine: postgresql, connection: nca_pg}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "backup.yaml"
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> ConfigurationError:
    path = written(folder, text)
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.facts["file"] == str(path)
    return caught.value


def changed(old: str, new: str) -> str:
    assert RUNBOOK_EXAMPLE.count(old) == 1, f"{old!r} does not name one place"
    return RUNBOOK_EXAMPLE.replace(old, new)


def with_encryption(lines: str) -> str:
    start = RUNBOOK_EXAMPLE.index("  encryption:")
    return f"{RUNBOOK_EXAMPLE[:start]}  encryption:\n{lines}"


def uncommented(text: str) -> str:
    """Return `text` with every setting active: "#" without a space, or with indentation."""
    return "\n".join(re.sub(r"^(\s*)#(?! \S)", r"\1", line) for line in text.splitlines())


def test_the_example_of_the_runbook_loads_unchanged(tmp_path: Path) -> None:
    settings = load(written(tmp_path, RUNBOOK_EXAMPLE))

    assert settings.schedule.database == "0 2 * * *"
    assert settings.schedule.logs is None
    assert settings.storage.primary == S3StoreSettings(
        type="s3", bucket="neuroca-backups", region="us-west-2", path="/backups"
    )
    assert settings.storage.secondary.path == "/backups"
    assert settings.retention.of(Component.MODEL_WEIGHTS) == timedelta(days=180)
    assert settings.encryption.kms_key_id == PRIMARY_KEY
    assert settings.objectives.rto.full_system == timedelta(hours=12)
    assert settings.sources["postgres"].engine == "postgresql"


MISTAKES = {
    "an unknown key offers the nearest one": (
        changed("  retention:", "  retntion: {}\n  retention:"),
        "backup.retntion",
        ["line 18", "Did you mean `retention`?"],
    ),
    "an unknown key in a store offers the nearest of that type of store": (
        changed(
            '    bucket: "neuroca-backups"\n', '    bucket: "neuroca-backups"\n      regoin: x\n'
        ),
        "backup.storage.primary.regoin",
        ["line 11", "Did you mean `region`?", "bucket, region, path, connection"],
    ),
    "a cron expression out of range": (
        changed('"0 2 * * *"', '"0 25 * * *"'),
        "backup.schedule.database",
        ["line 3", "'0 25 * * *' is not a cron expression"],
    ),
    "a cron expression of six fields": (
        changed('"0 2 * * *"', '"0 0 2 * * *"'),
        "backup.schedule.database",
        ["'0 0 2 * * *' is not a cron expression", "five fields"],
    ),
    "a cron expression that is drawn anew at each reading": (
        changed('"0 2 * * *"', '"R 2 * * *"'),
        "backup.schedule.database",
        ["'R 2 * * *' is not a cron expression"],
    ),
    "a cron expression that never comes due": (
        changed('"0 2 * * *"', '"0 2 31 2 *"'),
        "backup.schedule.database",
        ["never comes due"],
    ),
    "a retention with an unknown unit": (
        changed('"30d"', '"30x"'),
        "backup.retention.database",
        ["line 19", "'30x' is not a duration", "such as 30d"],
    ),
    "a retention without a unit": (
        changed('"30d"', "30"),
        "backup.retention.database",
        ["the number 30 is not a duration"],
    ),
    "a retention longer than dates reach": (
        changed('"30d"', '"999999999w"'),
        "backup.retention.database",
        ["is not a duration"],
    ),
    "a grace period that a restore can outlast": (
        changed('    logs: "90d"', '    logs: "90d"\n    grace: "3d"')
        + "  objectives: {rto: {full_system: 4d}}\n",
        "backup.retention.grace",
        ["line 24", "'3d' is shorter than the longest recovery time objective"],
    ),
    "a grace period that a run can outlast": (
        changed('    logs: "90d"', '    logs: "90d"\n    grace: "2d"'),
        "backup.retention.grace",
        ["'2d' is shorter than the longest run", "3d or more"],
    ),
    "leftovers that a run may still write": (
        changed('    logs: "90d"', '    logs: "90d"\n    leftovers: "24h"'),
        "backup.retention.leftovers",
        ["'24h' is shorter than the longest run", "while a run still writes them"],
    ),
    "more than all backups at once": (
        changed('    logs: "90d"', '    logs: "90d"\n    most_at_once: 101'),
        "backup.retention.most_at_once",
        ["the number 101 is too large"],
    ),
    "no verified backup to be kept": (
        changed('    logs: "90d"', '    logs: "90d"\n    keep_verified: 0'),
        "backup.retention.keep_verified",
        ["the number 0 is too small"],
    ),
    "an objective of a source that there is not": (
        f"{RUNBOOK_EXAMPLE}  objectives:\n    rto:\n      also:\n"
        "        soon: {within: 1h, sources: [x]}\n",
        "backup.objectives.rto.also.soon.sources",
        ["'x' is not a source", "Use one of: postgres"],
    ),
    "an objective with the name of one of the runbook's": (
        f"{RUNBOOK_EXAMPLE}  objectives:\n    rto:\n      also:\n"
        "        database: {within: 1h, sources: [postgres]}\n",
        "backup.objectives.rto.also.database",
        ["is an objective already", "another name"],
    ),
    "a grace period that a restore of one's own objective can outlast": (
        f"{RUNBOOK_EXAMPLE}  objectives:\n    rto:\n      also:\n"
        "        slow: {within: 9d, sources: [postgres]}\n",
        "backup.retention.grace",
        ["shorter than the longest recovery time objective"],
    ),
    "a missing bucket": (
        changed('      bucket: "neuroca-backups"\n', ""),
        "backup.storage.primary.bucket",
        ["line 8", "is missing", "Write `bucket:` below backup.storage.primary"],
    ),
    "a bucket with its scheme": (
        changed('"neuroca-backups"', '"s3://neuroca-backups/x"'),
        "backup.storage.primary.bucket",
        ["is not the name of a bucket"],
    ),
    "a missing section": (
        RUNBOOK_EXAMPLE[: RUNBOOK_EXAMPLE.index("  encryption:")],
        "backup.encryption",
        ["is missing", "Write `encryption:` below backup"],
    ),
    "one place as both stores": (
        RUNBOOK_EXAMPLE.replace("neuroca-dr-backups", "neuroca-backups").replace(
            "eu-central-1", "us-west-2"
        ),
        "backup.storage.secondary.bucket",
        ["line 15", "'neuroca-backups' is the place of the primary store, too"],
    ),
    "one bucket with two paths": (
        RUNBOOK_EXAMPLE.replace("neuroca-dr-backups", "neuroca-backups"),
        "backup.storage.secondary.bucket",
        ["the place of the primary store, too"],
    ),
    "an unknown type of store lists those that exist": (
        RUNBOOK_EXAMPLE.replace('type: "s3"', 'type: "S3"', 1),
        "backup.storage.primary.type",
        ["'S3' is not known", "Did you mean `s3`?", "Known here: s3, local"],
    ),
    "a missing type of store": (
        RUNBOOK_EXAMPLE.replace('      type: "s3"\n', "", 1),
        "backup.storage.primary.type",
        ["is missing"],
    ),
    "encryption that is turned off": (
        changed("enabled: true", "enabled: false"),
        "backup.encryption.enabled",
        ["line 25", "every backup is encrypted"],
    ),
    "encryption enabled by a word": (
        changed("enabled: true", 'enabled: "true"'),
        "backup.encryption.enabled",
        ["'true' is neither true nor false", "without quotes"],
    ),
    "kms without its key": (
        with_encryption("    key_management: kms\n"),
        "backup.encryption.kms_key_id",
        ["is missing", "`key_management: kms` needs it", "full ARN"],
    ),
    "local without its key file": (
        with_encryption("    key_management: local\n"),
        "backup.encryption.local_key_file",
        ["is missing", "`key_management: local` needs it"],
    ),
    "a key management that does not exist": (
        changed('key_management: "kms"', 'key_management: "vault"'),
        "backup.encryption.key_management",
        ["'vault' is not known", "kms, local"],
    ),
    "an alias of a key": (
        changed(":key/abcd1234-ef56-gh78-ij90-klmn1234pqrs", ":alias/backups"),
        "backup.encryption.kms_key_id",
        ["do not resolve in an outage", "full ARN"],
    ),
    "a bare key id": (
        changed(PRIMARY_KEY, "abcd1234-ef56"),
        "backup.encryption.kms_key_id",
        ["'abcd1234-ef56' is not the full ARN of a KMS key"],
    ),
    "a key of another region than the primary store": (
        changed(PRIMARY_KEY, SECONDARY_KEY),
        "backup.encryption.kms_key_id",
        ["line 27", "is a key of eu-central-1, but the primary store is in us-west-2"],
    ),
    "a secondary key of another region than the secondary store": (
        f"{RUNBOOK_EXAMPLE}    secondary_kms_key_id: {PRIMARY_KEY}\n",
        "backup.encryption.secondary_kms_key_id",
        ["line 28", "is a key of us-west-2, but the secondary store is in eu-central-1"],
    ),
    "an engine that does not exist lists those that do": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('postgresql', 'postgresq')}",
        "backup.sources.postgres.engine",
        ["line 29", "'postgresq' is not a known engine", "Did you mean `postgresql`?"],
    ),
    "a component that does not exist": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('component: database', 'component: databases')}",
        "backup.sources.postgres.component",
        ["'databases' is not known", "Did you mean `database`?", "memory_tiers"],
    ),
    "a method of an engine that has none": (
        f"{RUNBOOK_EXAMPLE}{SOURCE}".replace("postgresql", "mongodb").replace(
            "nca_pg", "nca, method: both"
        ),
        "backup.sources.postgres.method",
        ["line 29", "is a word for PostgreSQL, and the engine is mongodb"],
    ),
    "physical options of a logical source": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('nca_pg', 'nca_pg, physical_options: {a: 1}')}",
        "backup.sources.postgres.physical_options",
        ["needs method: both"],
    ),
    "a second source of a method by the name of another": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('nca_pg', 'nca_pg, method: both')}"
        + SOURCE.removeprefix("  sources:\n").replace("postgres:", "postgres_physical:"),
        "backup.sources.postgres.method",
        ["makes a source postgres_physical, and there is one"],
    ),
    "options that are a list": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('nca_pg', 'nca_pg, options: [a]')}",
        "backup.sources.postgres.options",
        ["a list is not a section"],
    ),
    "a source's name that cannot be a part of an object key": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('postgres:', 'Post/gres:')}",
        "backup.sources.Post/gres",
        ["is not a source's name", "lower-case"],
    ),
    "a source by the name of all of them": (
        f"{RUNBOOK_EXAMPLE}{SOURCE.replace('postgres:', 'all:')}",
        "backup.sources.all",
        ["is what the command calls all sources together"],
    ),
    "no sources at all": (
        f"{RUNBOOK_EXAMPLE}  sources: {{}}\n",
        "backup.sources",
        ["line 28", "is empty"],
    ),
    "a section without a value": (
        f"{RUNBOOK_EXAMPLE}  pipeline:\n",
        "backup.pipeline",
        ["line 28", "has no value"],
    ),
    "a section that is text": (
        f"{RUNBOOK_EXAMPLE}  pipeline: streamed\n",
        "backup.pipeline",
        ["'streamed' is not a section"],
    ),
    "text that YAML reads as a truth value": (
        f"{RUNBOOK_EXAMPLE}  pipeline: {{queue: no}}\n",
        "backup.pipeline.queue",
        ["false is not text", "quotes"],
    ),
    "a number in quotes": (
        f"{RUNBOOK_EXAMPLE}  compression: {{level: 'high'}}\n",
        "backup.compression.level",
        ["'high' is not a whole number"],
    ),
    "a number out of range": (
        f"{RUNBOOK_EXAMPLE}  compression: {{level: 22}}\n",
        "backup.compression.level",
        ["the number 22 is too large", "Write 19 or less"],
    ),
    "one address where a list belongs": (
        f"{RUNBOOK_EXAMPLE}  notifications: {{email: a@example.org}}\n",
        "backup.notifications.email",
        ["is not a list"],
    ),
    "a wrong entry of a list": (
        f"{RUNBOOK_EXAMPLE}  notifications:\n    email:\n      - a@example.org\n      - 5\n",
        "backup.notifications.email[1]",
        ["line 31", "the number 5 is not text"],
    ),
    "a relative path": (
        f"{RUNBOOK_EXAMPLE}  pipeline: {{spool: spool}}\n",
        "backup.pipeline.spool",
        ["'spool' is not an absolute path"],
    ),
    "a key that stands there twice": (
        changed('    logs: "90d"', '    logs: "90d"\n    database: "1d"'),
        "backup.retention.database",
        ["line 24", "twice", "line 19"],
    ),
    "a second top-level key": (
        f"{RUNBOOK_EXAMPLE}restore: {{}}\n",
        "restore",
        ["line 28", "one top-level key, `backup:`"],
    ),
    "no top-level key named backup": ("{}\n", "backup", ["is missing"]),
    "a backup section that is a list": ("backup: [1]\n", "backup", ["a list is not a section"]),
    "a file that is empty": ("", "", ["the file is empty", "neuroca-backup configure"]),
    "a file of comments alone": ("# nothing yet\n", "", ["the file is empty"]),
    "a file that is a list": ("- backup\n", "", ["line 1", "the file holds a list"]),
    "YAML that does not parse": (
        changed("  storage:\n", "  storage: [\n"),
        "",
        ["line 9", "this is not YAML"],
    ),
    "tabs": (
        changed('    database: "30d"', '\tdatabase: "30d"'),
        "",
        ["line 19", "this is not YAML", "Replace tabs by spaces"],
    ),
    "a date that cannot be": (
        f"{RUNBOOK_EXAMPLE}  pipeline: {{queue: 2026-13-01}}\n",
        "",
        ["number or date that cannot be"],
    ),
    "an object of a programming language": (
        f"{RUNBOOK_EXAMPLE}  pipeline: !!python/object/apply:os.getcwd []\n",
        "",
        ["line 28", "this is not YAML"],
    ),
    "a character that no text has": (
        f"{RUNBOOK_EXAMPLE}  pipeline: {{queue: '\0'}}\n",
        "",
        ["this is not YAML", "special characters are not allowed"],
    ),
    "two documents in one file": (
        f"{RUNBOOK_EXAMPLE}---\n{RUNBOOK_EXAMPLE}",
        "",
        ["this is not YAML"],
    ),
}


@pytest.mark.parametrize(("text", "path", "words"), MISTAKES.values(), ids=MISTAKES.keys())
def test_each_mistake_names_its_place_and_its_remedy(
    tmp_path: Path, text: str, path: str, words: list[str]
) -> None:
    error = refused(tmp_path, text)

    assert error.facts["path"] == path
    assert len(error.facts["mistakes"]) == 1
    for word in [path, str(tmp_path / "backup.yaml"), *words]:
        assert word in str(error)
    assert error.remedy.endswith(".")


@pytest.mark.parametrize(
    "second", ["/mnt/a", "/mnt/a/", "/mnt/b/../a", "/mnt/a/deeper", "/mnt"], ids=str
)
def test_one_directory_or_one_within_the_other_cannot_be_two_stores(
    tmp_path: Path, second: str
) -> None:
    start, end = RUNBOOK_EXAMPLE.index("  storage:"), RUNBOOK_EXAMPLE.index("  retention:")
    storage = (
        "  storage:\n    primary: {type: local, path: /mnt/a}\n"
        f"    secondary: {{type: local, path: {second}}}\n"
    )
    error = refused(tmp_path, RUNBOOK_EXAMPLE[:start] + storage + RUNBOOK_EXAMPLE[end:])

    assert error.facts["path"] == "backup.storage.secondary.path"
    assert error.facts["value"] == str(Path(second))


def test_neighbouring_directories_are_two_stores() -> None:
    section = Settings.model_fields["storage"].annotation
    assert section is not None
    storage = section.model_validate(
        {
            "primary": {"type": "local", "path": "/mnt/a"},
            "secondary": {"type": "local", "path": "/mnt/ab"},
        }
    )
    assert isinstance(storage.secondary, LocalStoreSettings)


def test_a_third_store_may_not_share_a_bucket_either(tmp_path: Path) -> None:
    tertiary = "    tertiary: {type: s3, bucket: neuroca-dr-backups, region: eu-west-1}\n"
    error = refused(tmp_path, changed("  retention:", f"{tertiary}  retention:"))

    assert error.facts["path"] == "backup.storage.tertiary.bucket"


def test_all_mistakes_of_a_file_come_in_one_error_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed('"30d"', '"30x"').replace('"0 2 * * *"', '"daily"')
    error = refused(tmp_path, f"{text}  compresion: {{}}\n{SOURCE.replace('postgresql', 'oracle')}")

    lines = str(error).splitlines()
    assert lines[0] == f"{tmp_path / 'backup.yaml'} has 4 mistakes. Mend each of them:"
    assert [line.split(" ")[1] for line in lines[1:]] == [
        "backup.schedule.database",
        "backup.retention.database",
        "backup.compresion",
        "backup.sources.postgres.engine",
    ]
    assert error.facts["path"] == "backup.schedule.database"
    assert error.facts["value"] == "daily"
    assert error.facts["line"] == 3


@pytest.mark.parametrize(
    "extra",
    [
        "  password: hunter2\n",
        "  encryption_passphrase: [hunter2]\n",
        "  catalog: {connection: 'postgresql://nca:hunter2@db/x'}\n",
        "  catalog: {connection: {password: hunter2}}\n",
        "  pipeline: {spool: /x, api_token: hunter2}\n",
        '  catalog: {connection: "hunter2\n',
        "  catalog: {a: 1, hunter2\n",
    ],
    ids=["top", "list", "address", "nested", "token", "open quote", "broken"],
)
def test_a_value_that_may_be_a_secret_is_never_shown(tmp_path: Path, extra: str) -> None:
    error = refused(tmp_path, RUNBOOK_EXAMPLE + extra)

    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error.facts)
    assert error.__context__ is None, "what the parsers said may quote the file"


def test_key_material_pasted_for_a_key_file_is_not_shown(tmp_path: Path) -> None:
    error = refused(
        tmp_path, with_encryption("    key_management: local\n    local_key_file: hunter2\n")
    )

    assert error.facts["path"] == "backup.encryption.local_key_file"
    assert "hunter2" not in str(error) + repr(error.facts)


def test_the_error_survives_pickling_with_its_facts(tmp_path: Path) -> None:
    error = refused(tmp_path, changed('"30d"', '"30x"'))

    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made two words earlier
    assert (type(copy), str(copy), copy.facts) == (type(error), str(error), error.facts)


def test_a_file_that_does_not_exist_says_how_to_make_one(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigurationError, match="does not exist") as caught:
        load(path)
    assert f"neuroca-backup configure --config-path {path}" in caught.value.remedy


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a directory"):
        load(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_bytes(b"backup: \xff\n")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text"):
        load(path)


def test_a_file_that_may_not_be_read_names_the_user(tmp_path: Path) -> None:
    path = written(tmp_path, RUNBOOK_EXAMPLE)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # The superuser may read everything, so somebody else tries.
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigurationError, match="may not be read") as caught:
            load(path)
        assert f"Let user id {os.geteuid()} read it" in caught.value.remedy
    finally:
        os.seteuid(user)


def test_aliases_and_merge_keys_of_yaml_work(tmp_path: Path) -> None:
    text = RUNBOOK_EXAMPLE.replace('      path: "/backups"\n', "", 1).replace(
        "    primary:\n", "    primary:\n      <<: &common {path: /common}\n"
    )
    assert load(written(tmp_path, text)).storage.primary.path == "/common"  # type: ignore[comparison-overlap]


def test_a_file_that_contains_itself_ends_in_an_error(tmp_path: Path) -> None:
    assert refused(tmp_path, "backup: &b\n  schedule: *b\n").facts["mistakes"]


def test_a_file_that_multiplies_its_aliases_is_refused_at_once(tmp_path: Path) -> None:
    levels = ["  l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"  l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12)]
    before = time.monotonic()
    refused(tmp_path, "backup:\n" + "\n".join(levels) + "\n")
    assert time.monotonic() - before < 2


@pytest.mark.parametrize("key", ["on", "5", "2026-01-01", "null", "[a]"])
def test_keys_that_yaml_does_not_read_as_text_are_refused(tmp_path: Path, key: str) -> None:
    error = refused(tmp_path, f"{RUNBOOK_EXAMPLE}  pipeline:\n    {key}: 5\n")

    assert error.facts["path"] == "backup.pipeline"
    assert "a key below it is not text. Put it in quotes" in str(error)


# Warnings.


def warned(folder: Path, text: str) -> list[str]:
    return warnings(load(written(folder, text)))


def quiet(text: str = RUNBOOK_EXAMPLE) -> str:
    """Return `text` with sources for everything and a second key: nothing to warn of."""
    names = ("database", "memory_tiers", "configuration", "model_weights")
    sources = "".join(
        f"    {name}_x: {{component: {name}, engine: postgresql, connection: c}}\n"
        for name in names
    )
    return f"{text}    secondary_kms_key_id: {SECONDARY_KEY}\n  sources:\n{sources}"


def test_a_complete_file_gives_no_warnings(tmp_path: Path) -> None:
    assert warned(tmp_path, quiet()) == []


def test_the_runbooks_single_key_is_warned_of(tmp_path: Path) -> None:
    found = [w for w in warned(tmp_path, RUNBOOK_EXAMPLE) if w.startswith("backup.encryption")]
    assert len(found) == 1
    assert "secondary_kms_key_id" in found[0]
    assert "recovery_public_key" in found[0]


def test_a_recovery_key_ends_the_warning_of_the_single_key(tmp_path: Path) -> None:
    text = f"{RUNBOOK_EXAMPLE}    recovery_public_key: /etc/neuroca/recovery.pem\n"
    assert not [w for w in warned(tmp_path, text) if w.startswith("backup.encryption")]


def test_a_schedule_without_sources_is_warned_of(tmp_path: Path) -> None:
    scheduled = '  schedule:\n    logs: "0 5 * * *"\n'
    found = warned(tmp_path, quiet().replace("  schedule:\n", scheduled))
    assert [w.split(":")[0] for w in found if "has no sources" in w] == ["backup.schedule.logs"]


def test_sources_without_a_schedule_are_warned_of(tmp_path: Path) -> None:
    text = quiet().replace('    database: "0 2 * * *"  # Daily at 2 AM\n', "")
    assert [
        "database_x of database are backed up by hand only" in w for w in warned(tmp_path, text)
    ] == [True]


@pytest.mark.parametrize(
    ("cron", "rpo", "gap"),
    [
        ("0 2 * * *", "24h", None),
        ("0 2 * * *", "23h", "24h"),
        ("0 2 * * 1-5", "24h", "3d"),
        ("*/5 * * * *", "5m", None),
        ("*/5 8-17 * * 1-5", "15h", "3725m"),
        ("0 1 * * 0", "7d", None),
        ("0 1 1 * *", "30d", "31d"),
        ("0 1 1 * *", "31d", None),
    ],
)
def test_an_objective_smaller_than_the_longest_gap_of_its_schedule_is_warned_of(
    tmp_path: Path, cron: str, rpo: str, gap: str | None
) -> None:
    text = quiet(changed('"0 2 * * *"', f'"{cron}"').replace('"30d"', '"90d"'))
    found = warned(tmp_path, f"{text}  objectives: {{rpo: {{database: {rpo}}}}}\n")

    if gap is None:
        assert found == []
    else:
        assert [f"leaves {gap} between two runs" in w for w in found] == [True]


def test_a_retention_that_ends_before_the_next_backup_is_warned_of(tmp_path: Path) -> None:
    found = warned(tmp_path, quiet(changed('model_weights: "180d"', 'model_weights: "6d"')))
    assert [w.startswith("backup.retention.model_weights: 6d") for w in found] == [True]


def test_two_buckets_in_one_region_are_warned_of(tmp_path: Path) -> None:
    text = RUNBOOK_EXAMPLE.replace("eu-central-1", "us-west-2")
    assert [w for w in warned(tmp_path, text) if w.startswith("backup.storage.secondary.region")]


# Values.


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("24h", 86400), ("30d", 2592000), ("2w", 1209600)]
)
def test_durations_are_whole_numbers_with_a_unit(text: str, seconds: int) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["30", "0d", "-1d", "1.5h", "30 d", "30D", "d", "", None, 30, True]
)
def test_anything_else_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["90m", "24h", "36h", "30d", "7d"])
def test_durations_are_shown_as_they_are_written(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


# Where the file is.


def test_the_variable_goes_before_every_other_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROCA_BACKUP_CONFIG", "/somewhere/backup.yaml")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert default_path() == Path("/somewhere/backup.yaml")


def test_the_file_in_airflow_home_goes_before_that_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEUROCA_BACKUP_CONFIG", raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert default_path() == SHIPPED
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "backup.yaml").touch()
    assert default_path() == tmp_path / "config" / "backup.yaml"


def test_without_any_of_them_the_file_of_the_system_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NEUROCA_BACKUP_CONFIG", raising=False)
    monkeypatch.delenv("AIRFLOW_HOME", raising=False)
    monkeypatch.setattr("neuroca_backup.settings.loading._PACKAGE", tmp_path / "a" / "b")
    assert default_path() == Path("/etc/neuroca/backup.yaml")


# The shipped file and the reference.


def fields_of(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Return the dotted name of every setting, `*` for a name of the user's own."""
    names: list[str] = []
    for name, field in section.model_fields.items():
        below = [m for m in models_in(field.annotation) if m is not section]
        path = f"{prefix}{name}"
        if not below:
            names.append(path)
        star = ".*" if "dict[" in str(field.annotation) else ""
        for model in below:
            names += fields_of(model, f"{path}{star}.")
    return names


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in getattr(annotation, "__args__", ()) for m in models_in(argument)]


def test_the_shipped_file_is_the_runbooks_example_with_daily_logs_beside_its_comments() -> None:
    expected = yaml.safe_load(RUNBOOK_EXAMPLE)
    expected["backup"]["schedule"]["logs"] = "0 5 * * *"

    assert yaml.safe_load(SHIPPED.read_text()) == expected


def test_the_shipped_file_is_valid_as_it_stands_and_with_every_setting_in_use(
    tmp_path: Path,
) -> None:
    plain = load(SHIPPED)
    full = load(written(tmp_path, uncommented(sample_text())))

    assert plain.sources == full.sources, "the commented sources are the default ones"
    assert plain.compression == full.compression, "comments show the defaults"
    assert full.storage.tertiary == LocalStoreSettings(
        type="local", path=Path("/mnt/backups/neuroca")
    )


def test_every_setting_appears_in_the_shipped_file(tmp_path: Path) -> None:
    data = yaml.safe_load(uncommented(SHIPPED.read_text()))["backup"]
    missing = []
    for name in fields_of():
        found: Any = data
        # Of the three stores one of each type is enough; the other stores have the same words.
        for word in name.split("."):
            found = next(iter(found.values())) if word == "*" else (found or {}).get(word)
            if isinstance(found, list) and found and isinstance(found[0], dict):
                # One entry of each kind: together they have every word.
                found = {word: value for entry in found for word, value in entry.items()}
        if found is None and not name.startswith("storage."):
            missing.append(name)
    stores = set().union(*data["storage"].values())
    missing += [
        n for n in fields_of() if n.startswith("storage.") and n.split(".")[2] not in stores
    ]
    assert missing == []


def test_every_setting_and_no_other_is_in_the_reference() -> None:
    documented = set(re.findall(r"^\| `([a-z_.*]+)`", REFERENCE.read_text(), flags=re.MULTILINE))
    expected = {re.sub(r"^storage\.\w+\.", "storage.*.", name) for name in fields_of()}
    assert documented == expected


def test_every_store_there_is_has_its_settings() -> None:
    annotation = Settings.model_fields["storage"].annotation
    assert annotation is not None
    models = models_in(annotation.model_fields["primary"].annotation)
    types = {model.model_fields["type"].annotation.__args__[0] for model in models}  # type: ignore[union-attr]
    assert types == set(registry.kinds(stores))


# Cost: every parse of every DAG file pays it.


def test_importing_the_settings_brings_in_nothing_heavy() -> None:
    program = "import sys, neuroca_backup.settings; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "plugins")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"boto3", "botocore", "croniter", "airflow", "psycopg", "tink", "zstandard", "pymongo"}
    assert heavy.isdisjoint(loaded)
    assert not [m for m in loaded if re.match(r"neuroca_backup\.(engines|stores|services)\.", m)]


def test_loading_the_shipped_file_takes_less_than_50_ms() -> None:
    durations = []
    for _ in range(5):
        before = time.perf_counter()
        load(SHIPPED)
        durations.append(time.perf_counter() - before)
    assert min(durations) < 0.050


def test_both_methods_of_postgresql_are_two_sources(tmp_path: Path) -> None:
    words = "nca_pg, method: both, full_every: 2d, options: {jobs: 2}, physical_options: {a: 1}"
    path = tmp_path / "backup.yaml"
    path.write_text(f"{RUNBOOK_EXAMPLE}{SOURCE.replace('nca_pg', words)}")
    sources = load(path).sources
    assert {name: (one.engine, one.options, one.method) for name, one in sources.items()} == {
        "postgres": ("postgresql", {"jobs": 2}, None),
        "postgres_physical": ("postgresql_physical", {"a": 1}, None),
    }
    assert {one.full_every for one in sources.values()} == {timedelta(days=2)}


def test_the_physical_method_alone_keeps_the_name(tmp_path: Path) -> None:
    path = tmp_path / "backup.yaml"
    path.write_text(f"{RUNBOOK_EXAMPLE}{SOURCE.replace('nca_pg', 'nca_pg, method: physical')}")
    assert {n: s.engine for n, s in load(path).sources.items()} == {
        "postgres": "postgresql_physical"
    }
