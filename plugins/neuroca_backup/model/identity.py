"""Names of things: components, backup sets, backups, attempts and their object keys."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from neuroca_backup.errors import ConfigurationError

_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_BACKUP = re.compile(
    rf"(?P<time>[0-9]{{8}}T[0-9]{{6}}Z)-(?P<run>[0-9a-f]{{8}})-(?P<source>{_SOURCE.pattern})"
)
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
# Between a source that is many things and one of them; so it is in no name of backup.yaml.
_PART = "__"
_LONGEST_SOURCE = 63
_UNIQUE_DIGITS = 8
# What stands for every source; so no source is called that.
EVERYTHING = "all"


class Component(StrEnum):
    """What `backup.yaml` schedules; each has a schedule, a retention and objectives."""

    DATABASE = "database"
    MEMORY_TIERS = "memory_tiers"
    CONFIGURATION = "configuration"
    MODEL_WEIGHTS = "model_weights"
    LOGS = "logs"


# The order in which a whole system comes back: what others need goes first.
RESTORE_ORDER = (
    Component.CONFIGURATION,
    Component.DATABASE,
    Component.MEMORY_TIERS,
    Component.MODEL_WEIGHTS,
    Component.LOGS,
)


class Classification(StrEnum):
    """How far what a backup holds may be shown, the freest first."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"


def set_id(*, at: datetime, run: str) -> str:
    """Return the id of the backup set of one run, e.g. `20261123T020000Z-1f0c9a3e`.

    The same `at` (aware) and `run` always give the same id, so a retried task works on the same
    backup; ids sort by UTC time.
    """
    if at.tzinfo is None:
        raise ValueError(f"set_id needs an aware datetime, got {at!r}")
    digest = hashlib.sha256(run.encode()).hexdigest()[:8]
    return f"{at.astimezone(UTC).strftime(_TIME_FORMAT)}-{digest}"


def attempt_token() -> str:
    """Return a fresh token that keeps two attempts at the same backup apart."""
    return secrets.token_hex(4)


@dataclass(frozen=True, order=True, slots=True)
class BackupRef:
    """Which backup: its component and its id, which ends in the name of its source.

    Everything stored for it lives under `prefix`.
    """

    backup_id: str
    component: Component

    def __post_init__(self) -> None:
        if not _is_backup_id(self.backup_id):
            raise ConfigurationError(
                f"{self.backup_id!r} is not a backup id",
                remedy="Backup ids look like 20261123T020000Z-1f0c9a3e-postgres; "
                "`neuroca-backup list` prints them.",
                value=self.backup_id,
            )

    @classmethod
    def of(cls, set_id: str, component: Component, source: str) -> BackupRef:
        """Return the backup of `source` within the set `set_id`."""
        return cls(backup_id=f"{set_id}-{source}", component=component)

    @classmethod
    def of_key(cls, key: str) -> BackupRef | None:
        """Return the backup whose prefix `key` is or lies under, or None where it is of none."""
        component, source, backup_id, *_ = (*key.split("/"), "", "")
        if component not in set(Component):
            return None
        try:
            ref = cls(backup_id, Component(component))
        except ConfigurationError:
            return None
        return ref if ref.source == source else None

    @property
    def source(self) -> str:
        """The name of the source, e.g. `postgres`."""
        return self._part("source")

    @property
    def set_id(self) -> str:
        """The id of the backup set."""
        return f"{self._part('time')}-{self._part('run')}"

    @property
    def time(self) -> datetime:
        """When the run was due, in UTC."""
        return datetime.strptime(self._part("time"), _TIME_FORMAT).replace(tzinfo=UTC)

    @property
    def prefix(self) -> str:
        """Where the backup lives in every store: `<component>/<source>/<backup id>`."""
        return f"{self.component}/{self.source}/{self.backup_id}"

    @property
    def manifest_key(self) -> str:
        """The object whose presence makes this a backup."""
        return f"{self.prefix}/manifest.json"

    @property
    def checked_key(self) -> str:
        """When the source was last seen to be what this backup holds, one in each store."""
        return f"{self.prefix}/checked.json"

    @property
    def verification_key(self) -> str:
        """The newest verification result, one in each store."""
        return f"{self.prefix}/verification.json"

    @property
    def tombstone_key(self) -> str:
        """What says that this backup is to be deleted, one in each store."""
        return f"{self.prefix}/tombstone.json"

    @property
    def hold_key(self) -> str:
        """What says that this backup must not be deleted, one in each store."""
        return f"{self.prefix}/hold.json"

    def keys_key(self, attempt: str) -> str:
        """The wrapped keyset; kept with the attempt, so no other attempt can overwrite it."""
        return f"{self.prefix}/{attempt}/keys.json"

    def member_key(self, attempt: str, member: str) -> str:
        """The stored bytes of one member of one attempt."""
        return f"{self.prefix}/{attempt}/members/{member}"

    def _part(self, name: str) -> str:
        match = _BACKUP.fullmatch(self.backup_id)
        assert match is not None  # noqa: S101 - checked at construction
        return match[name]


def _is_backup_id(text: str) -> bool:
    match = _BACKUP.fullmatch(text)
    if match is None:
        return False
    try:
        datetime.strptime(match["time"], _TIME_FORMAT)  # noqa: DTZ007 - only whether it is one
    except ValueError:
        return False
    return True


def is_source_name(name: str) -> bool:
    """Return whether `name` can name a source (it becomes part of ids and object keys)."""
    return _SOURCE.fullmatch(name) is not None


def part_name(source: str, part: str) -> str:
    """Return what the part `part` of `source` is called in ids and keys: `models__llama_3`.

    A name of other characters than lower-case letters, digits and underscores, or one that is too
    long, is rewritten, and gets eight digits of its SHA-256 so that no two become one.

    Raises:
        ConfigurationError: The part has no name, or the source's leaves no room for it.
    """
    room = _LONGEST_SOURCE - len(source) - len(_PART)
    if not part or room <= _UNIQUE_DIGITS + 1:
        raise ConfigurationError(
            f"The part {part!r} of {source} cannot be given a name of its own",
            remedy="Give the thing a name, and the source in backup.yaml a shorter one.",
            value=part,
        )
    slug = re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_")
    if slug != part or len(slug) > room:
        unique = hashlib.sha256(part.encode()).hexdigest()[:_UNIQUE_DIGITS]
        slug = f"{slug[: room - _UNIQUE_DIGITS - 1]}_{unique}".lstrip("_")
    return f"{source}{_PART}{slug}"


def whole_source(name: str) -> str:
    """Return the source of backup.yaml that `name`, the source itself or a part of it, is of."""
    return name.partition(_PART)[0]


def is_part_of(name: str, source: str) -> bool:
    """Return whether `name` is the name of a part of `source`."""
    return name.startswith(f"{source}{_PART}")
