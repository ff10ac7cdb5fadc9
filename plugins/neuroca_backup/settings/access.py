"""The sections `access` and `classification` of `backup.yaml`: who may do what, with which data."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from neuroca_backup.model.role import Role
from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import refused

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_USER = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)


def _account(value: str) -> str:
    if _ACCOUNT.fullmatch(value) is None:
        raise refused("is not the id of an AWS account", "Write its 12 digits in quotes.")
    return value


def _role_arn(value: str) -> str:
    if _ROLE_ARN.fullmatch(value) is None:
        raise refused(
            "is not the ARN of an IAM role", "Write arn:aws:iam::ACCOUNT:role/NAME, without `*`."
        )
    return value


def _user(value: str) -> str:
    if _USER.fullmatch(value) is None:
        raise refused(
            "is not a name that every database takes",
            "Use lower-case letters, digits and underscores, beginning with a letter.",
        )
    return value


def _day(value: Any) -> date | None:
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise refused("is not a day", "Write it like 2026-11-01, without a time.") from None


AccountId = Annotated[str, AfterValidator(_account)]
RoleArn = Annotated[str, AfterValidator(_role_arn)]
UserName = Annotated[str, AfterValidator(_user)]


class AccessSettings(Strict):
    """What `neuroca-backup policies` writes its documents from; nothing here is applied.

    `account` is the AWS account of the roles; without it that of `kms_key_id`. A role without an
    ARN in `roles` is `neuroca-backup-<role>` of that account. `queues` are the Airflow queues of
    workers that have one role each; a role without one runs where it always did. With
    `incremental` the writer may read what it needs to continue earlier backups; without, sources
    that could do so are backed up in full. `backup_user` and `restore_user` are the database users.
    """

    account: AccountId | None = None
    roles: dict[Role, RoleArn] = Field(default_factory=dict)
    queues: dict[Role, Annotated[str, Field(min_length=1)]] = Field(default_factory=dict)
    incremental: bool = Field(default=False, strict=True)
    backup_user: UserName = "neuroca_backup"
    restore_user: UserName = "neuroca_restore"

    @field_validator("roles")
    @classmethod
    def _each_its_own(cls, roles: dict[Role, str]) -> dict[Role, str]:
        if len(set(roles.values())) < len(roles):
            raise refused(
                "has one ARN for several roles, which then could do what all of them may",
                "Give each role an ARN of its own.",
            )
        return roles


class ClassificationSettings(Strict):
    """When the owners of the data last agreed with the `classification` of every source."""

    reviewed: Annotated[date | None, BeforeValidator(_day)] = None
