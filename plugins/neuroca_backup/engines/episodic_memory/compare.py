"""Comparing: documents byte for byte, by number and digest, and definitions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.episodic_memory import definitions, documents
from neuroca_backup.engines.episodic_memory.definitions import VIEW, Definition
from neuroca_backup.engines.episodic_memory.restore import staged, surplus
from neuroca_backup.engines.episodic_memory.selecting import chosen, chosen_documents
from neuroca_backup.memory.digests import Tally
from neuroca_backup.memory.journal import Journal
from neuroca_backup.memory.selection import Selection

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client

_BATCH = 1000


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Compare what waits beside, or what is in its place once it is published."""
    selection, wanted = chosen(backup)
    journal = Journal(backup.work)
    waits, note = journal.staged, journal.read()
    found: list[Difference] = []
    with session.connect(target.endpoint) as client:
        for one in wanted.values():
            name = staged(backup, one, note["token"]) if waits else one.name
            if selection.whole:
                found += _whole(client, backup, one, name, waits=waits)
            else:
                found += _part(client, backup, selection, one, name)
        if selection.whole and not waits:
            found += [
                Difference(one.namespace, "nothing: the backup does not have it", one.kind)
                for one in surplus(client, backup)
            ]
    if not wanted and not backup.last.dump.empty:
        found.append(Difference("comparison", "at least one collection", "nothing to compare"))
    return found


def _whole(
    client: Client, backup: Restorable, definition: Definition, name: str, *, waits: bool
) -> Iterator[Difference]:
    namespace = definition.namespace
    if waits and definition.kind == VIEW:
        return  # it is made in its place only
    # A publishing that was cut off has some of them in their place already.
    there = definitions.one(client, definition.database, name) or definitions.one(
        client, definition.database, definition.name
    )
    if there is None or there.kind != definition.kind:
        yield Difference(namespace, definition.kind, there.kind if there else "nothing")
        return
    ours, theirs = definition.words(staged=waits), there.words(staged=waits)
    if ours != theirs:
        yield Difference(f"{namespace}: options and indexes", ours, theirs)
    if definition.kind == VIEW:
        return
    facts = backup.last.dump.facts["collections"][namespace]
    tally = _tally(client, definition.database, there.name, {})
    yield from _differences(namespace, facts["documents"], facts["digest"], tally)


def _part(
    client: Client, backup: Restorable, selection: Selection, definition: Definition, name: str
) -> Iterator[Difference]:
    expected, found = Tally(), Tally()
    ids: list[Any] = []
    for raw, key in chosen_documents(backup, selection, definition.namespace):
        expected.add(raw)
        ids.append(key)
        if len(ids) == _BATCH:
            _tally(client, definition.database, name, {"_id": {"$in": ids}}, into=found)
            ids = []
    if ids:
        _tally(client, definition.database, name, {"_id": {"$in": ids}}, into=found)
    yield from _differences(definition.namespace, expected.count, expected.digest, found)


def _tally(
    client: Client, database: str, name: str, which: dict[str, Any], *, into: Tally | None = None
) -> Tally:
    tally = into or Tally()
    with client[database][name].find_raw_batches(which, batch_size=_BATCH) as cursor:
        for batch in cast("Sequence[bytes]", cursor):
            for raw in documents.split(batch):
                tally.add(raw)
    return tally


def _differences(namespace: str, count: int, digest: str, found: Tally) -> Iterator[Difference]:
    if found.count != count:
        yield Difference(f"documents of {namespace}", f"{count:,}", f"{found.count:,}")
    elif found.digest != digest:
        yield Difference(f"contents of {namespace}", digest[:12], found.digest[:12])
