"""`config/backup.yaml` as typed, frozen settings. The runbook's example file loads unchanged."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from neuroca_backup.model.identity import Component, is_source_name

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(value: Any) -> timedelta:
    """Return the duration written as a whole number and a unit: `90m`, `24h`, `30d`, `2w`."""
    match = re.fullmatch(r"([1-9]\d*)([mhdw])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a whole number and a unit (m, h, d or w), such as 30d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _valid_cron(value: str) -> str:
    from croniter import croniter  # noqa: PLC0415 - DAG parsing must not pay for it twice

    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise ValueError('write a cron expression of five fields, such as "0 2 * * *"')
    return value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Cron = Annotated[str, AfterValidator(_valid_cron)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScheduleSettings(_Strict):
    """When each component is backed up (cron, UTC). A component left out is not scheduled."""

    database: Cron | None = None
    memory_tiers: Cron | None = None
    configuration: Cron | None = None
    model_weights: Cron | None = None
    logs: Cron | None = None


class S3StoreSettings(_Strict):
    """A bucket. `connection` is an Airflow AWS connection; without it the SDK's chain is used."""

    type: Literal["s3"]
    bucket: str = Field(min_length=3)
    region: str = Field(min_length=1)
    path: str = ""
    connection: str | None = None


class LocalStoreSettings(_Strict):
    """A directory, e.g. a mounted NAS."""

    type: Literal["local"]
    path: Path


StoreSettings = Annotated[S3StoreSettings | LocalStoreSettings, Field(discriminator="type")]


class StorageSettings(_Strict):
    """The stores; primary and secondary must be different places."""

    primary: StoreSettings
    secondary: StoreSettings
    tertiary: StoreSettings | None = None

    def named(self) -> dict[str, S3StoreSettings | LocalStoreSettings]:
        """Return the configured stores by name, in the order of preference."""
        stores = {"primary": self.primary, "secondary": self.secondary, "tertiary": self.tertiary}
        return {name: store for name, store in stores.items() if store is not None}


class RetentionSettings(_Strict):
    """How long verified backups of each component are kept; the defaults are the runbook's."""

    database: Duration = timedelta(days=30)
    memory_tiers: Duration = timedelta(days=14)
    configuration: Duration = timedelta(days=90)
    model_weights: Duration = timedelta(days=180)
    logs: Duration = timedelta(days=90)

    def of(self, component: Component) -> timedelta:
        """Return the retention of `component`."""
        period: timedelta = getattr(self, component.value)
        return period


class EncryptionSettings(_Strict):
    """Who can unwrap the keys of a backup. Encryption cannot be turned off."""

    enabled: bool = True
    key_management: Literal["kms", "local"]
    kms_key_id: str | None = None
    kms_connection: str | None = None
    secondary_kms_key_id: str | None = None
    secondary_kms_connection: str | None = None
    recovery_public_key: Path | None = None
    local_key_file: Path | None = None


class SourceSettings(_Strict):
    """One thing to dump: its component, engine and connection; `options` are the engine's."""

    component: Component
    engine: str
    connection: str
    options: dict[str, Any] = {}


class RpoSettings(_Strict):
    """How much data may be lost at most; the defaults are the runbook's."""

    database: Duration = timedelta(hours=24)
    memory_tiers: Duration = timedelta(hours=24)
    configuration: Duration = timedelta(days=7)
    model_weights: Duration | None = None
    logs: Duration | None = None


class RtoSettings(_Strict):
    """How long a recovery may take at most; the defaults are the runbook's."""

    database: Duration = timedelta(hours=4)
    memory_tiers: Duration = timedelta(hours=6)
    full_system: Duration = timedelta(hours=12)


class ObjectiveSettings(_Strict):
    """Recovery point and recovery time objectives."""

    rpo: RpoSettings = RpoSettings()
    rto: RtoSettings = RtoSettings()


class PipelineSettings(_Strict):
    """How the stages run: `staged` (six tasks over a spool) or `streamed` (one process, no disk).

    `spool` must be visible to every worker that runs a stage; `queue` pins the stages to one.
    `workers` is how many members are handled at once.
    """

    mode: Literal["staged", "streamed"] = "staged"
    spool: Path = Path("/var/spool/neuroca-backup")
    queue: str | None = None
    workers: int = Field(default=2, ge=1, le=64)


class CompressionSettings(_Strict):
    """zstd. Level 3 is the knee of the curve; `threads` are per member."""

    level: int = Field(default=3, ge=1, le=19)
    threads: int = Field(default=2, ge=0, le=64)


class CatalogSettings(_Strict):
    """The connection of the PostgreSQL database that holds the catalog."""

    connection: str | None = None


class NotificationSettings(_Strict):
    """Who is told when something fails: SMTP addresses and an SNS topic, by connection id."""

    email: tuple[str, ...] = ()
    smtp_connection: str | None = None
    sns_topic_arn: str | None = None
    sns_connection: str | None = None


def _default_sources() -> dict[str, SourceSettings]:
    return {
        "postgres": SourceSettings(
            component=Component.DATABASE, engine="postgresql", connection="neuroca_postgres"
        )
    }


class Settings(_Strict):
    """Everything under `backup:`."""

    schedule: ScheduleSettings
    storage: StorageSettings
    retention: RetentionSettings
    encryption: EncryptionSettings
    sources: dict[str, SourceSettings] = Field(default_factory=_default_sources, min_length=1)
    objectives: ObjectiveSettings = ObjectiveSettings()
    pipeline: PipelineSettings = PipelineSettings()
    compression: CompressionSettings = CompressionSettings()
    catalog: CatalogSettings = CatalogSettings()
    notifications: NotificationSettings = NotificationSettings()

    @model_validator(mode="after")
    def _source_names(self) -> Settings:
        for name in self.sources:
            if not is_source_name(name):
                raise ValueError(
                    f"sources.{name}: a source's name is lower-case letters, digits and underscores"
                )
        return self

    def sources_of(self, component: Component) -> dict[str, SourceSettings]:
        """Return the sources of `component` by name."""
        return {n: s for n, s in self.sources.items() if s.component == component}
