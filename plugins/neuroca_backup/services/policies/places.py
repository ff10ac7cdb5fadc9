"""The buckets, the keys and the roles of `backup.yaml` as the ARNs that policies speak of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.settings import Role, S3StoreSettings, Settings, kms_region

# What lies beside the members of a backup and holds no data of the source.
FACTS = ("manifest.json", "verification.json", "checked.json", "tombstone.json", "hold.json")

# The end of the name of a role that a person assumes, with a second factor.
WITH_MFA = "-with-mfa"


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of one store; `root` is the ARN of all our objects in it, up to the last slash."""

    store: str
    name: str
    arn: str
    root: str

    @classmethod
    def of(cls, store: str, settings: S3StoreSettings) -> Bucket:
        """Return the bucket of the store that `settings` describe."""
        arn = f"arn:{partition(settings.region)}:s3:::{settings.bucket}"
        folders = [part for part in settings.path.split("/") if part]
        return cls(store, settings.bucket, arn, "/".join([arn, *folders, ""]))


def buckets(settings: Settings) -> tuple[Bucket, ...]:
    """Return the stores that are buckets, in the order of preference."""
    named = settings.storage.named()
    return tuple(
        Bucket.of(name, one) for name, one in named.items() if isinstance(one, S3StoreSettings)
    )


def objects(found: Sequence[Bucket], *patterns: str) -> list[str]:
    """Return the ARNs of what each of `patterns` names in each bucket; `*` stands for any text."""
    return [f"{bucket.root}{pattern}" for bucket in found for pattern in patterns]


def keys(settings: Settings) -> dict[str, str]:
    """Return the ARN of each KMS key by the store whose region it is of."""
    encryption = settings.encryption
    named = {"primary": encryption.kms_key_id, "secondary": encryption.secondary_kms_key_id}
    return {name: arn for name, arn in named.items() if arn is not None}


def partition(region: str) -> str:
    """Return the partition of AWS that a region is of."""
    for start, name in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if region.startswith(start):
            return name
    return "aws"


def account(settings: Settings) -> str:
    """Return the id of the account that the roles are of.

    Raises:
        ConfigurationError: Nothing in backup.yaml says it.
    """
    if settings.access.account is not None:
        return settings.access.account
    for arn in (*keys(settings).values(), *settings.access.roles.values()):
        return arn.split(":")[4]
    raise ConfigurationError(
        "backup.yaml does not say of which AWS account the roles are",
        remedy="Write its 12 digits, in quotes, as access.account.",
        path="access.account",
    )


def role_arn(settings: Settings, role: Role) -> str:
    """Return the ARN of the IAM role of `role`."""
    written = settings.access.roles.get(role)
    if written is not None:
        return written
    regions = [kms_region(arn) for arn in keys(settings).values()]
    regions += [
        one.region for one in settings.storage.named().values() if isinstance(one, S3StoreSettings)
    ]
    area = partition(regions[0]) if regions else "aws"
    return f"arn:{area}:iam::{account(settings)}:role/neuroca-backup-{role}"
