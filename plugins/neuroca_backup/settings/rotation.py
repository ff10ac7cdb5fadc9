"""When the keys are looked at, and which older ones still open backups."""

from __future__ import annotations

from datetime import timedelta

from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import AbsolutePath, ConnectionId, Cron, Duration, KeyArn


class KeyRotationSettings(Strict):
    """How often the keys are looked at, and after how long one is due to be rotated.

    `previous_kms_key_ids` and `previous_local_key_files` open older backups until those are wrapped
    anew; nothing is wrapped for them any more. `previous_kms_connection` is for keys of another
    account; without it the connection of the store in the key's region is used.
    """

    schedule: Cron = "0 7 1 * *"
    remind_after: Duration = timedelta(days=365)
    previous_kms_key_ids: tuple[KeyArn, ...] = ()
    previous_kms_connection: ConnectionId | None = None
    previous_local_key_files: tuple[AbsolutePath, ...] = ()
