"""The sections of `config/backup.yaml` as typed, frozen settings.

The runbook's example loads unchanged; everything it does not mention has a default.
"""

from __future__ import annotations

import os.path
from datetime import timedelta
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from neuroca_backup.model.identity import Component, whole_source
from neuroca_backup.model.retrieval import ARCHIVES
from neuroca_backup.settings.access import AccessSettings, ClassificationSettings
from neuroca_backup.settings.affected import AffectedSettings
from neuroca_backup.settings.agreement import AgreementSettings
from neuroca_backup.settings.archive import (
    ArchiveSettings,
    LockSettings,
    StorageClass,
    TertiaryRetentionSettings,
)
from neuroca_backup.settings.monitoring import MonitorSettings
from neuroca_backup.settings.recovery import RecoverySettings, mistaken
from neuroca_backup.settings.recovery_objectives import RtoSettings
from neuroca_backup.settings.restore_test import RestoreTestSettings
from neuroca_backup.settings.rotation import KeyRotationSettings
from neuroca_backup.settings.sanitise import RuleSettings
from neuroca_backup.settings.sources import SourceSettings, by_method, default_sources
from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import (
    AbsolutePath,
    AlwaysTrue,
    BucketName,
    ConnectionId,
    Cron,
    Duration,
    KeyArn,
    Seconds,
    SourceName,
    format_duration,
    kms_region,
    refused,
)
from neuroca_backup.settings.verification import VerificationSettings

# No run of a backup takes longer: what is older belongs to runs that were killed.
LONGEST_RUN = timedelta(days=3)


class ScheduleSettings(Strict):
    """When each component is backed up (cron, UTC). A component left out is not scheduled."""

    database: Cron | None = None
    memory_tiers: Cron | None = None
    configuration: Cron | None = None
    model_weights: Cron | None = None
    logs: Cron | None = None

    def of(self, component: Component) -> str | None:
        """Return the cron expression of `component`, or None where it is not scheduled."""
        cron: str | None = getattr(self, component.value)
        return cron


class S3StoreSettings(Strict):
    """A bucket. `connection` is an Airflow AWS connection; without it the SDK's chain is used."""

    type: Literal["s3"]
    bucket: BucketName
    region: str = Field(min_length=1)
    path: str = ""
    connection: ConnectionId | None = None
    storage_class: StorageClass = "STANDARD"
    lock: LockSettings | None = None


class LocalStoreSettings(Strict):
    """A directory, e.g. a mounted NAS. Who owns a directory can delete it, so it has no `lock`."""

    type: Literal["local"]
    path: AbsolutePath
    lock: None = None

    @field_validator("lock", mode="before")
    @classmethod
    def _no_lock(cls, value: object) -> None:
        if value is not None:
            raise refused(
                "cannot be had in a directory: whoever may write there may delete as well",
                "Lock a store of type s3, and leave it out here.",
            )


StoreSettings = Annotated[S3StoreSettings | LocalStoreSettings, Field(discriminator="type")]


class StorageSettings(Strict):
    """The stores; no two of them may be the same place."""

    primary: StoreSettings
    secondary: StoreSettings
    tertiary: StoreSettings | None = None

    def named(self) -> dict[str, S3StoreSettings | LocalStoreSettings]:
        """Return the configured stores by name, in the order of preference."""
        stores = {"primary": self.primary, "secondary": self.secondary, "tertiary": self.tertiary}
        return {name: store for name, store in stores.items() if store is not None}

    @model_validator(mode="after")
    def _readable_at_once(self) -> StorageSettings:
        found = []
        for name in ("primary", "secondary"):
            word = getattr(getattr(self, name), "storage_class", "STANDARD")
            if word in ARCHIVES:
                error = refused(
                    "is an archive: each restore and each check would wait hours for it",
                    "Use it for the tertiary store; here write STANDARD, STANDARD_IA or "
                    "GLACIER_IR.",
                )
                found.append(((name, "storage_class"), word, error))
        if found:
            raise disagreement("storage", found)
        return self

    @model_validator(mode="after")
    def _different_places(self) -> StorageSettings:
        found = []
        for (first, a), (second, b) in combinations(self.named().items(), 2):
            if _same_place(a, b):
                noun = "bucket" if isinstance(b, S3StoreSettings) else "path"
                error = refused(
                    f"is the place of the {first} store, too, so one loss would take both copies",
                    f"Give each store a {noun} of its own, best in another region or machine.",
                )
                found.append(((second, noun), str(getattr(b, noun)), error))
        if found:
            raise disagreement("storage", found)
        return self


def _same_place(
    a: S3StoreSettings | LocalStoreSettings, b: S3StoreSettings | LocalStoreSettings
) -> bool:
    if isinstance(a, S3StoreSettings) or isinstance(b, S3StoreSettings):
        buckets = {getattr(a, "bucket", None), getattr(b, "bucket", None)}
        return len(buckets) == 1
    # Compared as written: asking the file system here could hang DAG parsing on a dead mount.
    one, other = Path(os.path.normpath(a.path)), Path(os.path.normpath(b.path))
    return one.is_relative_to(other) or other.is_relative_to(one)


class RetentionSettings(Strict):
    """How long backups of each component are kept, and how they are deleted after that.

    The periods are the runbook's. Of every source the newest `keep_verified` verified backups stay
    whatever their age. What has expired can be taken back for `grace`; what runs left behind is
    removed after `leftovers`. More than `most_at_once` percent of a source's verified backups
    expire only when somebody confirms it.
    """

    database: Duration = timedelta(days=30)
    memory_tiers: Duration = timedelta(days=14)
    configuration: Duration = timedelta(days=90)
    model_weights: Duration = timedelta(days=180)
    logs: Duration = timedelta(days=90)
    keep_verified: int = Field(default=3, ge=1, le=1000, strict=True)
    grace: Duration = timedelta(days=7)
    leftovers: Duration = LONGEST_RUN
    most_at_once: int = Field(default=50, ge=1, le=100, strict=True)
    schedule: Cron = "0 6 * * *"
    tertiary: TertiaryRetentionSettings = TertiaryRetentionSettings()

    def of(self, component: Component) -> timedelta:
        """Return the retention of `component`."""
        period: timedelta = getattr(self, component.value)
        return period

    @model_validator(mode="after")
    def _longer_than_any_run(self) -> RetentionSettings:
        words = {
            "leftovers": "would be removed while a run still writes them",
            "grace": "could be deleted while a run still comes to build on them",
        }
        found = []
        for name, harm in words.items():
            period: timedelta = getattr(self, name)
            if period < LONGEST_RUN:
                error = refused(
                    f"is shorter than the longest run, so that objects {harm}",
                    f"Write {LONGEST_RUN.days}d or more.",
                )
                found.append(((name,), format_duration(period), error))
        if found:
            raise disagreement("retention", found)
        return self


class EncryptionSettings(Strict):
    """Who can unwrap the keys of a backup. Encryption cannot be turned off.

    Any one of the keys is enough to restore, so a lost region does not take the backups with it.
    """

    enabled: AlwaysTrue = True
    key_management: Literal["kms", "local"]
    kms_key_id: KeyArn | None = None
    kms_connection: ConnectionId | None = None
    secondary_kms_key_id: KeyArn | None = None
    secondary_kms_connection: ConnectionId | None = None
    recovery_public_key: AbsolutePath | None = None
    local_key_file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _has_its_key(self) -> EncryptionSettings:
        needed = {"kms": "kms_key_id", "local": "local_key_file"}[self.key_management]
        if getattr(self, needed) is None:
            examples = {
                "kms_key_id": "the full ARN of a KMS key in the primary store's region",
                "local_key_file": "the absolute path of a key file",
            }
            context = {
                "problem": f"is missing, and `key_management: {self.key_management}` needs it",
                "remedy": f"Write {examples[needed]}.",
            }
            error = PydanticCustomError("absent", "{problem}; {remedy}", context)
            raise disagreement("encryption", [((needed,), None, error)])
        return self


class RpoSettings(Strict):
    """How much data may be lost at most; the defaults are the runbook's."""

    database: Duration = timedelta(hours=24)
    memory_tiers: Duration = timedelta(hours=24)
    configuration: Duration = timedelta(days=7)
    model_weights: Duration | None = None
    logs: Duration | None = None

    def of(self, component: Component) -> timedelta | None:
        """Return the objective of `component`, or None where there is none."""
        objective: timedelta | None = getattr(self, component.value)
        return objective


class ObjectiveSettings(Strict):
    """Recovery point and recovery time objectives."""

    rpo: RpoSettings = RpoSettings()
    rto: RtoSettings = RtoSettings()


class PipelineSettings(Strict):
    """How the stages run: `staged` (six tasks over a spool) or `streamed` (one process, no disk).

    `spool` must be visible to every worker that runs a stage; `queue` pins the stages to one.
    `workers` is how many members are handled at once.
    """

    mode: Literal["staged", "streamed"] = "staged"
    spool: AbsolutePath = Path("/var/spool/neuroca-backup")
    queue: str | None = Field(default=None, min_length=1)
    workers: int = Field(default=2, ge=1, le=64, strict=True)


class CompressionSettings(Strict):
    """zstd. Level 3 is the knee of the curve; `threads` are per member."""

    level: int = Field(default=3, ge=1, le=19, strict=True)
    threads: int = Field(default=2, ge=0, le=64, strict=True)


class WatchSettings(Strict):
    """How the configuration is watched, so that a change of it starts its backup.

    It is looked at `every` so many seconds, and backed up once it has stayed the same for `settle`
    seconds. Watching reads the files where Airflow's triggerer runs.
    """

    enabled: bool = Field(default=True, strict=True)
    every: Seconds = 10.0
    settle: Seconds = 10.0


class RestoreSettings(Strict):
    """Who has to agree before Airflow restores in place.

    `approvals` is how many people other than the one who triggered it: 1, or 0 for nobody.
    `response_timeout` is how long their answer is waited for; without one nothing is restored.
    """

    approvals: Literal[0, 1] = 1
    response_timeout: Duration = timedelta(hours=24)


class CatalogSettings(Strict):
    """The connection of the PostgreSQL database that holds the catalog."""

    connection: ConnectionId | None = None


class NotificationSettings(Strict):
    """Who is told when something fails: SMTP addresses and an SNS topic, by connection id."""

    email: tuple[str, ...] = ()
    smtp_connection: ConnectionId | None = None
    sns_topic_arn: str | None = Field(default=None, pattern=r"^arn:aws[a-z-]*:sns:")
    sns_connection: ConnectionId | None = None


class Settings(Strict):
    """Everything under `backup:`."""

    schedule: ScheduleSettings
    storage: StorageSettings
    retention: RetentionSettings
    encryption: EncryptionSettings
    sources: dict[SourceName, SourceSettings] = Field(default_factory=default_sources, min_length=1)
    objectives: ObjectiveSettings = ObjectiveSettings()
    monitor: MonitorSettings = MonitorSettings()
    pipeline: PipelineSettings = PipelineSettings()
    compression: CompressionSettings = CompressionSettings()
    watch: WatchSettings = WatchSettings()
    catalog: CatalogSettings = CatalogSettings()
    notifications: NotificationSettings = NotificationSettings()
    restore: RestoreSettings = RestoreSettings()
    verification: VerificationSettings = VerificationSettings()
    key_rotation: KeyRotationSettings = KeyRotationSettings()
    archive: ArchiveSettings = ArchiveSettings()
    recovery: RecoverySettings = RecoverySettings()
    services: dict[Component, tuple[AffectedSettings, ...]] = Field(default_factory=dict)
    agreement: tuple[AgreementSettings, ...] = ()
    classification: ClassificationSettings = ClassificationSettings()
    access: AccessSettings = AccessSettings()
    restore_test: RestoreTestSettings = RestoreTestSettings()
    sanitise: dict[SourceName, tuple[RuleSettings, ...]] = Field(default_factory=dict)

    @field_validator("sources")
    @classmethod
    def _by_method(cls, sources: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        return by_method(sources)

    @model_validator(mode="after")
    def _every_source_has_a_priority(self) -> Settings:
        found = list(mistaken(self.recovery, self.sources))
        if found:
            raise disagreement("Settings", found)
        return self

    @model_validator(mode="after")
    def _keys_in_their_regions(self) -> Settings:
        found = []
        for field, store_name in (("kms_key_id", "primary"), ("secondary_kms_key_id", "secondary")):
            arn = getattr(self.encryption, field)
            store = getattr(self.storage, store_name)
            if arn is None or not isinstance(store, S3StoreSettings):
                continue
            region = kms_region(arn)
            if region != store.region:
                error = refused(
                    f"is a key of {region}, but the {store_name} store is in {store.region}",
                    f"Write the ARN of a key in {store.region}.",
                )
                found.append((("encryption", field), arn, error))
        if found:
            raise disagreement("Settings", found)
        return self

    @model_validator(mode="after")
    def _agreements_of_sources(self) -> Settings:
        found: list[tuple[tuple[str, ...], str, PydanticCustomError]] = []
        names: set[str] = set()
        for index, one in enumerate(self.agreement):
            for word in ("every", "among"):
                source: str = getattr(one, word).source
                if source not in self.sources:
                    error = refused("is not a source", f"Write one of {', '.join(self.sources)}.")
                    found.append((("agreement", str(index), word, "source"), source, error))
            if one.name in names:
                error = refused("is the name of another one, too", "Give each its own.")
                found.append((("agreement", str(index), "name"), one.name, error))
            names.add(one.name)
        if found:
            raise disagreement("Settings", found)
        return self

    @model_validator(mode="after")
    def _of_known_sources(self) -> Settings:
        remedy = f"Use one of: {', '.join(self.sources)}."
        places = [
            *(("sanitise", name) for name in self.sanitise),
            *(("restore_test", "connections", name) for name in self.restore_test.connections),
        ]
        found = [
            (place, place[-1], refused("is not a source", remedy))
            for place in places
            if place[-1] not in self.sources
        ]
        if found:
            raise disagreement("Settings", found)
        return self

    @model_validator(mode="after")
    def _grace_for_restores(self) -> Settings:
        if self.retention.grace < self.objectives.rto.longest:
            error = refused(
                "is shorter than the longest recovery time objective, so that a backup could be "
                "deleted while it is restored",
                "Write a longer time.",
            )
            written = format_duration(self.retention.grace)
            raise disagreement("Settings", [(("retention", "grace"), written, error)])
        return self

    @model_validator(mode="after")
    def _objectives_of_sources(self) -> Settings:
        found = []
        for name, own in self.objectives.rto.also.items():
            for source in own.sources:
                if self.source(source) is None:
                    error = refused("is not a source", f"Use one of: {', '.join(self.sources)}.")
                    place = ("objectives", "rto", "also", name, "sources")
                    found.append((place, source, error))
        if found:
            raise disagreement("Settings", found)
        return self

    @model_validator(mode="after")
    def _tertiary_for_longest(self) -> Settings:
        found = []
        for component in Component:
            near = self.retention.of(component)
            far = self.retention.tertiary.of(component, nearby=near)
            if far < near:
                error = refused(
                    f"is shorter than retention.{component.value}, so that the cold copy would go "
                    "before the others",
                    f"Write {format_duration(near)} or more.",
                )
                place = ("retention", "tertiary", component.value)
                found.append((place, format_duration(far), error))
        if found:
            raise disagreement("Settings", found)
        return self

    def sources_of(self, component: Component) -> dict[str, SourceSettings]:
        """Return the sources of `component` by name."""
        return {n: s for n, s in self.sources.items() if s.component == component}

    def source(self, name: str) -> SourceSettings | None:
        """Return the source `name`, or the one that it is a part of; None where there is none."""
        return self.sources.get(name) or self.sources.get(whole_source(name))
