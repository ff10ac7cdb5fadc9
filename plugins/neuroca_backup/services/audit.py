"""The audit trail, written to every store: appending, catching up, reading."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from neuroca_backup.catalog import AuditEvent, Catalog
from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    DamagedError,
    NotFoundError,
    StoreUnavailableError,
    TransientError,
)
from neuroca_backup.model.audit import (
    NOTHING,
    PREFIX,
    Event,
    Head,
    Line,
    bounded,
    details_of,
    digest_of,
    key_of,
    sequence_of,
)
from neuroca_backup.services import pipeline
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

DONE = "done"
FAILED = "failed"
INTENDED = "intended"

# Whoever loses the race for a number has the next one: so many writers at once are let by.
_CONTENDERS = 50
# A store that does not answer costs its timeouts at every event; it is left alone for this long.
_PAUSE_SECONDS = 600.0
# What a store missed while it was down is looked for in lines of this age. A full check has no end.
_CATCH_UP = timedelta(days=35)
_READERS = 16  # lines are small: reading them is waiting


@dataclass(slots=True)
class Synced:
    """How many events each store was given that others had; `problems` by store, why one was not.

    A store that could not be read or written is caught up at the next run.
    """

    added: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


class Audit:
    """Appends events to the chain of every store, and to the catalog.

    The truth is in the stores. A chain has no lock: a line is a create-only object with the next
    number, and whoever comes second takes the number after it.

    Args:
        stores: Every configured store by name.
        catalog: The index, which is also where the heads of the chains are noted.
        actor: Who acts, where a call does not say; without one the user of this process.
        clock: What time it is, aware.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        catalog: Catalog,
        actor: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._ledger = Ledger(catalog)
        self._actor = actor or operating_user()
        self._clock = clock
        self._heads: dict[str, Head] = {}
        self._silent: dict[str, float] = {}
        self._lock = threading.RLock()

    @property
    def actor(self) -> str:
        """Who acts, where a call does not say."""
        return self._actor

    def note(
        self,
        action: str,
        subject: str,
        *,
        actor: str = "",
        result: str = DONE,
        details: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Append an event; what fails is logged with the event, and fails nothing else.

        Args:
            action: What was done, a word or two: `backup`, `key use`.
            subject: What it was done to: a backup's id, mostly.
            actor: Who did it, where that is not who runs this process.
            result: What came of it.
            details: Plain values; see `details_of` for what is kept of them.
            at: When (aware), where that is not now.
        """
        self._append(self._event(action, subject, actor, result, details, at))

    def require(
        self,
        action: str,
        subject: str,
        *,
        actor: str = "",
        result: str = INTENDED,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Append an event before something is done that must not go unrecorded.

        Raises:
            BackupError: No store took it, so it must not be done.
        """
        errors = self._append(self._event(action, subject, actor, result, details, None))
        if len(errors) == len(self._stores):
            first = next((one for one in errors if isinstance(one, TransientError)), None)
            kind = StoreUnavailableError if first or not errors else type(errors[0])
            raise kind(
                f"The audit trail took no line of {action} {subject}, so it is not done: "
                + ("; ".join(one.problem for one in errors) or "there is no store"),
                remedy="Mend what keeps the stores from being written; it is then tried again.",
                subject=subject,
            )

    @contextmanager
    def failing(self, action: str, subject: str, **details: Any) -> Iterator[None]:
        """Note that the block failed, where it does; its error goes on."""
        try:
            yield
        except BackupError as error:
            kind = {"error": type(error).__name__}
            self.note(action, subject, result=FAILED, details={**details, **kind})
            raise

    def sync(self) -> Synced:
        """Append to every store what others have and it lacks, of the last weeks.

        Done at every run of retention, and by `neuroca-backup audit sync`.
        """
        known: dict[str, dict[str, Event]] = {}
        done = Synced()
        since = self._clock() - _CATCH_UP
        for name, store in self._stores.items():
            try:
                known[name] = {one.event.id: one.event for one in newest(store, since=since)}
            except BackupError as error:
                done.problems[name] = str(error)
        every = {event.id: event for events in known.values() for event in events.values()}
        for name, events in known.items():
            lacking = [every[one] for one in every.keys() - events.keys()]
            done.added[name] = 0
            try:
                for event in sorted(lacking, key=lambda one: (one.at, one.id)):
                    with self._lock:
                        self._ready(name)
                        self._add(name, event)
                    done.added[name] += 1
            except BackupError as error:
                done.problems[name] = str(error)
        return done

    def _event(
        self,
        action: str,
        subject: str,
        actor: str,
        result: str,
        details: Mapping[str, Any] | None,
        at: datetime | None,
    ) -> Event:
        return Event(
            at=at or self._clock(),
            actor=bounded(actor or self._actor),
            action=bounded(action),
            subject=bounded(subject),
            result=bounded(result),
            details=details_of(details or {}),
        )

    def _append(self, event: Event) -> list[BackupError]:
        """Append to every store that answers; return the errors of those that did not take it."""
        errors: dict[str, BackupError] = {}
        places: dict[str, Head] = {}
        with self._lock:
            # All heads are known before the first line names them.
            for work in (self._ready, lambda name: places.update({name: self._add(name, event)})):
                for name in [one for one in self._stores if one not in errors]:
                    try:
                        work(name)
                    except BackupError as error:
                        errors[name] = error
                        if isinstance(error, TransientError):
                            self._silent.setdefault(name, time.monotonic() + _PAUSE_SECONDS)
                        self._missed(name, event, error)
        anchors = {one.chain: f"{one.sequence}:{one.digest}" for one in places.values()}
        noted = AuditEvent(
            at=event.at,
            actor=event.actor,
            action=event.action,
            subject=event.subject,
            details={**event.details, "result": event.result, "audit": {event.id: anchors}},
        )
        self._ledger.note(
            f"the audit of {event.action} {event.subject}",
            lambda catalog: catalog.record_event(noted),
        )
        return list(errors.values())

    def _ready(self, name: str) -> None:
        """Know the head of a store's chain; others may have written since, which a write shows."""
        if time.monotonic() < self._silent.get(name, float("-inf")):
            raise StoreUnavailableError(
                f"{name} did not answer a moment ago",
                remedy="It is caught up by `neuroca-backup audit sync`.",
                store=name,
            )
        self._silent.pop(name, None)
        if name not in self._heads:
            self._heads[name] = read_head(self._stores[name])

    def _add(self, name: str, event: Event) -> Head:
        store, head = self._stores[name], self._heads[name]
        for _ in range(_CONTENDERS):
            seen = tuple(
                one for other, one in self._heads.items() if other != name and one.sequence
            )
            line = Line.after(head, event, seen=seen)
            try:
                store.put(line.key, line.encode(), create_only=True)
            except AlreadyExistsError:
                head = read_head(store)  # somebody was first; the next number may be free
                continue
            self._heads[name] = line.head
            return line.head
        raise StoreUnavailableError(
            f"{store.name}: {_CONTENDERS} others wrote to the audit trail at the same time",
            remedy="It is caught up by `neuroca-backup audit sync`.",
            store=store.name,
        )

    def _missed(self, name: str, event: Event, error: BackupError) -> None:
        log.error(
            "The audit trail in %s misses what the others may have: %s %s by %s: %s. %s Run "
            "`neuroca-backup audit sync` once it is mended.",
            name,
            event.action,
            event.subject,
            event.actor,
            event.result,
            error,
        )


def operating_user() -> str:
    """Return who runs this process, for the records: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container that knows no name for it
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def read_head(store: Store) -> Head:
    """Return the last line of a store's chain; a damaged one is continued with what it is now.

    Raises:
        BackupError: The store's own.
    """
    for block in reversed(blocks(store)):
        for sequence in reversed(block):
            try:
                data = store.get(key_of(sequence))
            except NotFoundError:
                continue  # removed since it was listed: verifying tells
            return Head(chain=_chain(store, data), sequence=sequence, digest=digest_of(data))
    return Head(chain="", sequence=0, digest=NOTHING)


def blocks(store: Store) -> Blocks:
    """Return the numbers of a store's lines, folder by folder, the oldest first."""
    names = [one for one in store.folders(PREFIX) if one.isdecimal()]
    return Blocks(store, names)


@dataclass(frozen=True, slots=True)
class Blocks:
    """The folders of a chain; each is listed when it is come to, and only then."""

    store: Store
    names: list[str]

    def __iter__(self) -> Iterator[list[int]]:
        return map(self._numbers, self.names)

    def __reversed__(self) -> Iterator[list[int]]:
        return map(self._numbers, reversed(self.names))

    def _numbers(self, name: str) -> list[int]:
        found = (sequence_of(one.key) for one in self.store.list(f"{PREFIX}/{name}"))
        return sorted(one for one in found if one is not None)


def newest(store: Store, *, since: datetime | None = None) -> Iterator[Line]:
    """Yield the lines of a store from the last one on, those that cannot be read left out.

    With `since` (aware), no further than to the folder whose every event is older.
    """
    for block in reversed(blocks(store)):
        lines = [
            line
            for line in pipeline.in_parallel(
                lambda sequence: _readable(store, sequence), block[::-1], workers=_READERS
            )
            if line is not None
        ]
        yield from lines
        if since is not None and lines and all(line.event.at < since for line in lines):
            return


def _readable(store: Store, sequence: int) -> Line | None:
    key = key_of(sequence)
    try:
        return Line.decode(store.get(key), name=f"{store.name}:{key}")
    except (DamagedError, NotFoundError):
        return None


def _chain(store: Store, last: bytes) -> str:
    """Return the name of a chain from its last line, or from any that can be read."""
    try:
        return Line.decode(last, name=store.name).chain
    except DamagedError:
        return next((line.chain for line in newest(store)), "")
