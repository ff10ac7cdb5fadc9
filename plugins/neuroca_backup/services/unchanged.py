"""Sources that have not changed: an earlier backup stands for the one that need not be made."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from neuroca_backup.errors import BackupError, ChainBrokenError, TransientError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.status import Checked
from neuroca_backup.model.tickets import Ticket
from neuroca_backup.services import chains
from neuroca_backup.services.inventory import CLOCK_TOLERANCE, Inventory, Listed
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


def check(
    stores: Mapping[str, Store],
    ref: BackupRef,
    fingerprint: Callable[[], str],
    *,
    engine: str,
    full_every: timedelta,
) -> Ticket | None:
    """Return the ticket of the backup that holds what the source is now, or None to make `ref`.

    That backup's "last checked" is then renewed in every store. `fingerprint` reads the source; it
    is called only where a backup could stand for this one.

    Raises:
        BackupError: The source's or a store's own.
    """
    now = datetime.now(UTC)
    found = newest(Inventory(stores), ref, engine=engine, full_every=full_every, now=now)
    if found is None or found.manifest is None:
        return None
    current = fingerprint()
    if found.manifest.dump.facts["fingerprint"] != current:
        return None
    checked = Checked(backup_id=found.ref.backup_id, checked_at=now, fingerprint=current)
    renew(stores, found.ref, checked)
    log.info("%s is unchanged: it is what %s holds", ref.source, found.ref.backup_id)
    return Ticket(
        backup_id=found.ref.backup_id,
        component=ref.component.value,
        stage="unchanged",
        place="",
        members=len(found.manifest.members),
        size=found.manifest.stored_size,
        checked_at=now.isoformat(),
    )


def backed_up(
    stores: Mapping[str, Store], component: Component, source: str, *, fingerprint: str
) -> bool:
    """Return whether the newest verified backup of `source` holds what has this fingerprint.

    Raises:
        StoreUnavailableError: No store answers.
    """
    for found in Inventory(stores).newest_first(component, source):
        if found.verified and found.manifest is not None and not found.manifest.before_restore:
            return bool(found.manifest.dump.facts.get("fingerprint") == fingerprint)
    return False


def newest(
    inventory: Inventory, ref: BackupRef, *, engine: str, full_every: timedelta, now: datetime
) -> Listed | None:
    """Return the newest verified backup before `ref`, if it may stand for it.

    An older one with the same content may not, as a restore of the newest would not bring it back.
    It and its chain have to be sound in every store, and not older than `full_every`, so that no
    backup expires while it stands for others.
    """
    for found in inventory.newest_first(ref.component, ref.source):
        manifest = found.manifest
        if found.ref.backup_id >= ref.backup_id or not found.verified:
            continue
        if manifest is None or manifest.before_restore:
            continue
        if manifest.engine != engine or "fingerprint" not in manifest.dump.facts:
            return None
        try:
            chain = chains.gather(inventory, found)
        except ChainBrokenError as error:
            log.warning("%s cannot stand for %s: %s", found.ref.backup_id, ref.backup_id, error)
            return None
        age = now - chains.manifests(chain)[0].started_at
        sound = all(link.sound_in(store) for link in chain for store in inventory.stores)
        return found if sound and -CLOCK_TOLERANCE <= age <= full_every else None
    return None


def renew(stores: Mapping[str, Store], ref: BackupRef, checked: Checked) -> None:
    """Write `checked` beside the manifest of `ref` in every store.

    Raises:
        BackupError: A store's own, after all others were written.
    """
    data = document.encode(checked.model_dump(mode="json"))
    errors: list[BackupError] = []
    for name, store in stores.items():
        try:
            store.put(ref.checked_key, data)
        except BackupError as error:
            log.error("%s was not told of the check: %s", name, error)  # noqa: TRY400 - raised below
            errors.append(error)
    if errors:
        raise next((one for one in errors if isinstance(one, TransientError)), errors[0])
