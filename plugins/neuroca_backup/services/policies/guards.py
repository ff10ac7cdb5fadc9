"""What buckets and keys themselves refuse, whatever an identity may do: their own policies."""

from __future__ import annotations

from typing import Any

from neuroca_backup import engines
from neuroca_backup.engines import Dividing
from neuroca_backup.model.audit import PREFIX as AUDIT
from neuroca_backup.services.policies.identity import (
    BACKUP_ID,
    CONTEXT,
    VERSION,
    Statement,
    continued_contexts,
)
from neuroca_backup.services.policies.places import WITH_MFA, Bucket, role_arn
from neuroca_backup.settings import Role, Settings

# What the owner of a key has to be able to do with it; none of it opens a keyset.
_ADMINISTRATION = (
    "kms:CancelKeyDeletion",
    "kms:CreateAlias",
    "kms:DeleteAlias",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListKeyPolicies",
    "kms:ListKeyRotations",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
)
_ENDING = ("kms:DisableKey", "kms:PutKeyPolicy", "kms:ScheduleKeyDeletion")
_WRAPPING = (Role.WRITER, Role.RESTORER, Role.ROTATOR)
_OPENING = (Role.VERIFIER, Role.RESTORER, Role.ROTATOR)
# Which roles have a twin for people; the others are for machines alone.
PEOPLE = (Role.RESTORER, Role.RETENTION, Role.ROTATOR, Role.AUDITOR)


def bucket_policy(bucket: Bucket, settings: Settings) -> dict[str, Any]:
    """Return the policy of one bucket; it allows nothing, so that it opens no door.

    Objects are sealed before they are sent and S3 encrypts what it stores, so that no header is
    asked for; keys that the caller brings (SSE-C) are refused: what was overwritten with one is
    lost to its owner.
    """
    everything = [bucket.arn, f"{bucket.arn}/*"]
    erasing = _with_people(settings, Role.RETENTION)
    statements = [
        _deny("TlsAlone", "s3:*", everything, {"Bool": {"aws:SecureTransport": "false"}}),
        _deny("ModernTlsAlone", "s3:*", everything, {"NumericLessThan": {"s3:TlsVersion": "1.2"}}),
        _deny(
            "NoKeysOfTheCaller",
            "s3:PutObject",
            [f"{bucket.root}*"],
            {"Null": {"s3:x-amz-server-side-encryption-customer-algorithm": "false"}},
        ),
        _deny(
            "DeletionIsForRetention",
            ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            [f"{bucket.root}*"],
            {"ArnNotEquals": {"aws:PrincipalArn": erasing}},
        ),
        _deny(
            "DeletionByPeopleNeedsASecondFactor",
            ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            [f"{bucket.root}*"],
            {
                "ArnEquals": {"aws:PrincipalArn": erasing[1:]},
                "BoolIfExists": {"aws:MultiFactorAuthPresent": "false"},
            },
        ),
        _deny(
            "ManifestsAreNeverReplaced",
            "s3:PutObject",
            _manifests(bucket, settings),
            {"Null": {"s3:if-none-match": "true"}},
        ),
        _deny(
            "TheTrailIsNeverReplaced",
            "s3:PutObject",
            [f"{bucket.root}{AUDIT}/*"],
            {"Null": {"s3:if-none-match": "true"}},
        ),
        _deny(
            "TheTrailIsNeverDeleted",
            ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            [f"{bucket.root}{AUDIT}/*"],
            {},
        ),
    ]
    return {"Version": VERSION, "Statement": [one for one in statements if one["Resource"]]}


def key_policy(key_arn: str, settings: Settings) -> dict[str, Any]:
    """Return the policy of one KMS key.

    The account may administer it. It may use it through its IAM policies only as the roles that
    are named, for the keysets of backups, so that both policies have to allow it.
    """
    area, owner = key_arn.split(":")[1], key_arn.split(":")[4]
    root = {"AWS": f"arn:{area}:iam::{owner}:root"}
    statements = [
        {
            "Sid": "Administration",
            "Effect": "Allow",
            "Principal": root,
            "Action": list(_ADMINISTRATION),
            "Resource": "*",
        },
        {
            "Sid": "EndingAKeyNeedsASecondFactor",
            "Effect": "Deny",
            "Principal": {"AWS": "*"},
            "Action": list(_ENDING),
            "Resource": "*",
            "Condition": {"BoolIfExists": {"aws:MultiFactorAuthPresent": "false"}},
        },
        _use("WrapKeysets", root, "kms:Encrypt", _all(settings, _WRAPPING), [f"{BACKUP_ID}*"]),
        _use("UnwrapKeysets", root, "kms:Decrypt", _all(settings, _OPENING), [f"{BACKUP_ID}*"]),
    ]
    contexts = continued_contexts(settings)
    if contexts:
        writer = [role_arn(settings, Role.WRITER)]
        statements.append(_use("ContinueBackups", root, "kms:Decrypt", writer, contexts))
    return {"Version": VERSION, "Statement": statements}


def _manifests(bucket: Bucket, settings: Settings) -> list[str]:
    """Return the manifests of all sources that are one thing.

    Of a source of many parts no pattern names the manifests and no member of such a name.
    """
    return [
        f"{bucket.root}{source.component}/{name}/{BACKUP_ID}{name}/manifest.json"
        for name, source in settings.sources.items()
        if not isinstance(engines.named(source.engine), Dividing)
    ]


def _all(settings: Settings, roles: tuple[Role, ...]) -> list[str]:
    return [arn for role in roles for arn in _with_people(settings, role)]


def _with_people(settings: Settings, role: Role) -> list[str]:
    arn = role_arn(settings, role)
    return [arn, f"{arn}{WITH_MFA}"] if role in PEOPLE else [arn]


def _use(
    sid: str, root: dict[str, str], action: str, roles: list[str], contexts: list[str]
) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": root,
        "Action": action,
        "Resource": "*",
        "Condition": {
            "ArnEquals": {"aws:PrincipalArn": roles},
            "StringLike": {CONTEXT: contexts},
        },
    }


def _deny(
    sid: str, action: str | list[str], resources: list[str], condition: dict[str, Any]
) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Principal": "*",
        "Action": action,
        "Resource": resources,
        **({"Condition": condition} if condition else {}),
    }
