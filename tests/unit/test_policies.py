"""What the generated policies say: conditions and guards that no emulator enforces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from neuroca_backup import engines, registry
from neuroca_backup.cli.app import app
from neuroca_backup.engines import Reusing
from neuroca_backup.engines.logs import state
from neuroca_backup.engines.postgresql_physical import basebackup
from neuroca_backup.errors import ConfigurationError, NotFoundError
from neuroca_backup.services.policies import documents, guards, identity
from neuroca_backup.services.policies.places import buckets
from neuroca_backup.settings import Role, Settings, load
from neuroca_backup.trees.archive import INDEX

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "backup.yaml"
SECOND_KEY = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
LONGEST_POLICY, LONGEST_BUCKET_POLICY = 6144, 20480


def settings(**access: Any) -> Settings:
    """Return what the shipped file says, with a key in each region and these words of `access`."""
    shipped = load(SHIPPED)
    encryption = shipped.encryption.model_copy(update={"secondary_kms_key_id": SECOND_KEY})
    body = {**shipped.model_dump(exclude={"encryption", "access", "sources"}), "access": access}
    return Settings.model_validate({**body, "encryption": encryption}).model_copy(
        update={"sources": shipped.sources}
    )


def policy(role: Role, **access: Any) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = identity.policy(role, settings(**access))["Statement"]
    return statements


def actions(role: Role, effect: str = "Allow", **access: Any) -> set[str]:
    return {
        action
        for one in policy(role, **access)
        if one["Effect"] == effect
        for action in one["Action"]
    }


def allowed_places(role: Role, action: str, **access: Any) -> set[str]:
    return {
        place
        for one in policy(role, **access)
        if one["Effect"] == "Allow" and action in one["Action"]
        for place in one["Resource"]
    }


def test_only_retention_may_delete_and_only_those_who_read_may_decrypt() -> None:
    deleting = {"s3:DeleteObject", "s3:DeleteObjectVersion"}

    assert {role for role in Role if actions(role) & deleting} == {Role.RETENTION}
    assert {role for role in Role if "kms:Decrypt" in actions(role)} == {
        Role.VERIFIER,
        Role.RESTORER,
        Role.ROTATOR,
    }
    assert {role for role in Role if "kms:Encrypt" in actions(role)} == {
        Role.WRITER,
        Role.RESTORER,
        Role.ROTATOR,
    }


def test_no_policy_has_an_action_or_a_resource_of_everything() -> None:
    for role in Role:
        for one in policy(role):
            assert all("*" not in action for action in one["Action"])
            assert all(place.startswith("arn:aws:") and place != "*" for place in one["Resource"])


def test_the_writer_is_denied_what_it_must_never_do_whatever_else_is_attached_to_it() -> None:
    denied = actions(Role.WRITER, "Deny")

    assert {"s3:DeleteObject", "s3:DeleteObjectVersion", "kms:Decrypt"} <= denied
    assert {"s3:PutBucketVersioning", "s3:PutLifecycleConfiguration"} <= denied
    assert allowed_places(Role.WRITER, "s3:PutObject") == {
        "arn:aws:s3:::neuroca-backups/backups/*",
        "arn:aws:s3:::neuroca-dr-backups/backups/*/checked.json",
        "arn:aws:s3:::neuroca-backups/backups/audit/*",
        "arn:aws:s3:::neuroca-dr-backups/backups/audit/*",
    }


def test_incremental_backups_let_the_writer_open_only_what_they_continue() -> None:
    (opening,) = (
        one for one in policy(Role.WRITER, incremental=True) if one["Action"] == ["kms:Decrypt"]
    )
    contexts = opening["Condition"]["StringLike"][identity.CONTEXT]

    assert {one.removeprefix(identity.BACKUP_ID) for one in contexts} == {
        *("mongodb", "mongodb__*", "models", "models__*", "logs", "logs__*")
    }
    read = allowed_places(Role.WRITER, "s3:GetObject", incremental=True)
    assert {place.rpartition("/members/")[2] for place in read if "/members/" in place} == {
        "index.jsonl",
        "state.jsonl",
    }


def test_every_engine_that_builds_on_earlier_backups_is_known() -> None:
    building = {
        kind
        for kind in registry.kinds(engines)
        if engines.named(kind).incremental or isinstance(engines.named(kind), Reusing)
    }

    assert set(identity.CONTINUED) == building
    assert identity.CONTINUED["logs"] == (state.NAME,)
    assert identity.CONTINUED["model_weights"] == (INDEX,)
    assert identity.CONTINUED["postgresql_physical"] == (basebackup.MANIFEST,)


def test_nobody_may_delete_or_replace_a_line_of_the_audit_trail() -> None:
    (kept,) = (one for one in policy(Role.RETENTION) if one["Sid"] == "KeepTheTrail")
    assert kept["Effect"] == "Deny"
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion"} == set(kept["Action"])
    assert all(place.endswith("/audit/*") for place in kept["Resource"])
    for role in Role:
        assert any(one["Sid"] == "AuditTrail" for one in policy(role))


def test_every_use_of_a_key_is_for_the_keyset_of_a_backup() -> None:
    for role in Role:
        for one in policy(role):
            if one["Effect"] == "Allow" and one["Action"][0] in {"kms:Encrypt", "kms:Decrypt"}:
                assert one["Condition"] == {
                    "StringLike": {identity.CONTEXT: [f"{identity.BACKUP_ID}*"]}
                }
    for statement in key_policy():
        if statement["Sid"] in {"WrapKeysets", "UnwrapKeysets"}:
            assert statement["Condition"]["StringLike"] == {
                identity.CONTEXT: [f"{identity.BACKUP_ID}*"]
            }


def key_policy(**access: Any) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = guards.key_policy(SECOND_KEY, settings(**access))[
        "Statement"
    ]
    return statements


def test_the_key_itself_lets_neither_the_account_nor_the_writer_open_a_keyset() -> None:
    by = {one["Sid"]: one for one in key_policy()}
    opening = by["UnwrapKeysets"]["Condition"]["ArnEquals"]["aws:PrincipalArn"]

    cryptographic = ("Encrypt", "Decrypt", "ReEncrypt", "GenerateData", "CreateGrant", "*")
    assert not [
        action
        for action in by["Administration"]["Action"]
        if any(word in action for word in cryptographic)
    ]
    assert {
        arn.removeprefix("arn:aws:iam::123456789012:role/neuroca-backup-") for arn in opening
    } == {*("verifier", "restorer", "restorer-with-mfa", "rotator", "rotator-with-mfa")}
    assert by["EndingAKeyNeedsASecondFactor"]["Condition"] == {
        "BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}
    }
    assert "ContinueBackups" not in by
    assert "ContinueBackups" in {one["Sid"] for one in key_policy(incremental=True)}


def test_people_are_allowed_nothing_without_a_fresh_second_factor() -> None:
    for role in guards.PEOPLE:
        plain = identity.policy(role, settings())
        for one, before in zip(
            identity.with_mfa(plain)["Statement"], plain["Statement"], strict=True
        ):
            if one["Effect"] == "Deny":
                assert one == before
                continue
            assert one["Condition"]["Bool"] == {"aws:MultiFactorAuthPresent": "true"}
            assert one["Condition"]["NumericLessThan"] == {"aws:MultiFactorAuthAge": "3600"}
            assert before.get("Condition", {}).items() <= one["Condition"].items()


def test_a_bucket_denies_and_never_allows() -> None:
    chosen = settings()
    bucket = buckets(chosen)[0]
    statements = guards.bucket_policy(bucket, chosen)["Statement"]
    by = {one["Sid"]: one for one in statements}

    assert {one["Effect"] for one in statements} == {"Deny"}
    assert by["TlsAlone"]["Resource"] == [
        "arn:aws:s3:::neuroca-backups",
        "arn:aws:s3:::neuroca-backups/*",
    ]
    assert by["DeletionIsForRetention"]["Condition"]["ArnNotEquals"]["aws:PrincipalArn"] == [
        "arn:aws:iam::123456789012:role/neuroca-backup-retention",
        "arn:aws:iam::123456789012:role/neuroca-backup-retention-with-mfa",
    ]
    manifests = by["ManifestsAreNeverReplaced"]["Resource"]
    assert (
        "arn:aws:s3:::neuroca-backups/backups/database/postgres/"
        "????????T??????Z-????????-postgres/manifest.json" in manifests
    )
    # A member of a model may be called manifest.json, and is written like any other.
    assert not [one for one in manifests if "/models/" in one]


def test_every_document_fits_into_what_aws_accepts() -> None:
    for one in documents.documents(settings(incremental=True)):
        if one.path.endswith(".json"):
            size = len(json.dumps(json.loads(one.text), separators=(",", ":")))
            limit = LONGEST_POLICY if one.path.startswith("iam/") else LONGEST_BUCKET_POLICY
            assert size <= limit, one.path


def test_roles_of_ones_own_and_their_account_are_used() -> None:
    arn = "arn:aws:iam::999999999999:role/ours"
    found = documents.documents(settings(roles={"retention": arn}, account="888888888888"))
    text = {one.path: one for one in found}

    assert arn in text["buckets/primary.json"].text
    assert text["iam/writer.json"].purpose.endswith(
        "arn:aws:iam::888888888888:role/neuroca-backup-writer"
    )


def test_without_an_account_nothing_is_guessed() -> None:
    body = settings().model_dump(exclude={"encryption", "sources"})
    chosen = Settings.model_validate(
        {**body, "encryption": {"key_management": "local", "local_key_file": "/k"}}
    )
    with pytest.raises(ConfigurationError, match="AWS account") as caught:
        documents.documents(chosen)
    assert "access.account" in caught.value.remedy


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    first = documents.documents(settings())
    documents.write(first, tmp_path)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    documents.write(documents.documents(settings()), tmp_path)

    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == written
    assert len(written) == len(first)


def test_a_document_that_there_is_not_is_answered_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"iam/boss\.json") as caught:
        documents.chosen(documents.documents(settings()), path="iam/boss.json")
    assert "iam/writer.json" in caught.value.remedy


def test_the_command_lists_prints_and_writes_them(tmp_path: Path) -> None:
    def run(*words: str) -> str:
        ended = CliRunner().invoke(app, ["--config-path", str(SHIPPED), "policies", *words])
        assert ended.exit_code == 0, ended.output
        return ended.output

    assert "iam/retention-with-mfa.json" in run()
    assert "iam/writer.json" not in run("--role", "auditor")
    assert json.loads(run("iam/writer.json"))["Version"] == identity.VERSION
    said = run("--role", "retention", "--output", str(tmp_path / "out"))
    assert "none was applied" in said
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.json")) == [
        "retention-with-mfa.json",
        "retention.json",
    ]


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ({"account": "12345"}, "not the id of an AWS account"),
        ({"roles": {"writer": "arn:aws:iam::123456789012:user/x"}}, "not the ARN of an IAM role"),
        (
            {
                "roles": {
                    "writer": "arn:aws:iam::123456789012:role/x",
                    "retention": "arn:aws:iam::123456789012:role/x",
                }
            },
            "one ARN for several roles",
        ),
        ({"backup_user": 'x"; DROP'}, "not a name that every database takes"),
    ],
)
def test_a_mistake_in_access_is_named(access: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**access)
