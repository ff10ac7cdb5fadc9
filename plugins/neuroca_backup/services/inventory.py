"""What the stores hold, read from the stores themselves: no catalog is needed to find a backup."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from neuroca_backup.errors import (
    ArchivedError,
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
)
from neuroca_backup.keyring.keys_document import KeysDocument
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component, is_part_of
from neuroca_backup.model.manifest import Manifest, SealedManifest
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.model.status import Checked, Verification
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

# How far two machines' clocks may be apart before one of them is called wrong.
CLOCK_TOLERANCE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Listed:
    """One backup as the stores show it.

    `manifests`, `verifications`, `checks` and `tombstones` are by store; `problems` says, by store,
    why a store could not tell. A backup whose every manifest is damaged is still listed, with its
    problems.
    """

    ref: BackupRef
    manifests: Mapping[str, Manifest]
    verifications: Mapping[str, Verification]
    problems: Mapping[str, str]
    checks: Mapping[str, Checked] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)

    @property
    def manifest(self) -> Manifest | None:
        """A readable manifest, or None."""
        return next(iter(self.manifests.values()), None)

    @property
    def expired(self) -> bool:
        """Whether it is to be deleted: nothing is chosen any more that any store says so of."""
        return bool(self.tombstones)

    @property
    def erase_after(self) -> datetime | None:
        """Until when an expired backup can be taken back; None for any other."""
        return max((found.erase_after for found in self.tombstones.values()), default=None)

    @property
    def verified(self) -> bool:
        """Whether at least one store's copy was read back and found sound, and it has not expired.

        This is what may be chosen: to be restored, continued or referred to.
        """
        return not self.expired and any(self.sound_in(store) for store in self.manifests)

    @property
    def checked_at(self) -> datetime | None:
        """When the source was last seen to be what this holds; None if it was never looked at."""
        return max((found.checked_at for found in self.checks.values()), default=None)

    @property
    def current_at(self) -> datetime | None:
        """The latest moment whose state this brings back; None without a readable manifest.

        It is later than the backup's own where the source was since seen to be unchanged.
        """
        if self.manifest is None:
            return None
        taken = self.manifest.dump.consistent_at
        return max(taken, self.checked_at or taken)

    def sound_in(self, store: str) -> bool:
        """Return whether the copy in `store` was read back and found sound."""
        found = self.verifications.get(store)
        return store in self.manifests and found is not None and found.sound

    @property
    def damaged(self) -> bool:
        """Whether every copy that there is was found damaged when it was last read."""
        return bool(self.manifests) and all(
            store in self.verifications and self.verifications[store].findings
            for store in self.manifests
        )


@dataclass(slots=True)
class Inventory:
    """Reads backups from all stores that answer; who does not answer is remembered and named."""

    stores: Mapping[str, Store]
    unreachable: dict[str, str] = field(default_factory=dict)

    def sources(self) -> Iterator[tuple[Component, str]]:
        """Yield every component and source that any store holds backups of."""
        for component in Component:
            for source in sorted(self._folders(component.value)):
                yield component, source

    def newest_first(self, component: Component, source: str) -> Iterator[Listed]:
        """Yield the backups of a source from the newest to the oldest, read one at a time."""
        for backup_id in sorted(self._folders(f"{component}/{source}"), reverse=True):
            try:
                ref = BackupRef(backup_id=backup_id, component=component)
            except ConfigurationError:
                log.warning("%s/%s/%s is not a backup's folder", component, source, backup_id)
                continue
            found = self.look(ref)
            if found.manifests or found.problems:
                yield found

    def look(self, ref: BackupRef) -> Listed:
        """Return what every store says of one backup; nothing at all where it is in none."""
        manifests: dict[str, Manifest] = {}
        verifications: dict[str, Verification] = {}
        checks: dict[str, Checked] = {}
        tombstones: dict[str, Tombstone] = {}
        problems: dict[str, str] = dict(self.unreachable)
        for name, store in self._answering():
            try:
                sealed = read_manifest(store, ref)
                manifests[name] = manifest = sealed.manifest
                tombstone = read_tombstone(store, ref)
                if tombstone is not None:
                    tombstones[name] = tombstone
                found = read_verification(store, ref)
                require_about(found, sealed.sha256, store, ref)
                check = _check(store, manifest)
            except NotFoundError:
                continue
            except (DamagedError, ArchivedError) as error:
                problems[name] = str(error)
            except BackupError as error:
                self._lost(name, error)
                problems[name] = str(error)
            else:
                if found is not None:
                    verifications[name] = found
                if check is not None:
                    checks[name] = check
        if not manifests and problems.keys() <= self.unreachable.keys():
            problems = {}
        return Listed(
            ref=ref,
            manifests=manifests,
            verifications=verifications,
            problems=problems,
            checks=checks,
            tombstones=tombstones,
        )

    def find(
        self,
        source: str,
        *,
        component: Component,
        backup_id: str | None = None,
        before: datetime | None = None,
    ) -> Listed:
        """Return the backup to restore: by id, or the newest verified one (before a time).

        A backup whose time lies in the future was made by a machine with a wrong clock: it would
        stand before every later one, so it is chosen only where there is no other. What was saved
        before a restore is the state that somebody wanted to be rid of: never chosen unnamed.

        Raises:
            NotFoundError: There is none; says what was looked at and which stores did not answer.
            PermanentError: The backup of this id has expired, and was not taken back.
        """
        if backup_id is not None:
            return self._named(BackupRef(backup_id=backup_id, component=component))
        seen = 0
        limit = datetime.now(UTC) + CLOCK_TOLERANCE
        ahead: Listed | None = None
        for found in self.newest_first(component, source):
            manifest = found.manifest
            if manifest is None or manifest.before_restore or found.expired:
                continue
            if before is not None and manifest.started_at >= before:
                continue
            seen += 1
            if found.verified and max(found.ref.time, manifest.started_at) > limit:
                log.warning("%s is from the future: some clock is wrong", found.ref.backup_id)
                ahead = ahead or found
            elif found.verified:
                return found
        if ahead is not None:
            return ahead
        parts = sorted(one for one in self._folders(component.value) if is_part_of(one, source))
        if parts and not seen:
            raise NotFoundError(
                f"{source} is many things, and each of them is backed up by itself",
                remedy=f"Name one of: {', '.join(parts)}; or restore a backup set.",
                value=source,
            )
        when = f" from before {before.isoformat()}" if before else ""
        raise self._none(
            f"no verified backup of {source}{when} ({seen} unverified)", self.unreachable.values()
        )

    def _named(self, ref: BackupRef) -> Listed:
        found = self.look(ref)
        if found.expired:
            raise expired(found)
        if found.manifests:
            return found
        raise self._none(f"no backup {ref.backup_id}", found.problems.values())

    def _none(self, what: str, problems: Iterable[str]) -> NotFoundError:
        told = "; ".join(problems)
        return NotFoundError(
            f"There is {what} in {', '.join(self.stores)}" + (f": {told}" if told else ""),
            remedy="`neuroca-backup list` shows what there is; an unverified backup is "
            "restored by naming its id.",
        )

    def _folders(self, prefix: str) -> set[str]:
        found: set[str] = set()
        for name, store in self._answering():
            try:
                found.update(store.folders(prefix))
            except BackupError as error:
                self._lost(name, error)
        if len(self.unreachable) == len(self.stores):
            raise StoreUnavailableError(
                "No store answers: " + "; ".join(self.unreachable.values()),
                remedy="Mend the network or the credentials of one of them.",
            )
        return found

    def _answering(self) -> list[tuple[str, Store]]:
        return [(name, one) for name, one in self.stores.items() if name not in self.unreachable]

    def _lost(self, name: str, error: BackupError) -> None:
        log.warning("Store %s is left out: %s", name, error)
        self.unreachable[name] = str(error)


def holds(store: Store, ref: BackupRef) -> bool:
    """Return whether `store` has a manifest of `ref`, in whatever state: without, no backup."""
    try:
        store.stat(ref.manifest_key)
    except NotFoundError:
        return False
    return True


def read_manifest(store: Store, ref: BackupRef) -> SealedManifest:
    """Return the manifest of `ref` in `store`; a damaged one is an error that names both."""
    return SealedManifest.decode(
        store.get(ref.manifest_key), name=f"{store.name}:{ref.manifest_key}", ref=ref
    )


def read_keys(store: Store, manifest: Manifest) -> KeysDocument:
    """Return the wrapped keys of a backup; those of another one in their place are damage."""
    return keys_at(store, manifest.ref, manifest.attempt)


def keys_at(store: Store, ref: BackupRef, attempt: str) -> KeysDocument:
    """Return the wrapped keys of one attempt at a backup, whose manifest may be gone by now."""
    key = ref.keys_key(attempt)
    name = f"{store.name}:{key}"
    found = KeysDocument.decode(store.get(key), name=name)
    if found.backup_id != ref.backup_id:
        raise DamagedError(
            f"{name} holds the keys of another backup, {found.backup_id}",
            remedy="Restore from another store, then replicate this backup again.",
            key=key,
        )
    return found


def read_verification(store: Store, ref: BackupRef) -> Verification | None:
    """Return the newest check's result beside the manifest, or None where there was no check."""
    name = f"{store.name}:{ref.verification_key}"
    try:
        found = Verification.model_validate(
            document.decode(store.get(ref.verification_key), name=name)
        )
    except NotFoundError:
        return None
    except ValidationError:
        raise DamagedError(
            f"{name} is not a verification result",
            remedy="Verify the backup again; that replaces it.",
            key=ref.verification_key,
        ) from None
    if found.backup_id != ref.backup_id or found.store != store.name:
        raise DamagedError(
            f"{name} is about {found.backup_id} in {found.store}",
            remedy="Verify the backup again; that replaces it.",
            key=ref.verification_key,
        )
    return found


def require_about(
    found: Verification | None, manifest_sha256: str, store: Store, ref: BackupRef
) -> None:
    """Raise `DamagedError` where a result is about another manifest than the one that is there."""
    if found is not None and found.manifest not in {"", manifest_sha256}:
        raise DamagedError(
            f"{store.name}:{ref.verification_key} is about another manifest than the one beside it",
            remedy="Find out who replaced either; verifying the backup again replaces the result.",
            key=ref.verification_key,
        )


def read_tombstone(store: Store, ref: BackupRef) -> Tombstone | None:
    """Return what says in `store` that `ref` is to be deleted, or None."""
    try:
        data = store.get(ref.tombstone_key)
    except NotFoundError:
        return None
    return Tombstone.decode(data, name=f"{store.name}:{ref.tombstone_key}", ref=ref)


def read_hold(store: Store, ref: BackupRef) -> Hold | None:
    """Return what says in `store` that `ref` must not be deleted, or None; it may be over."""
    try:
        data = store.get(ref.hold_key)
    except NotFoundError:
        return None
    return Hold.decode(data, name=f"{store.name}:{ref.hold_key}", ref=ref)


def expired(found: Listed) -> PermanentError:
    """Return the error of a backup that is named although it is to be deleted."""
    backup_id = found.ref.backup_id
    if any(one.erasing_since is not None for one in found.tombstones.values()):
        return PermanentError(
            f"{backup_id} is being deleted: it is no backup any more",
            remedy="Choose another one; `neuroca-backup list` shows what there is.",
            backup_id=backup_id,
        )
    until = found.erase_after
    assert until is not None  # noqa: S101 - an expired backup has a tombstone
    return PermanentError(
        f"{backup_id} has expired; it can be taken back until "
        f"{until.isoformat(timespec='seconds')}",
        remedy=f"Run `neuroca-backup retention undelete {backup_id}`, then repeat this.",
        backup_id=backup_id,
    )


def read_checked(store: Store, ref: BackupRef) -> Checked | None:
    """Return when the source was last seen to be what `ref` holds; None if it never was."""
    name = f"{store.name}:{ref.checked_key}"
    try:
        found = Checked.model_validate(document.decode(store.get(ref.checked_key), name=name))
    except NotFoundError:
        return None
    except ValidationError:
        found = None
    if found is None or found.backup_id != ref.backup_id:
        raise DamagedError(
            f"{name} does not say when {ref.backup_id} was last checked",
            remedy="The next check of the unchanged source replaces it; or delete it.",
            key=ref.checked_key,
        )
    return found


def _check(store: Store, manifest: Manifest) -> Checked | None:
    """Return what `read_checked` does; a damaged one counts as none, for no restore needs it."""
    fingerprint = manifest.dump.facts.get("fingerprint")
    if fingerprint is None:
        return None  # nobody can have looked: the stores need not be asked
    try:
        found = read_checked(store, manifest.ref)
    except DamagedError as error:
        log.warning("The last check of %s does not count: %s", manifest.backup_id, error)
        return None
    if found is not None and found.fingerprint != fingerprint:
        log.warning("The last check of %s was of something else", manifest.backup_id)
        return None
    return found
