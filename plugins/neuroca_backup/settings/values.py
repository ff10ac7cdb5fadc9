"""The values of `backup.yaml` that are more than text: durations, cron expressions, key ARNs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from neuroca_backup.model.identity import EVERYTHING, is_source_name, whole_source
from neuroca_backup.settings.cron import is_cron, next_run

_EPOCH = datetime.fromtimestamp(0, tz=UTC)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHORT_UNITS = {"s": 1, "m": 60, "h": 3600}
_SHORT = re.compile(r"([1-9]\d{0,4})([smh])", re.ASCII)
# Five digits of weeks are 1,900 years: more would leave the range of dates.
_DURATION = re.compile(r"([1-9]\d{0,4})([mhdw])", re.ASCII)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:key/\S+", re.ASCII)
_CONNECTION = re.compile(r"[A-Za-z0-9_.-]+")


def refused(problem: str, remedy: str) -> PydanticCustomError:
    """Return the error of a value; `problem` is a predicate: `is not a duration`."""
    return PydanticCustomError(
        "refused", "{problem}; {remedy}", {"problem": problem, "remedy": remedy}
    )


def parse_duration(value: Any) -> timedelta:
    """Return the duration written as a whole number and a unit: `90m`, `24h`, `30d`, `2w`."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refused(
            "is not a duration",
            "Write a whole number and a unit (m, h, d or w) without a space, such as 30d.",
        )
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def format_duration(duration: timedelta) -> str:
    """Return `duration` as `backup.yaml` writes it, in the largest unit that fits: 30d, 36h."""
    minutes = int(duration.total_seconds() // 60)
    if minutes % (24 * 60) == 0 and minutes > 24 * 60:
        return f"{minutes // (24 * 60)}d"
    return f"{minutes // 60}h" if minutes % 60 == 0 else f"{minutes}m"


def _seconds(value: Any) -> float:
    """Return the seconds of a short duration: `10s`, `5m`, `1h`."""
    if isinstance(value, float):
        return value
    match = _SHORT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise refused(
            "is not a short duration",
            "Write a whole number and a unit (s, m or h) without a space, such as 10s.",
        )
    return float(int(match[1]) * _SHORT_UNITS[match[2]])


def _valid_cron(value: str) -> str:
    if not is_cron(value):
        raise refused(
            "is not a cron expression",
            'Write five fields in quotes: minute hour day month weekday, such as "0 2 * * *".',
        )
    try:
        next_run(value, after=_EPOCH)
    except ValueError:
        raise refused(
            "is a cron expression that never comes due",
            "Write a day that its months have, or `*`.",
        ) from None
    return value


def kms_region(key_arn: str) -> str:
    """Return the region in the ARN of a KMS key, or raise `ValueError`."""
    match = _KEY_ARN.fullmatch(key_arn)
    if match is None:
        raise refused(
            "is not the full ARN of a KMS key",
            "Write arn:aws:kms:REGION:ACCOUNT:key/ID; `aws kms describe-key` prints it.",
        )
    return match["region"]


def _key_arn(value: str) -> str:
    if "alias/" in value:
        raise refused(
            "is an alias, and aliases do not resolve in an outage",
            "Write the full ARN of the key itself; `aws kms describe-key --key-id ALIAS` prints it",
        )
    kms_region(value)
    return value


def _absolute(value: Path) -> Path:
    if not value.is_absolute():
        raise refused(
            "is not an absolute path",
            "Write it from the root, such as /var/lib/x: processes start in different directories.",
        )
    return value


def _bucket(value: str) -> str:
    if _BUCKET.fullmatch(value) is None:
        raise refused(
            "is not the name of a bucket",
            "Write its name alone, 3 to 63 lower-case letters, digits, hyphens and dots, "
            "and the folder within it under `path`.",
        )
    return value


def _connection(value: str) -> str:
    if _CONNECTION.fullmatch(value) is None:
        raise refused(
            "is not a connection id",
            "Write the id of an Airflow connection; addresses and passwords belong in it, not here",
        )
    return value


def _source_name(value: str) -> str:
    if not is_source_name(value):
        raise refused(
            "is not a source's name",
            "Use lower-case letters, digits and underscores, beginning with a letter.",
        )
    if value == EVERYTHING:
        raise refused(
            "is what the command calls all sources together",
            "Give the source another name.",
        )
    if whole_source(f"{value}_") != f"{value}_":
        raise refused(
            "has two underscores side by side, or one at its end",
            "Those are for the parts of a source; write one underscore between two words.",
        )
    return value


def _never_off(value: bool) -> bool:  # noqa: FBT001 - pydantic passes the value alone
    if not value:
        raise refused(
            "would store backups in clear, and every backup is encrypted",
            "Remove the line; `key_management: local` needs nothing but a key file.",
        )
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Seconds = Annotated[float, BeforeValidator(_seconds)]
Cron = Annotated[str, AfterValidator(_valid_cron)]
KeyArn = Annotated[str, AfterValidator(_key_arn)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
ConnectionId = Annotated[str, AfterValidator(_connection)]
BucketName = Annotated[str, AfterValidator(_bucket)]
SourceName = Annotated[str, AfterValidator(_source_name)]
AlwaysTrue = Annotated[bool, Field(strict=True), AfterValidator(_never_off)]
