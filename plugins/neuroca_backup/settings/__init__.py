"""`config/backup.yaml`: what it may say, how it is read, and how its mistakes are explained.

DAG parsing imports this package, so it imports neither engines nor cloud libraries.
"""

from __future__ import annotations

from neuroca_backup.model.role import Role
from neuroca_backup.settings.access import AccessSettings, ClassificationSettings
from neuroca_backup.settings.agreement import AgreementSettings, ReferenceSettings
from neuroca_backup.settings.archive import (
    ArchiveSettings,
    Copying,
    LockSettings,
    TertiaryRetentionSettings,
)
from neuroca_backup.settings.cautions import warnings
from neuroca_backup.settings.loading import default_path, load, sample_text
from neuroca_backup.settings.monitoring import MonitorSettings
from neuroca_backup.settings.recovery import CheckSettings, CommandSettings, RecoverySettings
from neuroca_backup.settings.recovery_objectives import RtoSettings
from neuroca_backup.settings.restore_test import RestoreTestSettings
from neuroca_backup.settings.rotation import KeyRotationSettings
from neuroca_backup.settings.sanitise import RuleSettings
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
from neuroca_backup.settings.verification import VerificationSettings

__all__ = [
    "AccessSettings",
    "AgreementSettings",
    "ArchiveSettings",
    "CatalogSettings",
    "CheckSettings",
    "ClassificationSettings",
    "CommandSettings",
    "CompressionSettings",
    "Copying",
    "Cron",
    "Duration",
    "EncryptionSettings",
    "KeyRotationSettings",
    "LocalStoreSettings",
    "LockSettings",
    "MonitorSettings",
    "NotificationSettings",
    "ObjectiveSettings",
    "PipelineSettings",
    "RecoverySettings",
    "ReferenceSettings",
    "RestoreSettings",
    "RestoreTestSettings",
    "RetentionSettings",
    "Role",
    "RpoSettings",
    "RtoSettings",
    "RuleSettings",
    "S3StoreSettings",
    "ScheduleSettings",
    "Settings",
    "SourceSettings",
    "StorageSettings",
    "StoreSettings",
    "TertiaryRetentionSettings",
    "VerificationSettings",
    "WatchSettings",
    "default_path",
    "format_duration",
    "kms_region",
    "load",
    "parse_duration",
    "sample_text",
    "warnings",
]
