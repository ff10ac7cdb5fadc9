"""The keyring: the data keys of one backup, wrapped separately for every recipient."""

from __future__ import annotations

from typing import Protocol


class Recipient(Protocol):
    """Someone who can be given the keyset of a backup; one file each.

    `kind` and `id` are written to keys.json; they say who can unwrap, and hold no secret.
    """

    kind: str
    id: str

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        """Return `secret` (at most 190 bytes) wrapped for this recipient, bound to `backup_id`."""
        ...

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:
        """Return the secret.

        Raises:
            AccessDeniedError, UnreachableError, DamagedError, KeyUnavailableError: With the reason.
        """
        ...
