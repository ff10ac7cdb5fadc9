"""`config/backup.yaml`: what it may say, how it is read, and how its mistakes are explained.

DAG parsing imports this package, so it imports neither engines nor cloud libraries.
"""

from __future__ import annotations

from neuroca_backup.settings.cautions import warnings
from neuroca_backup.settings.loading import default_path, load, sample_text
from neuroca_backup.settings.recovery import CheckSettings, CommandSettings, RecoverySettings
from neuroca_backup.settings.recovery_objectives import RtoSettings
from neuroca_backup.settings.sections import (
    CatalogSettings,
    CompressionSettings,
    EncryptionSettings,
    LocalStoreSettings,
    NotificationSettings,
    ObjectiveSettings,
    PipelineSettings,
    RestoreSettings,
    RetentionSettings,
    RpoSettings,
    S3StoreSettings,
    ScheduleSettings,
    Settings,
    StorageSettings,
    StoreSettings,
    WatchSettings,
)
from neuroca_backup.settings.sources import SourceSettings
from neuroca_backup.settings.values import (
    Cron,
    Duration,
    format_duration,
    kms_region,
    parse_duration,
)

__all__ = [
    "CatalogSettings",
    "CheckSettings",
    "CommandSettings",
    "CompressionSettings",
    "Cron",
    "Duration",
    "EncryptionSettings",
    "LocalStoreSettings",
    "NotificationSettings",
    "ObjectiveSettings",
    "PipelineSettings",
    "RecoverySettings",
    "RestoreSettings",
    "RetentionSettings",
    "RpoSettings",
    "RtoSettings",
    "S3StoreSettings",
    "ScheduleSettings",
    "Settings",
    "SourceSettings",
    "StorageSettings",
    "StoreSettings",
    "WatchSettings",
    "default_path",
    "format_duration",
    "kms_region",
    "load",
    "parse_duration",
    "sample_text",
    "warnings",
]
