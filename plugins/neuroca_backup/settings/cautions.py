"""What a valid `backup.yaml` says that its owner may not have meant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from neuroca_backup.model.identity import Component
from neuroca_backup.settings.cron import gap_longer_than
from neuroca_backup.settings.sections import EncryptionSettings, S3StoreSettings, Settings
from neuroca_backup.settings.values import format_duration
from neuroca_backup.settings.verification import VerificationSettings

# What is deleted earlier is paid for nevertheless: https://aws.amazon.com/s3/pricing/
_BILLED_FOR = {
    "STANDARD_IA": timedelta(days=30),
    "GLACIER_IR": timedelta(days=90),
    "GLACIER": timedelta(days=90),
    "DEEP_ARCHIVE": timedelta(days=180),
}


def warnings(settings: Settings) -> list[str]:
    """Return a sentence for everything in `settings` that is allowed and yet dangerous."""
    return [
        *(sentence for c in Component for sentence in _of_component(settings, c)),
        *_of_stores(settings),
        *_of_verification(settings.verification),
        *_of_tertiary(settings),
        *_of_keys(settings.encryption),
    ]


def _of_component(settings: Settings, component: Component) -> Iterator[str]:
    cron = settings.schedule.of(component)
    sources = settings.sources_of(component)
    if cron is None:
        if sources:
            yield (
                f"backup.sources: {', '.join(sources)} of {component} are backed up by hand only. "
                f"Write a cron expression under backup.schedule.{component}."
            )
        return
    if not sources:
        yield (
            f"backup.schedule.{component}: {component} has no sources, so nothing is backed up. "
            f"Name one under backup.sources with `component: {component}`."
        )
    rpo = settings.objectives.rpo.of(component)
    gap = None if rpo is None else gap_longer_than(cron, rpo)
    if rpo is not None and gap is not None:
        yield (
            f"backup.objectives.rpo.{component}: {format_duration(rpo)} cannot be met, because "
            f"{cron!r} leaves {format_duration(gap)} between two runs. "
            "Schedule it more often, or accept a longer objective."
        )
    retention = settings.retention.of(component)
    gap = gap_longer_than(cron, retention)
    if gap is not None:
        yield (
            f"backup.retention.{component}: {format_duration(retention)} ends before the next "
            f"backup, because {cron!r} leaves {format_duration(gap)} between two runs. "
            "Keep backups longer, or schedule them more often."
        )


def _of_stores(settings: Settings) -> Iterator[str]:
    primary, secondary = settings.storage.primary, settings.storage.secondary
    if (
        isinstance(primary, S3StoreSettings)
        and isinstance(secondary, S3StoreSettings)
        and primary.region == secondary.region
    ):
        yield (
            f"backup.storage.secondary.region: both stores are in {primary.region}, so its outage "
            "takes both copies. Use a bucket in another region."
        )


def _of_verification(verification: VerificationSettings) -> Iterator[str]:
    gap = gap_longer_than(verification.schedule, verification.window)
    if gap is not None:
        yield (
            f"backup.verification.window: {format_duration(verification.window)} cannot be met, "
            f"because {verification.schedule!r} leaves {format_duration(gap)} between two runs. "
            "Schedule it more often, or accept a longer window."
        )


def _of_tertiary(settings: Settings) -> Iterator[str]:
    tertiary = settings.storage.tertiary
    if not isinstance(tertiary, S3StoreSettings):
        return
    least = _BILLED_FOR.get(tertiary.storage_class)
    for component in Component:
        kept = settings.retention.tertiary.of(component, nearby=settings.retention.of(component))
        if least is not None and kept < least:
            yield (
                f"backup.retention.tertiary.{component}: {format_duration(kept)} is shorter than "
                f"the {format_duration(least)} that S3 bills for in {tertiary.storage_class}. "
                "Keep the copies longer, or choose another storage_class."
            )


def _of_keys(encryption: EncryptionSettings) -> Iterator[str]:
    if encryption.recovery_public_key is not None:
        return
    if encryption.key_management == "kms" and encryption.secondary_kms_key_id is None:
        yield (
            "backup.encryption: only the KMS key of the primary's region opens the backups, so "
            "without that region the secondary's copies cannot be read. Set secondary_kms_key_id, "
            "recovery_public_key or both."
        )
    if encryption.key_management == "local":
        yield (
            "backup.encryption: only local_key_file opens the backups; whoever loses it loses them "
            "all. Keep a copy of it elsewhere, or set recovery_public_key."
        )
