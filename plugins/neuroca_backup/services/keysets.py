"""The keysets that the members of one backup are sealed with: its own, and those of its origins."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from neuroca_backup.errors import BackupError, TransientError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.model.manifest import Manifest, Member
from neuroca_backup.services.inventory import keys_at
from neuroca_backup.stores import Store


class Keysets:
    """Gives the keyset of every member; that of an earlier backup is unwrapped when first needed.

    Whoever unwraps a keyset of an earlier backup need not authenticate it: what it opens is held
    against the digests in `manifest`, which has proven itself.

    Args:
        manifest: The backup whose members are read.
        own: Its own keyset.
        stores: Where the keys of earlier backups are looked for, in this order.
        keyring: Who can unwrap them.
    """

    def __init__(
        self, manifest: Manifest, own: Keyset, *, stores: Sequence[Store], keyring: Keyring
    ) -> None:
        self._manifest = manifest
        self._stores = stores
        self._keyring = keyring
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Keyset | BackupError] = {
            (manifest.backup_id, manifest.attempt): own
        }

    def of(self, member: Member) -> Keyset:
        """Return the keyset that `member` is sealed with; may be called from several threads.

        Raises:
            NotFoundError, DamagedError: The keys.json of the backup that holds it is gone or bad.
            KeyUnavailableError: No recipient could unwrap that keyset.
            TransientError: One of the stores did not answer, so a later call may succeed.
        """
        origin = self._manifest.origin_of(member)
        place = (origin.backup_id, origin.attempt)
        with self._lock:
            if place not in self._known:
                self._known[place] = self._unwrapped(self._manifest.holder_of(member), place[1])
            found = self._known[place]
        if isinstance(found, BackupError):
            raise found
        return found

    def _unwrapped(self, holder: BackupRef, attempt: str) -> Keyset | BackupError:
        """Return the keyset, or the error: thousands of members must not ask for it again each."""
        answers: list[BackupError] = []
        for store in self._stores:
            name = f"{store.name}:{holder.keys_key(attempt)}"
            try:
                keys = keys_at(store, holder, attempt)
                return self._keyring.unwrap(keys, backup_id=holder.backup_id, name=name)
            except BackupError as error:
                answers.append(error)
        return next((one for one in answers if isinstance(one, TransientError)), answers[0])
