"""What each role may do: the IAM policy that is attached to it.

The actions are those that the code asks for, found by running it with these policies; see
tests/services/test_policies.py. https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroca_backup.model.audit import PREFIX as AUDIT
from neuroca_backup.model.backup_set import PREFIX as SETS
from neuroca_backup.model.erasure import PREFIX as ERASURES
from neuroca_backup.services.objectives.telling import FOLDER as MONITOR
from neuroca_backup.services.policies.places import FACTS, Bucket, buckets, keys, objects
from neuroca_backup.settings import Role, Settings

Statement = dict[str, Any]

VERSION = "2012-10-17"
# How long (seconds) after the second factor a person may still use a role.
MFA_SECONDS = 3600
CONTEXT = "kms:EncryptionContext:neuroca:backup_id"
# The form of a backup's id, so that the keys serve for the keysets of backups and nothing else.
BACKUP_ID = "????????T??????Z-????????-"

# What the engines that continue or refer to an earlier backup read of it, besides its keys.
CONTINUED: Mapping[str, tuple[str, ...]] = {
    "mongodb": (),
    "postgresql_physical": ("base/backup_manifest",),
    "logs": ("state.jsonl",),
    "model_weights": ("index.jsonl",),
}

_FACTS = tuple(f"*/{name}" for name in FACTS)
_UPLOADS = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_DELETES = (
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:BypassGovernanceRetention",
    "s3:PutBucketVersioning",
    "s3:PutLifecycleConfiguration",
)


def policy(role: Role, settings: Settings) -> dict[str, Any]:
    """Return the policy of `role`; without statements where there is neither bucket nor key."""
    found = buckets(settings)
    made = {
        Role.WRITER: lambda: _writer(found, settings),
        Role.REPLICATOR: lambda: _replicator(found, settings),
        Role.VERIFIER: lambda: _verifier(found, settings),
        Role.RESTORER: lambda: _restorer(found, settings),
        Role.RETENTION: lambda: _retention(found),
        Role.ROTATOR: lambda: _rotator(found, settings),
        Role.AUDITOR: lambda: _auditor(found),
    }[role]()
    statements = [one for one in (*made, *_trail(found, role)) if one["Resource"]]
    return {"Version": VERSION, "Statement": statements}


def with_mfa(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` for people: it allows nothing without a second factor, given lately."""
    fresh = {
        "Bool": {"aws:MultiFactorAuthPresent": "true"},
        "NumericLessThan": {"aws:MultiFactorAuthAge": str(MFA_SECONDS)},
    }
    statements = [
        {**one, "Condition": {**one.get("Condition", {}), **fresh}}
        if one["Effect"] == "Allow"
        else one
        for one in document["Statement"]
    ]
    return {**document, "Statement": statements}


def trust(account: str, *, partition: str) -> dict[str, Any]:
    """Return who may assume a role for people: those of the account, with a second factor."""
    return {
        "Version": VERSION,
        "Statement": [
            {
                "Sid": "PeopleWithASecondFactor",
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:{partition}:iam::{account}:root"},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "Bool": {"aws:MultiFactorAuthPresent": "true"},
                    "NumericLessThan": {"aws:MultiFactorAuthAge": str(MFA_SECONDS)},
                },
            }
        ],
    }


def continued_contexts(settings: Settings) -> list[str]:
    """Return the encryption contexts of the backups that the writer continues, if it may."""
    if not settings.access.incremental:
        return []
    names = [name for name, one in settings.sources.items() if one.engine in CONTINUED]
    return [f"{BACKUP_ID}{name}{end}" for name in names for end in ("", "__*")]


def _writer(found: Sequence[Bucket], settings: Settings) -> Iterator[Statement]:
    primary, others = _split(found)
    yield _list(found)
    yield _allow("ReadFacts", ["s3:GetObject"], objects(found, *_FACTS))
    yield _allow("CreateBackups", _UPLOADS, objects(primary, "*"))
    # That the source was looked at and has not changed, beside what stands for it.
    yield _allow("RecordChecks", ["s3:PutObject"], objects(others, "*/checked.json"))
    yield _lengthen_locks(_locked(primary, settings))
    yield _encrypt(settings)
    yield _deny(
        "LeaveTheMarksOfOthersAlone",
        ["s3:PutObject"],
        objects(found, "*/verification.json", "*/tombstone.json", "*/hold.json", f"{SETS}/*"),
    )
    yield _no_deletion(found)
    contexts = continued_contexts(settings)
    if not contexts:
        yield _deny("ReadNoData", ["s3:GetObject"], objects(found, "*/members/*", "*/keys.json"))
        yield _deny("OpenNoKeys", ["kms:Decrypt"], list(keys(settings).values()))
        return
    yield _allow("ReadWhatIsContinued", ["s3:GetObject"], list(_continued(found, settings)))
    yield _allow(
        "OpenWhatIsContinued", ["kms:Decrypt"], list(keys(settings).values()), contexts=contexts
    )


def _continued(found: Sequence[Bucket], settings: Settings) -> Iterator[str]:
    for name, source in settings.sources.items():
        if source.engine not in CONTINUED:
            continue
        for folder in (f"{source.component}/{name}", f"{source.component}/{name}__*"):
            names = ("keys.json", *(f"members/{one}" for one in CONTINUED[source.engine]))
            yield from objects(found, *(f"{folder}/*/{one}" for one in names))


def _replicator(found: Sequence[Bucket], settings: Settings) -> Iterator[Statement]:
    primary, others = _split(found)
    yield _list(found)
    yield _allow("ReadThePrimary", ["s3:GetObject"], objects(primary, "*"))
    yield _allow("ReadFacts", ["s3:GetObject"], objects(others, *_FACTS))
    yield _allow("CreateCopies", _UPLOADS, objects(others, "*"))
    yield _lengthen_locks(_locked(found, settings))
    yield _deny(
        "LeaveTheMarksOfOthersAlone",
        ["s3:PutObject"],
        objects(others, "*/verification.json", "*/tombstone.json", "*/hold.json", f"{SETS}/*"),
    )
    yield _no_deletion(found)


def _verifier(found: Sequence[Bucket], settings: Settings) -> Iterator[Statement]:
    yield _list(found)
    yield _allow("ReadBackups", ["s3:GetObject"], objects(found, "*"))
    yield _allow(
        "RecordResults",
        ["s3:PutObject"],
        objects(found, "*/verification.json", f"{SETS}/*", f"{MONITOR}/*"),
    )
    yield _decrypt(settings)
    yield _deny("ChangeNoData", ["s3:PutObject"], objects(found, "*/members/*"))
    yield _no_deletion(found)


def _restorer(found: Sequence[Bucket], settings: Settings) -> Iterator[Statement]:
    yield _list(found)
    yield _allow("ReadBackups", ["s3:GetObject"], objects(found, "*"))
    # What was there before an attack, and what lies in an archive.
    yield _allow("ListThePast", ["s3:ListBucketVersions", "s3:GetBucketVersioning"], _arns(found))
    yield _allow("ReadThePast", ["s3:GetObjectVersion", "s3:RestoreObject"], objects(found, "*"))
    # What a restore in place overwrites is backed up first.
    yield _allow("SaveWhatIsOverwritten", _UPLOADS, objects(found, "*"))
    yield _encrypt(settings)
    yield _decrypt(settings)
    yield _deny(
        "ExpireNothing", ["s3:PutObject"], objects(found, "*/tombstone.json", "*/hold.json")
    )
    yield _no_deletion(found)


def _retention(found: Sequence[Bucket]) -> Iterator[Statement]:
    places = [bucket.arn for bucket in found]
    yield _allow(
        "List",
        [
            "s3:ListBucket",
            "s3:ListBucketVersions",
            "s3:ListBucketMultipartUploads",
            "s3:GetBucketObjectLockConfiguration",
        ],
        places,
    )
    # Wrapped keys are read for the certificate that they were destroyed; nothing opens them here.
    yield _allow(
        "ReadFacts",
        ["s3:GetObject"],
        objects(found, *_FACTS, "*/keys.json", f"{SETS}/*", f"{ERASURES}/*"),
    )
    yield _allow(
        "SeeLocks", ["s3:GetObjectRetention", "s3:GetObjectLegalHold"], objects(found, "*")
    )
    yield _allow(
        "Mark",
        ["s3:PutObject"],
        objects(found, "*/tombstone.json", "*/hold.json", f"{ERASURES}/*"),
    )
    yield _allow(
        "Delete",
        [
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:AbortMultipartUpload",
            "s3:ListMultipartUploadParts",
        ],
        objects(found, "*"),
    )
    yield _deny("ReadNoData", ["s3:GetObject"], objects(found, "*/members/*"))
    yield _deny("ChangeNoData", ["s3:PutObject"], objects(found, "*/members/*", "*/keys.json"))
    yield _deny(
        "KeepTheTrail", ["s3:DeleteObject", "s3:DeleteObjectVersion"], objects(found, f"{AUDIT}/*")
    )


def _rotator(found: Sequence[Bucket], settings: Settings) -> Iterator[Statement]:
    yield _list(found)
    yield _allow("ReadKeysets", ["s3:GetObject"], objects(found, *_FACTS, "*/keys.json"))
    yield _allow("WriteKeysets", ["s3:PutObject"], objects(found, "*/keys.json"))
    yield _encrypt(settings)
    former = settings.key_rotation.previous_kms_key_ids
    yield _decrypt(settings, *former)
    yield _allow(
        "SeeTheAgeOfKeys",
        ["kms:DescribeKey", "kms:GetKeyRotationStatus", "kms:ListKeyRotations"],
        list(keys(settings).values()),
    )
    yield _deny(
        "ReadAndChangeNoData", ["s3:GetObject", "s3:PutObject"], objects(found, "*/members/*")
    )
    yield _no_deletion(found)


def _auditor(found: Sequence[Bucket]) -> Iterator[Statement]:
    yield _list(found)
    yield _allow("ReadFacts", ["s3:GetObject"], objects(found, *_FACTS, f"{SETS}/*"))
    yield _deny("ReadNoData", ["s3:GetObject"], objects(found, "*/members/*", "*/keys.json"))


def _trail(found: Sequence[Bucket], role: Role) -> Iterator[Statement]:
    """Whoever does something adds a line to the audit trail, after the last one there is."""
    actions = ["s3:GetObject"] if role is Role.AUDITOR else ["s3:GetObject", "s3:PutObject"]
    yield _allow("AuditTrail", actions, objects(found, f"{AUDIT}/*"))


def _locked(found: Sequence[Bucket], settings: Settings) -> list[Bucket]:
    """Return the buckets whose objects are locked, by backup.yaml."""
    named = settings.storage.named()
    return [bucket for bucket in found if named[bucket.store].lock is not None]


def _lengthen_locks(found: Sequence[Bucket]) -> Statement:
    actions = ["s3:GetObjectRetention", "s3:PutObjectRetention"]
    return _allow("LengthenLocks", actions, objects(found, "*"))


def _arns(found: Sequence[Bucket]) -> list[str]:
    return [bucket.arn for bucket in found]


def _split(found: Sequence[Bucket]) -> tuple[list[Bucket], list[Bucket]]:
    """Return the bucket that backups are written to, if it is one, and those they are copied to."""
    primary = [bucket for bucket in found if bucket.store == "primary"]
    return primary, [bucket for bucket in found if bucket.store != "primary"]


def _list(found: Sequence[Bucket]) -> Statement:
    # Without it a missing object is called a denied one, and nothing may be taken for missing.
    # Whether a bucket locks is asked by whoever writes to it or deletes from it.
    return _allow("List", ["s3:ListBucket", "s3:GetBucketObjectLockConfiguration"], _arns(found))


def _no_deletion(found: Sequence[Bucket]) -> Statement:
    places = [bucket.arn for bucket in found] + objects(found, "*")
    return _deny("DeleteNothing", _DELETES, places)


def _encrypt(settings: Settings) -> Statement:
    arns = list(keys(settings).values())
    return _allow("WrapKeysets", ["kms:Encrypt"], arns, contexts=[f"{BACKUP_ID}*"])


def _decrypt(settings: Settings, *former: str) -> Statement:
    arns = list(dict.fromkeys([*keys(settings).values(), *former]))
    return _allow("UnwrapKeysets", ["kms:Decrypt"], arns, contexts=[f"{BACKUP_ID}*"])


def _allow(
    sid: str, actions: Sequence[str], resources: Sequence[str], *, contexts: Sequence[str] = ()
) -> Statement:
    condition = {"Condition": {"StringLike": {CONTEXT: list(contexts)}}} if contexts else {}
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
        **condition,
    }


def _deny(sid: str, actions: Sequence[str], resources: Sequence[str]) -> Statement:
    return {
        "Sid": sid,
        "Effect": "Deny",
        "Action": list(actions),
        "Resource": list(resources),
    }
