"""Restoring: a whole tier by the engine of its store, chosen items row by row.

Chosen rows are loaded into a collection of their own and compared there, where the store can have
one beside. Publishing puts them into the collection that they belong to, in the place of rows with
the same keys, compares them again, and drops that one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import pyarrow as pa

from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.semantic_memory import store
from neuroca_backup.engines.semantic_memory.rows import batches, items_of
from neuroca_backup.errors import (
    ComparisonError,
    ConfigurationError,
    IncompatibleVersionError,
    TargetRefusedError,
)
from neuroca_backup.memory import selection, tiers
from neuroca_backup.memory.journal import LOADED, LOADING, PUBLISHED, Journal, mark
from neuroca_backup.memory.selection import Selection, nothing_matches
from neuroca_backup.vectors import columns, naming
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.model import Collection, Name

_COLLECTION = "collection"
_ROWS = 256  # of one request


@dataclass(frozen=True, slots=True)
class _Chosen:
    """A collection of which rows are restored: where they wait (None: nowhere), where they go."""

    collection: Collection
    partitions: tuple[str, ...]
    place: Name
    waiting: Name | None


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    found = _selection(backup)
    store.require_same_embedding(backup.last.dump.facts, target.endpoint)
    if found.whole:
        engine = store.of(target.endpoint)
        return list(engine.preflight(_whole(backup), _plain(target)))
    with _connected(target) as database:
        taken = []
        present = set(database.collections())
        for one in _chosen(backup, found, database):
            if one.collection.new_keys:
                raise ConfigurationError(
                    f"{one.place.label} makes its own keys: a restored row would be another one "
                    "beside what is there",
                    remedy="Restore the whole tier.",
                    value=list(backup.only),
                )
            database.refuse(one.collection, one.place)
            if one.place in present:
                _require_same_rows(one, database.describe(one.place))
                with database.reading(one.place):
                    taken += [one.place.label] if database.count(one.place) else []
    if taken and not target.replace:
        raise _refused(target, taken, verb="has")
    return [f"Chosen rows of {name} will be replaced, the others left alone" for name in taken]


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Load what is chosen beside what is there; a repeat starts clean."""
    found = _selection(backup)
    if found.whole:
        return list(store.of(target.endpoint).load(_whole(backup), _plain(target)))
    journal = Journal(backup.work)
    journal.write(LOADING)
    loaded: dict[str, int] = {}
    with _connected(target) as database:
        for one in _chosen(backup, found, database):
            rows = _load(backup, found, one, database)
            if rows:
                loaded[one.place.label] = rows
    if not loaded:
        raise nothing_matches(backup.only, backup_id=backup.last.backup_id)
    journal.write(LOADED, rows=loaded)
    return [f"{name}: {rows:,} rows loaded" for name, rows in loaded.items()]


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Compare what waits beside, or what is in its place once it is published."""
    found = _selection(backup)
    if found.whole:
        differences = store.of(target.endpoint).differences(_whole(backup), _plain(target))
        return [Difference(*one) for one in differences]
    waits = Journal(backup.work).staged
    told: list[Difference] = []
    compared = 0
    with _connected(target) as database:
        present = set(database.collections())
        for one in _chosen(backup, found, database):
            at = one.waiting if waits else one.place
            rows = wrong = 0
            if at is None:
                # Nothing can wait beside in such a store: publishing compares row by row.
                rows = sum(batch.num_rows for _, batch in _rows(backup, found, one))
            elif at in present:
                with database.reading(at):
                    for partition, batch in _rows(backup, found, one):
                        rows += batch.num_rows
                        wrong += _wrong(database, one.collection, at, batch, partition=partition)
                    there = database.count(at)
                if waits and there != rows:
                    told.append(Difference(f"rows of {one.place.label}", str(rows), str(there)))
            else:
                rows = wrong = sum(batch.num_rows for _, batch in _rows(backup, found, one))
            compared += rows
            if wrong:
                told.append(
                    Difference(
                        f"{rows:,} rows of {one.place.label}", "all equal", f"{wrong:,} not so"
                    )
                )
    if not compared:
        told.append(Difference("comparison", "at least one row", "nothing to compare"))
    return told


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Put what was loaded in its place; a repeat changes nothing more."""
    found = _selection(backup)
    if found.whole:
        return list(store.of(target.endpoint).publish(_whole(backup), _plain(target)))
    journal = Journal(backup.work)
    if journal.published:
        return []
    note = journal.require_loaded(backup_id=backup.last.backup_id)
    with _connected(target) as database:
        chosen = [
            one for one in _chosen(backup, found, database) if one.place.label in note["rows"]
        ]
        if not note.get("begun"):
            _refuse_newer(target, chosen, database)
            journal.write(**{**note, "begun": True})
        for one in chosen:
            _put(backup, found, one, database)
    journal.write(PUBLISHED)
    return []


def _put(backup: Restorable, found: Selection, one: _Chosen, database: VectorDatabase) -> None:
    """Put the chosen rows of one collection in their place; a repeat goes on where a kill was."""
    present = set(database.collections())
    if one.place not in present and one.waiting in present:
        # Nothing is there: what waits takes the place as it is.
        database.swap(one.collection, one.place, loaded=one.waiting, kept=one.place)
        _require_all(backup, found, one, database)
        return
    made = one.place not in present
    if made:
        name = naming.mark(backup.last.backup_id, one.place)
        database.create(one.collection, one.place, mark=name)
    for partition, batch in _rows(backup, found, one):
        database.upsert(one.place, one.collection, batch, partition=partition)
    database.build(one.place, one.collection)
    _require_all(backup, found, one, database)
    if made and not database.beside:
        # Takes the mark of the creation away.
        database.swap(one.collection, one.place, loaded=one.place, kept=one.place)
    if one.waiting is not None:
        database.drop(one.waiting)


def _load(backup: Restorable, found: Selection, one: _Chosen, database: VectorDatabase) -> int:
    """Load the chosen rows of a collection beside it, or only count them; return how many."""
    if one.waiting is not None:
        database.drop(one.waiting)
    rows = 0
    for partition, batch in _rows(backup, found, one):
        if one.waiting is not None:
            if not rows:
                name = naming.mark(backup.last.backup_id, one.place)
                database.create(one.collection, one.waiting, mark=name)
            database.insert(one.waiting, one.collection, batch, partition=partition)
        rows += batch.num_rows
    if rows and one.waiting is not None:
        database.build(one.waiting, one.collection)
    return rows


def _require_all(
    backup: Restorable, found: Selection, one: _Chosen, database: VectorDatabase
) -> None:
    """Raise `ComparisonError` unless every chosen row is in its place as it was backed up."""
    with database.reading(one.place):
        wrong = sum(
            _wrong(database, one.collection, one.place, batch, partition=partition)
            for partition, batch in _rows(backup, found, one)
        )
    if wrong:
        raise ComparisonError(
            f"{wrong:,} rows are not in {one.place.label} as they were backed up",
            remedy="Look who else writes these rows there, then run the publish step again.",
            collection=one.place.label,
            differences=wrong,
        )


def _selection(backup: Restorable) -> Selection:
    """Return what the words of a restore mean.

    Raises:
        ConfigurationError: They mean nothing here, or a moment was asked for.
    """
    manifest, facts = backup.last, backup.last.dump.facts
    tiers.require_form(facts, kind=manifest.engine)
    if backup.until is not None:
        raise ConfigurationError(
            "An export of semantic memory has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken.",
            value=backup.until.isoformat(),
        )
    found = selection.parse(backup.only, tier=facts["tier"], places=(_COLLECTION,))
    known = [Collection.model_validate(one["schema"]).at for one in facts["collections"].values()]
    for value in found.place(_COLLECTION):
        if not any(value in (at.label, at.collection) for at in known):
            raise ConfigurationError(
                f"{_COLLECTION}={value}: {manifest.backup_id} has none such",
                remedy=f"It holds {', '.join(at.label for at in known) or 'none'}.",
                value=value,
            )
    return found


def _whole(backup: Restorable) -> Restorable:
    # Words that only say which tier is meant are none of the store's.
    return replace(backup, only=())


def _plain(target: RestoreTarget) -> RestoreTarget:
    return replace(target, endpoint=store.plain(target.endpoint))


def _connected(target: RestoreTarget) -> AbstractContextManager[VectorDatabase]:
    return store.of(target.endpoint).connect(store.plain(target.endpoint))


def _chosen(backup: Restorable, found: Selection, database: VectorDatabase) -> list[_Chosen]:
    wanted = found.place(_COLLECTION)
    chosen = []
    for one in backup.last.dump.facts["collections"].values():
        collection = Collection.model_validate(one["schema"])
        if wanted and not {collection.at.label, collection.name} & set(wanted):
            continue
        place = database.place(collection.at)
        name = mark(backup.last.backup_id, backup.only)
        waiting = naming.staging(name, collection.at, place) if database.beside else None
        chosen.append(_Chosen(collection, tuple(one["partitions"]), place, waiting))
    return chosen


def _rows(
    backup: Restorable, found: Selection, one: _Chosen
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the chosen rows of a collection in small batches, each with its partition."""
    for partition, batch in batches(backup, one.collection, one.partitions):
        taken = batch.filter(pa.array(_takes(backup, found, one.collection, batch)))
        for first in range(0, taken.num_rows, _ROWS):
            yield partition, taken.slice(first, _ROWS)


def _takes(
    backup: Restorable, found: Selection, collection: Collection, batch: pa.RecordBatch
) -> list[bool]:
    facts = backup.last.dump.facts
    fields = tiers.Fields.model_validate(facts["fields"])
    taken = []
    for item in items_of(collection, batch):
        names = [item[collection.key], *(item.get(name) for name in facts["id_fields"])]
        taken.append(any(found.takes(item, name=str(name), fields=fields) for name in names))
    return taken


def _wrong(
    database: VectorDatabase,
    collection: Collection,
    at: Name,
    batch: pa.RecordBatch,
    *,
    partition: str,
) -> int:
    """Return how many rows of a batch the store has not, or has otherwise."""
    keys = columns.keys_of(batch, collection)
    there = database.fetch(at, collection, keys, partition=partition)
    found = {
        key: columns.digest(collection, there, index)
        for index, key in enumerate(columns.keys_of(there, collection))
    }
    return sum(
        found.get(key) != columns.digest(collection, batch, index) for index, key in enumerate(keys)
    )


def _require_same_rows(one: _Chosen, there: Collection) -> None:
    ours, theirs = columns.schema_of(one.collection), columns.schema_of(there)
    if ours == theirs:
        return
    differing = sorted(
        {name for name in (*ours.names, *theirs.names) if _type(ours, name) != _type(theirs, name)}
    )
    told = [
        f"{name} ({_type(ours, name)} in the backup, {_type(theirs, name)} there)"
        for name in differing
    ]
    raise IncompatibleVersionError(
        f"{one.place.label} has other fields than the backup's: {', '.join(told)}",
        remedy="Single rows go only where rows are alike. Restore the whole tier, or to another "
        "server.",
        fields=differing,
    )


def _type(schema: pa.Schema, name: str) -> str:
    return str(schema.field(name).type) if name in schema.names else "none"


def _refuse_newer(
    target: RestoreTarget, chosen: Sequence[_Chosen], database: VectorDatabase
) -> None:
    present = set(database.collections())
    taken = []
    for one in chosen:
        if one.place in present and not target.replace:
            with database.reading(one.place):
                taken += [one.place.label] if database.count(one.place) else []
    if taken:
        raise _refused(target, taken, verb="got")


def _refused(target: RestoreTarget, taken: list[str], *, verb: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{target.endpoint.label} {verb} rows in {', '.join(taken)}",
        remedy="Restore into an empty server or a sandbox, or confirm an in-place restore.",
        collections=taken,
    )
