"""Restoring keys: load them under names of their own, then rename each into its place."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.working_memory import members, reading
from neuroca_backup.engines.working_memory.dump import own_keys
from neuroca_backup.engines.working_memory.selecting import Choosing, chosen
from neuroca_backup.engines.working_memory.writing import Writer
from neuroca_backup.errors import ComparisonError, PermanentError, TargetRefusedError
from neuroca_backup.memory.journal import LOADED, LOADING, PUBLISHED, Journal, mark
from neuroca_backup.memory.seen import Seen
from neuroca_backup.memory.selection import nothing_matches
from neuroca_backup.model.endpoint import Endpoint

# Between the name of a restore and a key's own: it replaces what is there, or is added to it.
REPLACES, ADDS = b"=", b"+"
_GONE = "no such key"
_TOLERANCE_MS = 1000  # of an expiry, see compare.py


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    selection = chosen(backup)
    endpoint = target.endpoint
    state = session.state(endpoint)
    if state.role == "slave":
        raise TargetRefusedError(
            f"{endpoint.label} is a replica: what is written there is not kept",
            remedy="Name the master.",
            server=endpoint.label,
        )
    _require_databases(backup, endpoint)
    _require_room(backup, endpoint, state)
    held = _held(backup, endpoint)
    if held and not target.replace:
        raise _taken(backup, endpoint, held, verb="holds")
    notes = []
    if held and selection.whole:
        notes.append(
            f"The {held:,} keys of this tier in {endpoint.label} become those of the backup; "
            "what the backup does not have is removed"
        )
    elif held:
        notes.append(
            f"{endpoint.label} holds {held:,} keys of this tier: the chosen ones are replaced, "
            "the others are left alone"
        )
    return notes


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Write every chosen key beside what is there; a repeat starts clean."""
    journal, endpoint = Journal(backup.work), target.endpoint
    name = mark(backup.last.backup_id, backup.only)
    with Choosing(backup) as choosing:
        journal.write(LOADING)
        _sweep(endpoint, name)
        # What a killed load still has under way arrives under another name.
        token = secrets.token_hex(4)
        version = session.state(endpoint).version
        with reading.opened(endpoint) as client:
            moment = reading.now_ms(client)
        keys = indexes = expired = 0
        for number, found in choosing.databases():
            with reading.opened(endpoint, number) as client:
                writer = Writer(client, version=version)
                for piece, merged in found:
                    gone = is_expired(piece.expires_at, moment)
                    if merged:
                        writer.add(piece, staged(name, token, ADDS) + piece.key)
                        indexes += piece.first
                        continue
                    expired += gone and piece.first
                    if gone and not choosing.selection.persist:
                        continue
                    keys += piece.first
                    writer.key(
                        piece,
                        staged(name, token, REPLACES) + piece.key,
                        expires_at=0 if gone else piece.expires_at,
                    )
                writer.flush()
        if not keys and not expired and not choosing.selection.whole:
            raise nothing_matches(backup.only, backup_id=backup.last.backup_id)
        journal.write(LOADED, token=token, moment=moment)
    notes = [f"{keys:,} keys loaded" + (f", added to {indexes:,} indexes" if indexes else "")]
    if expired:
        what = "come back without an expiry" if choosing.selection.persist else "are left out"
        notes.append(f"{expired:,} keys have expired since they were backed up: they {what}")
    return notes


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Put every key in its place; a repeat changes nothing more."""
    journal, endpoint = Journal(backup.work), target.endpoint
    if journal.published:
        return []
    note = journal.require_loaded(backup_id=backup.last.backup_id)
    name = mark(backup.last.backup_id, backup.only)
    if not note.get("begun"):
        held = 0 if target.replace else _held(backup, endpoint)
        if held:
            raise _taken(backup, endpoint, held, verb="got")
        _require_all(backup, endpoint, staged(name, note["token"], REPLACES))
        journal.write(**{**note, "begun": True})
    version = session.state(endpoint).version
    for number in map(int, backup.last.dump.facts["databases"]):
        with reading.opened(endpoint, number) as client:
            _rename_all(client, staged(name, note["token"], REPLACES))
            _add_all(client, endpoint, staged(name, note["token"], ADDS), version=version)
    notes = []
    if chosen(backup).whole:
        removed = _remove_others(backup, endpoint)
        if removed:
            notes.append(f"{removed:,} keys of this tier that the backup does not have are removed")
    journal.write(PUBLISHED, moment=note["moment"])
    return notes


def staged(name: str, token: str, way: bytes) -> bytes:
    """Return how the names of loaded keys begin."""
    return b"%s%s:%s:%s" % (members.STAGED, name.encode(), token.encode(), way)


def is_expired(expires_at: int, moment: int) -> bool:
    """Return whether a key had expired at `moment`, both in ms since 1970."""
    return 0 < expires_at <= moment


def others(backup: Restorable, endpoint: Endpoint, *, moment: int) -> Iterator[tuple[int, Any]]:
    """Yield the keys of the tier that are on the server and not in the backup, in batches.

    What had expired at `moment` counts as not in the backup, unless it was to come back.
    """
    facts, persist = backup.last.dump.facts, chosen(backup).persist
    patterns = [pattern.encode() for pattern in facts["keys"]]
    with Seen() as kept:
        for number, found in members.in_folder(backup.folders[-1], backup.last):
            for piece in found:
                if piece.first and (persist or not is_expired(piece.expires_at, moment)):
                    kept.add(b"%d" % number, piece.key)
        for number in _scope(backup, endpoint):
            with reading.opened(endpoint, number) as client, Seen() as seen:
                for keys in own_keys(client, patterns, seen, number):
                    stale = [key for key in keys if not kept.has(b"%d" % number, key)]
                    if stale:
                        yield number, stale


def _require_all(backup: Restorable, endpoint: Endpoint, prefix: bytes) -> None:
    """Raise unless every loaded key is still there, or has expired.

    Raises:
        ComparisonError: The server has evicted some; nothing was put in place.
    """
    with Choosing(backup) as choosing:
        for number, found in choosing.databases():
            with reading.opened(endpoint, number) as client:
                latest = reading.now_ms(client) + _TOLERANCE_MS
                expected = sum(
                    piece.first and not merged and not is_expired(piece.expires_at, latest)
                    for piece, merged in found
                )
                there = sum(len(keys) for keys in reading.scan(client, prefix + b"*"))
            if there < expected:
                raise ComparisonError(
                    f"{expected - there:,} of {expected:,} loaded keys are gone from database "
                    f"{number} of {endpoint.label}",
                    remedy="Nothing was put in place. Look at its maxmemory and its eviction "
                    "policy, then run the restore from its load step on.",
                    database=number,
                )


def _remove_others(backup: Restorable, endpoint: Endpoint) -> int:
    with reading.opened(endpoint) as client:
        moment = reading.now_ms(client)
    removed = 0
    for number, keys in others(backup, endpoint, moment=moment):
        with reading.opened(endpoint, number) as client:
            removed += int(session.call(client, "UNLINK", *keys))
    return removed


def _rename_all(client: Any, prefix: bytes) -> None:
    for keys in reading.scan(client, prefix + b"*"):
        sending = client.pipeline(transaction=False)
        for key in keys:
            session.call(sending, "RENAME", key, key[len(prefix) :])
        for answer in sending.execute(raise_on_error=False):
            # A key may expire, or be listed twice, before it is renamed.
            if isinstance(answer, Exception) and _GONE not in str(answer):
                raise PermanentError(
                    f"A loaded key could not be put in its place ({type(answer).__name__})",
                    remedy="Run the publish step again; the server's log says more.",
                )


def _add_all(client: Any, endpoint: Endpoint, prefix: bytes, *, version: str) -> None:
    for keys in reading.scan(client, prefix + b"*"):
        writer = Writer(client, version=version)
        for piece in reading.Reading(client, endpoint).pieces(keys):
            writer.add(piece, piece.key[len(prefix) :])
        writer.flush()
        session.call(client, "UNLINK", *keys)


def _sweep(endpoint: Endpoint, name: str) -> None:
    """Remove what an earlier load of this restore has left."""
    for number in session.state(endpoint).databases:
        with reading.opened(endpoint, number) as client:
            for keys in reading.scan(client, members.STAGED + name.encode() + b":*"):
                session.call(client, "UNLINK", *keys)


def _scope(backup: Restorable, endpoint: Endpoint) -> Sequence[int]:
    """Return the databases in which the tier's keys are the source's own."""
    named = backup.last.dump.facts["scope"]
    present = sorted(session.state(endpoint).databases)
    return present if isinstance(named, str) else [one for one in present if one in named]


def _held(backup: Restorable, endpoint: Endpoint) -> int:
    """Return how many keys of the tier the target has."""
    patterns = [pattern.encode() for pattern in backup.last.dump.facts["keys"]]
    held = 0
    for number in _scope(backup, endpoint):
        with reading.opened(endpoint, number) as client, Seen() as seen:
            held += sum(len(keys) for keys in own_keys(client, patterns, seen, number))
    return held


def _taken(backup: Restorable, endpoint: Endpoint, held: int, *, verb: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{endpoint.label} {verb} {held:,} keys of {backup.last.dump.facts['tier']} memory",
        remedy="Restore into an empty server or a sandbox, or confirm an in-place restore.",
        server=endpoint.label,
        keys=held,
    )


def _require_databases(backup: Restorable, endpoint: Endpoint) -> None:
    for number in map(int, backup.last.dump.facts["databases"]):
        try:
            with reading.opened(endpoint, number) as client:
                session.call(client, "PING")
        except PermanentError as error:
            raise TargetRefusedError(
                f"The backup has keys in database {number}, which cannot be used there: "
                f"{error.problem}",
                remedy=f"Set `databases {number + 1}` in the server's configuration, and let the "
                "user select it.",
                database=number,
            ) from None


def _require_room(backup: Restorable, endpoint: Endpoint, state: session.State) -> None:
    limit, used = int(state.info.get("maxmemory", 0)), int(state.info.get("used_memory", 0))
    needed = backup.last.plain_size
    if limit and not backup.only and used + needed > limit:
        raise TargetRefusedError(
            f"{endpoint.label} may use {limit / 1e6:,.0f} MB of memory and uses {used / 1e6:,.0f}: "
            f"the backup's {needed / 1e6:,.0f} MB, loaded beside, would have it evict keys",
            remedy="Raise its maxmemory, or restore into a larger server.",
            needed=needed,
            maxmemory=limit,
        )
