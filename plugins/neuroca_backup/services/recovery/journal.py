"""The journal of one recovery, kept in every store that answers.

It needs no database: on the day when it matters the catalog's may be gone, and a region, too.
Nothing in it is ever changed. What one store missed is found in another, and copied back by
`Journal.spread` or by whoever appends the same event again.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeVar

from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.model.identity import attempt_token
from neuroca_backup.model.recovery import (
    PREFIX,
    Declared,
    Entry,
    Event,
    EventKind,
    EventName,
    RecoveryRef,
    Value,
    is_recovery_key,
    once_digest,
)
from neuroca_backup.services import pipeline
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")
_AT_ONCE = 8  # events read at once
_NOTHING: Mapping[str, Value] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Reading:
    """What the stores that answer say of a recovery.

    `events` are in the order of time, each once. `unreachable` says by store why it did not answer:
    what only that store has is not here. `findings` are sentences about objects that are damaged
    or missing in some store.
    """

    declared: Declared
    events: tuple[Event, ...]
    unreachable: Mapping[str, str]
    findings: tuple[str, ...]


class Journal:
    """The journal of the recovery `recovery_id`.

    It may be kept and read again and again: what was read once is not read again. Its methods raise
    `StoreUnavailableError` when no store answers.

    Args:
        stores: All stores by name; those that do not answer are left out and named.
        recovery_id: Which recovery; a wrong one is a `ConfigurationError`.
        clock: Gives the time (aware) of events.
    """

    def __init__(
        self,
        stores: Mapping[str, Store],
        recovery_id: str,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.ref = RecoveryRef(recovery_id)
        self.missed: dict[str, str] = {}  # what stores did not take, by store, and why
        self._stores = stores
        self._clock = clock
        self._read: dict[EventName, Entry] = {}

    def declare(self, declared: Declared) -> Declared:
        """Begin the journal and return what stands: what was declared first, if it was before.

        Raises:
            DamagedError: What was declared before cannot be read in any store that answers.
        """
        if declared.ref != self.ref:
            raise ValueError(f"{declared.recovery_id} is not {self.ref.recovery_id}")
        found, damage, silent = self._declared()
        if not found and damage:
            raise _unreadable(damage)
        standing = _first(found.values()) if found else declared
        key, data = self.ref.declared_key, standing.encode()
        lacking = [name for name in self._stores if name not in found]
        self._write(key, data, to=lacking, but=silent, has=list(found))
        # Of two that declared at once, both see here which of them was first.
        return _first([standing, *self._declared()[0].values()])

    def append(
        self,
        kind: EventKind,
        subject: str = "",
        *,
        once: str,
        actor: str,
        details: Mapping[str, Value] = _NOTHING,
        at: datetime | None = None,
    ) -> Event:
        """Add an event and return it; where one with the same `once` is there, return that one.

        So a task that is tried again adds nothing twice. At least one store has taken the event
        when this returns; `missed` and the log say which did not.

        Args:
            kind: What happened.
            subject: The source, objective, check or store that it is about, or "".
            once: What makes it this event and no other, such as `restored:postgres:<restore id>`.
                What is really done again, such as a restore after a failed one, needs another.
            actor: Who did it.
            details: Small facts; what they are called is in docs/reference/recovery-journal.md.
            at: When it happened (aware); now, if it is not given.
        """
        event = Event(
            at=at or self._clock(), kind=kind, subject=subject, actor=actor, details=dict(details)
        )
        listed, silent = self._ask(self._names)
        for name in sorted({one for names in listed.values() for one in names}):
            if name.once != once_digest(once):
                continue
            holders = [store for store, names in listed.items() if name in names]
            entry, errors = self._entry(name, holders)
            if entry is None:
                log.warning("An event is added anew: %s", _told(errors))
            elif entry.once == once:
                lacking = [store for store in listed if store not in holders]
                self._write(self._key(name), entry.encode(), to=lacking, but=silent, has=holders)
                return entry.event
        entry = Entry(recovery_id=self.ref.recovery_id, once=once, event=event)
        name = EventName.of(event, once=once, attempt=attempt_token())
        self._write(self._key(name), entry.encode(), to=list(listed), but=silent)
        return event

    def read(self, *, tolerant: bool = False) -> Reading:
        """Return what all stores that answer hold, put together.

        An object that is damaged in one store and sound in another is a finding. With `tolerant`,
        so is an event that no store has whole.

        Raises:
            NotFoundError: There is no such recovery.
            DamagedError: Nothing readable says what was declared, or an event cannot be read.
        """
        found, damage, silent = self._declared()
        if not found:
            raise _unreadable(damage) if damage else self._absent(silent)
        findings = [error.problem for error in damage]
        if len({one.encode() for one in found.values()}) > 1:
            findings.append(f"{self.ref.declared_key} differs among {', '.join(found)}")
        listed, lost = self._ask(self._names)
        silent |= lost
        entries: dict[str, Entry] = {}
        names = sorted({one for all_of in listed.values() for one in all_of})

        def look(name: EventName) -> tuple[Entry | None, list[BackupError]]:
            return self._entry(name, [store for store in listed if name in listed[store]])

        for entry, errors in pipeline.in_parallel(look, names, workers=_AT_ONCE):
            findings += [error.problem for error in errors]
            if entry is not None:
                entries.setdefault(entry.once, entry)
            elif not tolerant:
                raise _unreadable(errors)
        for store, all_of in listed.items():
            if len(all_of) < len(names):
                missing = len(names) - len(all_of)
                findings.append(f"{store} lacks {missing} of {len(names)} events")
        return Reading(
            declared=_first(found.values()),
            events=tuple(sorted((one.event for one in entries.values()), key=lambda one: one.at)),
            unreachable={name: str(error) for name, error in silent.items()},
            findings=tuple(findings),
        )

    def attach(self, name: str, data: bytes) -> None:
        """Write a document of this recovery, such as `plan.json`; one that is there is replaced."""
        self._write(self.ref.attachment_key(name), data, to=list(self._stores), create_only=False)

    def attachment(self, name: str) -> bytes:
        """Return a document of this recovery, from the store where it was written last.

        Raises:
            NotFoundError: No store has it.
        """
        key = self.ref.attachment_key(name)

        def look(store: Store) -> datetime | None:
            with contextlib.suppress(NotFoundError):
                return store.stat(key).modified
            return None

        answers, silent = self._ask(look)
        dated = {store: at for store, at in answers.items() if at is not None}
        if not dated:
            raise self._absent(silent, what=f"{name} of ")
        errors: list[BackupError] = []
        for store in sorted(dated, key=dated.__getitem__, reverse=True):
            try:
                return self._stores[store].get(key)
            except BackupError as error:
                log.warning("%s does not give %s: %s", store, key, error)
                errors.append(error)
        raise _unreadable(errors)

    def spread(self) -> int:
        """Copy to every store that answers what it lacks of this recovery; return how many objects.

        What is damaged is not copied.
        """

        def keys(store: Store) -> frozenset[str]:
            found = (one.key for one in store.list(self.ref.prefix))
            return frozenset(key for key in found if is_recovery_key(key))

        listed, silent = self._ask(keys)
        copied = 0
        for key in sorted({key for all_of in listed.values() for key in all_of}):
            holders = [store for store, all_of in listed.items() if key in all_of]
            lacking = [store for store in listed if store not in holders]
            data = self._sound(key, holders) if lacking else None
            if data is not None:
                self._write(key, data, to=lacking, but=silent, has=holders)
                copied += len(lacking)
        return copied

    def _key(self, name: EventName) -> str:
        return f"{self.ref.events_prefix}/{name}"

    def _names(self, store: Store) -> frozenset[EventName]:
        prefix = f"{self.ref.events_prefix}/"
        names: set[EventName] = set()
        for found in store.list(self.ref.events_prefix):
            name = EventName.parse(found.key.removeprefix(prefix))
            if name is None:
                log.warning("%s: %s is not an event", store.name, found.key)
            else:
                names.add(name)
        return frozenset(names)

    def _entry(
        self, name: EventName, holders: Sequence[str]
    ) -> tuple[Entry | None, list[BackupError]]:
        """Return an event from the first of `holders` that has it whole, and what is wrong."""
        errors: list[BackupError] = []
        if name in self._read:
            return self._read[name], errors
        key = self._key(name)
        for store in holders:
            try:
                data = self._stores[store].get(key)
                entry = Entry.decode(data, name=f"{store}:{key}", ref=self.ref, parsed=name)
            except BackupError as error:
                errors.append(error)
            else:
                self._read[name] = entry
                return entry, errors
        return None, errors

    def _declared(self) -> tuple[dict[str, Declared], list[BackupError], dict[str, BackupError]]:
        """Return what was declared by store, what is wrong with it, and who does not answer."""
        key, damage = self.ref.declared_key, list[BackupError]()

        def look(store: Store) -> Declared | None:
            try:
                return Declared.decode(store.get(key), name=f"{store.name}:{key}", ref=self.ref)
            except NotFoundError:
                return None
            except DamagedError as error:
                damage.append(error)
                return None

        answers, silent = self._ask(look)
        return {name: one for name, one in answers.items() if one is not None}, damage, silent

    def _sound(self, key: str, holders: Sequence[str]) -> bytes | None:
        """Return an object from the first of `holders` that has it whole."""
        name = EventName.parse(key.rpartition("/")[2])
        for store in holders:
            try:
                data = self._stores[store].get(key)
                if name is not None:
                    Entry.decode(data, name=f"{store}:{key}", ref=self.ref, parsed=name)
                elif key == self.ref.declared_key:
                    Declared.decode(data, name=f"{store}:{key}", ref=self.ref)
            except BackupError as error:
                log.warning("Not copied from %s: %s", store, error.problem)
            else:
                return data
        return None

    def _write(
        self,
        key: str,
        data: bytes,
        *,
        to: Sequence[str],
        but: Mapping[str, BackupError] = MappingProxyType({}),
        has: Sequence[str] = (),
        create_only: bool = True,
    ) -> None:
        """Write `key` to the stores `to`, at once; those in `but` do not answer, `has` have it."""

        def put(store: Store) -> None:
            with contextlib.suppress(AlreadyExistsError):  # another attempt wrote the same
                store.put(key, data, create_only=create_only)

        written: list[str] = []
        errors = dict(but)
        if wanted := [name for name in to if name not in but]:
            done, failed = self._each(put, wanted)
            written, errors = list(done), errors | failed
        for name, error in errors.items():
            log.warning("%s did not take %s: %s", name, key, error)
            self.missed[name] = str(error)
        if not written and not has and to:
            raise _none_answers(errors)

    def _ask(
        self, work: Callable[[Store], _Answer]
    ) -> tuple[dict[str, _Answer], dict[str, BackupError]]:
        """Return what `work` gives for every store at once, and the errors of those that fail."""
        answers, silent = self._each(work, list(self._stores))
        if not answers:
            raise _none_answers(silent)
        return answers, silent

    def _each(
        self, work: Callable[[Store], _Answer], names: Sequence[str]
    ) -> tuple[dict[str, _Answer], dict[str, BackupError]]:
        def one(name: str) -> tuple[_Answer | None, BackupError | None]:
            try:
                # A directory that is not mounted must not look like a journal without events.
                self._stores[name].check()
                return work(self._stores[name]), None
            except BackupError as error:
                return None, error

        answers: dict[str, _Answer] = {}
        errors: dict[str, BackupError] = {}
        found = pipeline.in_parallel(one, names, workers=len(names))
        for name, (answer, error) in zip(names, found, strict=True):
            if error is None:
                answers[name] = answer  # type: ignore[assignment]  # None only beside an error
            else:
                errors[name] = error
        return answers, errors

    def _absent(self, silent: Mapping[str, BackupError], *, what: str = "") -> BackupError:
        """Return the error for what no store that answers has; one that is silent may have it."""
        if silent:
            return StoreUnavailableError(
                f"{what}{self.ref.recovery_id} is in no store that answers, and not all do: "
                + _told(silent.values()),
                remedy="Mend the network or the credentials of that store.",
            )
        return NotFoundError(
            f"There is no {what}{self.ref.recovery_id} in {', '.join(self._stores)}",
            remedy="`neuroca-backup recoveries list` shows what there is.",
            recovery_id=self.ref.recovery_id,
        )


def recoveries(stores: Mapping[str, Store]) -> tuple[Sequence[RecoveryRef], Mapping[str, str]]:
    """Return every recovery of which a store that answers has anything, the newest first.

    The second value says by store why it did not answer.

    Raises:
        StoreUnavailableError: No store answers.
    """
    refs: set[RecoveryRef] = set()
    silent: dict[str, BackupError] = {}
    for name, store in stores.items():
        try:
            store.check()
            for folder in store.folders(PREFIX):
                try:
                    refs.add(RecoveryRef(folder))
                except ConfigurationError:
                    log.warning("%s: %s/%s is not a recovery's folder", name, PREFIX, folder)
        except BackupError as error:
            log.warning("Store %s is left out: %s", name, error)
            silent[name] = error
    if len(silent) == len(stores):
        raise _none_answers(silent)
    return sorted(refs, reverse=True), {name: str(error) for name, error in silent.items()}


def _first(found: Iterable[Declared]) -> Declared:
    """Return what was declared first; the same one whatever the order."""
    return min(found, key=lambda one: (one.recorded_at, one.encode()))


def _unreadable(errors: Sequence[BackupError]) -> BackupError:
    """Return the error for an object that no store gives whole; it may pass if any of them may."""
    if any(isinstance(one, TransientError) for one in errors):
        return StoreUnavailableError(
            f"The journal cannot be read now: {_told(errors)}",
            remedy="Mend the network or the credentials of that store.",
        )
    return DamagedError(
        f"The journal cannot be read: {_told(errors)}",
        remedy="Delete the object in every store if nobody knows what it said; what it told is "
        "then missing from the journal.",
    )


def _none_answers(errors: Mapping[str, BackupError]) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"No store answers: {_told(errors.values())}",
        remedy="Mend the network or the credentials of one of them.",
    )


def _told(errors: Iterable[BackupError]) -> str:
    return "; ".join(error.problem for error in errors)
