"""Rotation: keysets are wrapped for the recipients of today, and no data is touched.

Only keys.json is rewritten, one by one, each on condition that it is still what was read. What was
done shows in the documents themselves, so a run that was killed is repeated, and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    PermanentError,
    TransientError,
)
from neuroca_backup.keyring import Recipient
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.keyring.recovery import RecoveryPublicKey
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.services.audit import DONE, FAILED, Audit
from neuroca_backup.services.inventory import keys_at, read_manifest
from neuroca_backup.services.retention.erasing import attempt_of
from neuroca_backup.services.retention.survey import sources
from neuroca_backup.stores import ObjectVersion, Replacing, Store, Versioning

log = logging.getLogger(__name__)

_NAMED = 20  # of what may be thousands, so many are named


@runtime_checkable
class Renewable(Protocol):
    """A recipient that knows when its key was made or rotated."""

    def renewed_at(self) -> datetime:
        """Return when (aware) that was."""
        ...


@dataclass(frozen=True, slots=True)
class StaleKeys:
    """One keys.json that is not wrapped for exactly the recipients of today.

    `old` can open it and should not, `lacking` should and cannot. `days` is how long ago it was
    wrapped.
    """

    store: str
    backup_id: str
    attempt: str
    old: tuple[str, ...]
    lacking: tuple[str, ...]
    days: int

    def __str__(self) -> str:
        parts = [f"{self.store}: {self.backup_id}, wrapped {self.days} days ago"]
        if self.old:
            parts.append(f"still opened by {', '.join(self.old)}")
        if self.lacking:
            parts.append(f"not opened by {', '.join(self.lacking)}")
        return "; ".join(parts)


@dataclass(slots=True)
class SourceKeys:
    """What is known of the keys of one source, over all stores; counts of keys.json.

    `stale` are the first twenty of those that are not `current`. `older` are versions that a store
    keeps of rewritten ones: whoever has an old key can read those. `problems` says what could not
    be read or done.
    """

    component: Component
    source: str
    documents: int = 0
    current: int = 0
    rotated: int = 0
    older: int = 0
    purged: int = 0
    stale: list[StaleKeys] = field(default_factory=list)
    oldest_days: int = 0
    problems: list[str] = field(default_factory=list)
    transient: bool = True

    @property
    def remaining(self) -> int:
        """How many are not wrapped for exactly the recipients of today."""
        return self.documents - self.current

    @property
    def clean(self) -> bool:
        """Whether everything was read and is current."""
        return not self.remaining and not self.problems


@dataclass(frozen=True, slots=True)
class KeyAge:
    """How old a recipient's key is, in days; `warning` is "" where there is nothing to do."""

    label: str
    days: int | None
    warning: str = ""
    due: bool = False


class Rotation:
    """Wraps keysets anew.

    Args:
        stores: Every configured store by name.
        recipients: Those that every backup is to be wrapped for.
        opening: Everyone who can open what is wrapped now: those of today, and former ones.
        audit: The audit trail.
        remind_after: How old a key may become.
        clock: What time it is, aware.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        recipients: Sequence[Recipient],
        opening: Keyring,
        audit: Audit,
        remind_after: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._recipients = tuple(recipients)
        self._sealing = Keyring(recipients)
        self._wanted = {_label(one) for one in recipients}
        self._opening = opening
        self._audit = audit
        self._remind_after = remind_after
        self._clock = clock

    def sources(self) -> Sequence[tuple[Component, str]]:
        """Return every component and source that any store has anything of.

        Raises:
            BackupError: A store's own; all of them have to answer.
        """
        return sources(self._stores)

    def status(self, component: Component, source: str) -> SourceKeys:
        """Return which keys of a source are wrapped for whom; nothing is opened or written."""
        return self._walk(component, source, self._look)

    def rotate(self, component: Component, source: str, *, purge_old: bool = False) -> SourceKeys:
        """Wrap every keyset of a source for the recipients of today, and return what is left.

        With `purge_old`, stores that keep versions lose the ones that former keys open. What cannot
        be done is among the problems; the others are.

        Raises:
            BackupError: The audit trail takes no line, so nothing was done.
        """
        subject = f"{component}/{source}"
        wanted = {"recipients": sorted(self._wanted), "purge_old": purge_old}
        self._audit.require("rotate keys", subject, details=wanted)

        def work(store: Store, ref: BackupRef, attempt: str, found: SourceKeys) -> None:
            self._rotate(store, ref, attempt, found)
            if purge_old:
                self._purge(store, ref, attempt, found)
            self._look(store, ref, attempt, found)

        done = self._walk(component, source, work)
        self._audit.note(
            "rotate keys",
            subject,
            result=DONE if done.clean else FAILED,
            details={
                "documents": done.documents,
                "rotated": done.rotated,
                "purged": done.purged,
                "remaining": done.remaining,
                "problems": len(done.problems),
            },
        )
        return done

    def ages(self) -> Sequence[KeyAge]:
        """Return how old the key of every recipient is that can tell; unknown is a warning."""
        found: list[KeyAge] = []
        for one in self._recipients:
            if not isinstance(one, Renewable):
                continue
            label = _label(one)
            try:
                age = self._clock() - one.renewed_at()
            except BackupError as error:
                found.append(KeyAge(label, None, f"its age is not known: {error.problem}"))
                continue
            due = age > self._remind_after
            days = self._remind_after.days
            warning = f"it was not rotated for more than {days} days" if due else ""
            found.append(KeyAge(label, age.days, warning, due=due))
        return found

    def _walk(
        self,
        component: Component,
        source: str,
        work: Callable[[Store, BackupRef, str, SourceKeys], None],
    ) -> SourceKeys:
        """Do `work` with every keys.json of every store; errors are in the result."""
        found = SourceKeys(component, source)
        for store in self._stores.values():
            try:
                store.check()
                for ref, attempt in _places(store, component, source):
                    try:
                        work(store, ref, attempt, found)
                    except NotFoundError:
                        continue  # deleted meanwhile
                    except BackupError as error:
                        found.documents += 1
                        self._problem(found, error)
            except BackupError as error:
                self._problem(found, error)
        return found

    def _problem(self, found: SourceKeys, error: BackupError) -> None:
        log.error("%s/%s: %s", found.component, found.source, error)
        found.transient = found.transient and isinstance(error, TransientError)
        if len(found.problems) < _NAMED:
            found.problems.append(str(error))

    def _look(self, store: Store, ref: BackupRef, attempt: str, found: SourceKeys) -> None:
        keys = keys_at(store, ref, attempt)
        wrapped = store.stat(ref.keys_key(attempt)).modified
        older = sum(1 for _ in _older(store, ref, attempt))
        days = max(0, (self._clock() - wrapped).days)
        found.documents += 1
        found.older += older
        found.oldest_days = max(found.oldest_days, days)
        labels = {one.label for one in keys.recipients}
        if labels == self._wanted:
            found.current += 1
        elif len(found.stale) < _NAMED:
            found.stale.append(
                StaleKeys(
                    store=store.name,
                    backup_id=ref.backup_id,
                    attempt=attempt,
                    old=tuple(sorted(labels - self._wanted)),
                    lacking=tuple(sorted(self._wanted - labels)),
                    days=days,
                )
            )

    def _rotate(self, store: Store, ref: BackupRef, attempt: str, found: SourceKeys) -> None:
        key = ref.keys_key(attempt)
        name = f"{store.name}:{key}"
        data = store.get(key)
        keys = KeysDocument.decode(data, name=name)
        if {one.label for one in keys.recipients} == self._wanted:
            return
        if not isinstance(store, Replacing):
            raise PermanentError(
                f"The store {store.name} cannot replace an object on condition",
                remedy="Keep backups whose keys are to be rotated in S3 or in a directory.",
                store=store.name,
            )
        keyset = self._opening.unwrap(keys, backup_id=ref.backup_id, name=name)
        _authenticate(store, ref, attempt, keyset)
        anew = self._sealing.wrap(keyset, ref.backup_id)
        self._prove(anew, keyset, ref, name)
        store.replace(key, anew.encode(), expected=data)
        if store.get(key) != anew.encode():
            raise DamagedError(
                f"{name} does not hold what was written",
                remedy="Its older version, or the other store's copy, still opens.",
                key=key,
            )
        found.rotated += 1
        log.info("%s is wrapped for %s", name, ", ".join(sorted(self._wanted)))

    def _prove(self, anew: KeysDocument, keyset: Keyset, ref: BackupRef, name: str) -> None:
        """Open the new document with every recipient that can, before the old one is replaced."""
        opened = 0
        for one in self._recipients:
            if isinstance(one, RecoveryPublicKey):
                continue  # its other half is offline
            found = Keyring([one]).unwrap(anew, backup_id=ref.backup_id, name=name)
            if found.secret != keyset.secret:
                raise DamagedError(
                    f"What was wrapped anew for {_label(one)} is not the keyset of {ref.backup_id}",
                    remedy="Nothing was replaced. Look for what changes data on its way to KMS.",
                    key=name,
                )
            opened += 1
        if not opened:
            raise ConfigurationError(
                f"No recipient of today can open {name} here, so that it is not replaced unproven",
                remedy="Name a KMS key or a key file under encryption.",
            )

    def _purge(self, store: Store, ref: BackupRef, attempt: str, found: SourceKeys) -> None:
        """Remove the versions that were replaced, once the current one is of today."""
        keys = keys_at(store, ref, attempt)
        if {one.label for one in keys.recipients} != self._wanted:
            return
        if isinstance(store, Versioning):
            for one in list(_older(store, ref, attempt)):
                store.delete_version(one)
                found.purged += 1


def _places(store: Store, component: Component, source: str) -> Iterator[tuple[BackupRef, str]]:
    """Yield every backup and attempt that a store has a keys.json of, with or without a manifest.

    One without may hold bytes that later backups refer to.
    """
    for folder in store.folders(f"{component}/{source}"):
        try:
            ref = BackupRef(folder, component)
        except ConfigurationError:
            continue  # not ours; sweeping names it
        for attempt in store.folders(ref.prefix):
            key = ref.keys_key(attempt)
            if ref.source == source and attempt_of(ref, key) is not None:
                try:
                    store.stat(key)
                except NotFoundError:
                    continue
                yield ref, attempt


def _older(store: Store, ref: BackupRef, attempt: str) -> Iterator[ObjectVersion]:
    """Yield the versions of a keys.json that were replaced."""
    if isinstance(store, Versioning):
        key = ref.keys_key(attempt)
        # keys.json sorts before members/, so it is on the first page.
        for one in store.versions(f"{ref.prefix}/{attempt}"):
            if one.key != key:
                return
            if not one.current:
                yield one


def _authenticate(store: Store, ref: BackupRef, attempt: str, keyset: Keyset) -> None:
    """Raise `DamagedError` unless the keyset is the one that the manifest was made with."""
    try:
        sealed = read_manifest(store, ref)
    except NotFoundError:
        return  # later backups hold it against their own digests
    if sealed.manifest.attempt == attempt and not keyset.verify_mac(sealed.covered, sealed.mac):
        raise DamagedError(
            f"{store.name}:{ref.keys_key(attempt)} does not hold the keyset of its manifest",
            remedy="Nothing was replaced. Verify the backup, and restore from another store.",
            key=ref.keys_key(attempt),
        )


def _label(one: Recipient) -> str:
    return f"{one.kind} {one.id}"
