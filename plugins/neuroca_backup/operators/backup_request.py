"""The form of the backup DAGs: its fields, and what they mean once they are checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from neuroca_backup.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.services.backup import BackupType

# `services.backup.BackupType` in the order of the form; a DAG file does not pay for its import.
BACKUP_TYPES = ("auto", "full", "incremental")


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """The fields of the form; the DAGs' params have the same names."""

    backup_type: str = "auto"

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> BackupRequest:
        """Return the request that `params` describe; none of them is a scheduled run's.

        Raises:
            ConfigurationError: A field is unknown, or its value is no choice.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The backup form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        request = cls(**params)
        if request.backup_type not in BACKUP_TYPES:
            raise ConfigurationError(
                f"backup_type: {request.backup_type!r} is not a choice",
                remedy=f"Use one of: {', '.join(BACKUP_TYPES)}.",
                value=request.backup_type,
            )
        return request

    @property
    def type(self) -> BackupType:
        """What the service is asked for."""
        from neuroca_backup.services.backup import BackupType  # noqa: PLC0415 - only in a task

        return BackupType(self.backup_type)
