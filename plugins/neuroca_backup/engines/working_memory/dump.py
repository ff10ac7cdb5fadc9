"""Exporting the keys of a tier: one member of JSON Lines a logical database.

Redis has no way to read many keys at one moment but a snapshot of all of them, which the engine
`redis_rdb` takes. Here each key is read at one moment of its own, one after the other.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import redis

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Sink
from neuroca_backup.engines.working_memory import members, reading
from neuroca_backup.engines.working_memory.items import OPAQUE, Piece
from neuroca_backup.errors import EmptySourceError
from neuroca_backup.memory import tiers
from neuroca_backup.memory.jsonlines import line
from neuroca_backup.memory.seen import Seen
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.streams import write_all

if TYPE_CHECKING:
    from neuroca_backup.engines.working_memory import Options

_HELD_BYTES = 1024 * 1024  # of lines that are written together
# Since this version fields of a hash may expire by themselves.
_FIELDS_EXPIRE_SINCE = (7, 4)


def dump(endpoint: Endpoint, sink: Sink, options: Options) -> Dump:
    """Export every key of the tier to `sink`.

    Raises:
        EmptySourceError: No key matches.
    """
    state = session.state(endpoint)
    with reading.opened(endpoint) as client:
        begun = reading.now_ms(client)
    started = time.monotonic()
    told = Counter[str]()
    found: dict[str, Any] = {}
    for number in _databases(options, state):
        tally = _database(endpoint, sink, number, options, told)
        if tally is not None:
            found[str(number)] = tally.facts()
    keys = sum(one["keys"] for one in found.values())
    if not keys and not options.allow_empty:
        raise EmptySourceError(
            f"Redis at {endpoint.label} has no key like {', '.join(options.keys)}",
            remedy="Look whether the tier has lost its data, and whether the source's `keys` name "
            "it. If it is new and still empty, set `allow_empty: true` until it is not.",
            server=endpoint.label,
            keys=list(options.keys),
        )
    return Dump(
        server_version=state.version,
        tools={"redis-py": redis.__version__},
        consistency={"time": datetime.fromtimestamp(begun / 1000, UTC).isoformat()},
        facts={
            "form": tiers.FORM,
            "tier": options.tier,
            "keys": list(options.keys),
            "scope": _plain(options.databases),
            "indexes": list(options.indexes),
            "fields": options.fields.model_dump(mode="json"),
            "databases": found,
        },
        empty=not keys,
        notes=tuple(_notes(state, told, seconds=time.monotonic() - started)),
    )


def own_keys(
    client: redis.Redis, patterns: list[bytes], seen: Seen, number: int
) -> Iterator[list[bytes]]:
    """Yield the keys that match any pattern, each once; never what a restore has staged."""
    for pattern in patterns:
        for keys in reading.scan(client, pattern):
            fresh = [
                key
                for key in keys
                if not key.startswith(members.STAGED) and seen.add(b"%d" % number, key)
            ]
            for first in range(0, len(fresh), reading.BATCH):
                yield fresh[first : first + reading.BATCH]


def _plain(databases: str | tuple[int, ...]) -> str | list[int]:
    return databases if isinstance(databases, str) else sorted(databases)


def _databases(options: Options, state: session.State) -> list[int]:
    present = sorted(state.databases)
    if isinstance(options.databases, str):
        return present
    return [number for number in present if number in options.databases]


def _database(
    endpoint: Endpoint, sink: Sink, number: int, options: Options, told: Counter[str]
) -> members.DatabaseTally | None:
    """Export one database, None where it has no such key: it is then no part of the backup."""
    tally = members.DatabaseTally()
    with ExitStack() as open_member, reading.opened(endpoint, number) as client, Seen() as seen:
        out: BinaryIO | None = None
        held = bytearray()
        patterns = [pattern.encode() for pattern in options.keys]
        for keys in own_keys(client, patterns, seen, number):
            for piece in reading.Reading(client, endpoint).pieces(keys):
                if out is None:
                    out = open_member.enter_context(sink.member(members.name_of(number)))
                    held += line(members.header(options.tier, number))
                _tell(told, piece)
                tally.add(piece)
                held += line(piece.record())
                if len(held) >= _HELD_BYTES:
                    write_all(out, held)
                    held = bytearray()
        if out is None:
            return None
        write_all(out, held)
    return tally


def _tell(told: Counter[str], piece: Piece) -> None:
    told["changed"] += piece.changed
    told[OPAQUE] += piece.kind == OPAQUE and piece.first


def _notes(state: session.State, told: Counter[str], *, seconds: float) -> Iterator[str]:
    yield (
        f"Keys were read one after the other within {seconds:.1f} s, each at a moment of its own; "
        "the engine redis_rdb takes all of them at one moment."
    )
    if told["changed"]:
        yield (
            f"{told['changed']:,} large keys were written to while they were read; they may hold "
            "a part of what was written."
        )
    if told[OPAQUE]:
        yield (
            f"{told[OPAQUE]:,} keys have a type of a module; they are kept as the server's DUMP "
            "of them, which only a server with that module restores."
        )
    version = tuple(int(part) for part in state.version.split(".")[:2])
    if version >= _FIELDS_EXPIRE_SINCE:
        yield "Fields of hashes that expire by themselves come back without their expiry."
