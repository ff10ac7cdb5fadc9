"""Comparing: every chosen key of the backup with the one on the server, and with the facts.

Names of keys are data: differences are told by database and type, in numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.working_memory import members, reading
from neuroca_backup.engines.working_memory.items import SET, KeyDigest, Piece
from neuroca_backup.engines.working_memory.restore import (
    ADDS,
    REPLACES,
    is_expired,
    others,
    staged,
)
from neuroca_backup.engines.working_memory.selecting import Choosing
from neuroca_backup.memory.journal import Journal, mark
from neuroca_backup.model.endpoint import Endpoint

# A time to live is a remainder: as a moment it may be off by the length of a round trip.
_TOLERANCE_MS = 1000


class _Comparison:
    """Compares one database; `wrong` counts by type and what is wrong.

    `prefix` is how the keys' names begin while they wait beside. What had expired at `persisted`
    (ms since 1970; 0 for nothing) was to come back without an expiry.
    """

    def __init__(self, client: Any, endpoint: Endpoint, *, prefix: bytes, persisted: int) -> None:
        self._client, self._endpoint = client, endpoint
        self._prefix, self._persisted = prefix, persisted
        self._waiting: dict[bytes, KeyDigest] = {}
        self.wrong: Counter[tuple[str, str]] = Counter()
        self.compared = 0

    def expect(self, key: bytes, digest: KeyDigest) -> None:
        """Take a key of the backup."""
        self._waiting[key] = digest
        if len(self._waiting) >= reading.BATCH:
            self.flush()

    def flush(self) -> None:
        """Compare the keys taken since the last time."""
        if not self._waiting:
            return
        now = reading.now_ms(self._client)
        there: dict[bytes, KeyDigest] = {}
        names = [self._prefix + key for key in self._waiting]
        for piece in reading.Reading(self._client, self._endpoint).pieces(names):
            own = replace(piece, key=piece.key[len(self._prefix) :])
            if own.first:
                there[own.key] = KeyDigest(own)
            there[own.key].add(own)
        for key, expected in self._waiting.items():
            self.compared += 1
            what = self._difference(expected, there.get(key), now)
            if what:
                self.wrong[expected.kind, what] += 1
        self._waiting = {}

    def _difference(self, expected: KeyDigest, found: KeyDigest | None, now: int) -> str:
        expires_at = expected.expires_at
        if is_expired(expires_at, self._persisted):
            expires_at = 0  # it had to come back for good
        elif is_expired(expires_at, now + _TOLERANCE_MS):
            return ""  # whether it is there by now is a matter of milliseconds
        if found is None:
            return "missing"
        if expected.parts() != found.parts():
            return "with another value"
        both = bool(expires_at) == bool(found.expires_at)
        if not both or abs(expires_at - found.expires_at) > _TOLERANCE_MS:
            return "with another expiry"
        return ""


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Compare what waits beside, or what is in its place once it is published."""
    journal, endpoint = Journal(backup.work), target.endpoint
    note, waits = journal.read(), journal.staged
    name = mark(backup.last.backup_id, backup.only)
    found: list[Difference] = []
    compared = 0
    with Choosing(backup) as choosing:
        whole = choosing.selection.whole
        persisted = int(note.get("moment", 0)) if choosing.selection.persist else 0
        for number, pieces in choosing.databases():
            tally = members.DatabaseTally()
            prefix = staged(name, note["token"], REPLACES) if waits else b""
            with reading.opened(endpoint, number) as client:
                comparing = _Comparison(client, endpoint, prefix=prefix, persisted=persisted)
                for piece, merged in pieces:
                    if merged:
                        within = staged(name, note["token"], ADDS) if waits else b""
                        lacking = _lacking(client, piece, within + piece.key)
                        comparing.wrong[piece.kind, "lacking items"] += lacking
                        continue
                    digest = tally.add(piece)
                    if digest is not None:
                        comparing.expect(piece.key, digest)
                comparing.flush()
            compared += comparing.compared
            found += _told(number, comparing.wrong)
            known = backup.last.dump.facts["databases"][str(number)]
            if whole and tally.facts() != known:
                found.append(
                    Difference(f"database {number} of the backup", str(known), str(tally.facts()))
                )
    if whole and not waits:
        found += _surplus(backup, endpoint)
    if not compared and not backup.last.dump.empty:
        found.append(Difference("comparison", "at least one key", "nothing to compare"))
    return found


def _told(number: int, wrong: Counter[tuple[str, str]]) -> Iterator[Difference]:
    for (kind, what), count in sorted(wrong.items()):
        if count:
            yield Difference(
                f"database {number}: keys of type {kind}", "all equal", f"{count:,} {what}"
            )


def _lacking(client: Any, piece: Piece, name: bytes) -> bool:
    """Return whether an index lacks one of a piece's members."""
    asking = client.pipeline(transaction=False)
    for element in piece.elements:
        if piece.kind == SET:
            session.call(asking, "SISMEMBER", name, element)
        else:
            session.call(asking, "ZSCORE", name, element[0])
    answers: Sequence[Any] = asking.execute()
    return any(answer in {None, 0} for answer in answers)


def _surplus(backup: Restorable, endpoint: Endpoint) -> Iterator[Difference]:
    counts: Counter[int] = Counter()
    # What has expired meanwhile may still be listed: all of the backup counts as its own.
    for number, keys in others(backup, endpoint, moment=0):
        counts[number] += len(keys)
    for number, count in sorted(counts.items()):
        yield Difference(
            f"database {number}: keys of the tier that are not in the backup", "0", f"{count:,}"
        )
