"""Publishing: staged collections get their names, what was there keeps its documents beside.

A collection is renamed, which is instant. A time series cannot be renamed, so its buckets are
copied under the final name; it is unreadable or incomplete while that lasts, and nothing else is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pymongo
from pymongo.read_concern import ReadConcern

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.engines.mongodb import accounts, catalog, facts, layout, load
from neuroca_backup.engines.mongodb.catalog import COLLECTION, VIEW, Definition
from neuroca_backup.engines.mongodb.journal import DONE, FILLING, Journal, Note
from neuroca_backup.errors import ComparisonError, TargetRefusedError

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client, Database

KEPT = re.compile(r"before_[0-9a-f]{12}_")
# An existing index can be made to expire documents since 5.1:
# https://www.mongodb.com/docs/manual/reference/command/collMod/
_EXPIRY_SINCE = (5, 1)
_LONGEST_NAMESPACE = 240  # bytes; the server's limit is 255, and a number may follow
_COPY_BYTES = 4 * 1024 * 1024


def publish(client: Client, mark: str, whole: frozenset[str], target: RestoreTarget) -> list[str]:
    """Put everything in place that the journal of `mark` notes, then forget the journal.

    Raises:
        TargetRefusedError: The target got data since the check, and may not be replaced.
    """
    journal = Journal(client, mark)
    _plan(client, journal, mark, whole, target)
    notes = []
    # What is only put aside goes first: its name may be in the way of a view.
    for note in sorted(journal.notes(), key=lambda one: one.definition is not None):
        notes += _one(client, journal, note, target)
    journal.close()
    return notes


def occupied(client: Client, database: str, names: set[str], *, whole: bool) -> list[str]:
    """Return which of `names`, or of all names if `whole`, hold documents or are views."""
    return [
        one.namespace
        for one in _present(client[database]).values()
        if (one.name in names or (whole and not KEPT.match(one.name)))
        and (one.kind == VIEW or client[database][one.name].find_one({}, {"_id": 1}) is not None)
    ]


def kept_name(client: Client, mark: str, database: str, name: str) -> str:
    """Return a free name for what is replaced: the same backup may be restored again and again."""
    room = _LONGEST_NAMESPACE - len(f"{database}.{layout.BUCKETS}before_{mark}_".encode())
    short = name.encode()[:room].decode(errors="ignore")
    taken = set(_present(client[database]))
    plain = f"before_{mark}_{short}"
    others = (plain, *(f"{plain}_{number}" for number in range(2, 1000)))
    return next(other for other in others if other not in taken)


def _plan(
    client: Client, journal: Journal, mark: str, whole: frozenset[str], target: RestoreTarget
) -> None:
    """Note under which name everything is kept that is in the way, before anything is changed."""
    notes = list(journal.notes())
    unplanned = [note for note in notes if note.kept is None]
    if not unplanned:
        return
    mine: dict[str, set[str]] = {}
    for note in notes:
        mine.setdefault(note.database, set()).add(note.name)
    accounts_names = {layout.USERS, layout.ROLES}
    if not target.replace:
        full = [
            one
            for database, names in mine.items()
            for one in occupied(
                client,
                database,
                names - (accounts_names if database == "admin" else set()),
                whole=database in whole,
            )
        ]
        if full:
            raise TargetRefusedError(
                f"{target.endpoint.label} got data since the check: {', '.join(full[:10])}",
                remedy="Confirm an in-place restore, or restore elsewhere.",
                namespaces=full,
            )
    for database in sorted(whole):
        for name in _present(client[database]):
            extra = name not in mine.get(database, set()) and not KEPT.match(name)
            if extra and not name.startswith("system."):
                journal.aside(database, name, kept_name(client, mark, database, name))
    for note in unplanned:
        present = _present(client[note.database])
        if note.database == "admin" and note.name in accounts_names:
            kept = ""
        else:
            in_way = note.name in present
            kept = kept_name(client, mark, note.database, note.name) if in_way else ""
        journal.set(note, kept=kept)


def _one(client: Client, journal: Journal, note: Note, target: RestoreTarget) -> list[str]:
    if note.state == DONE:
        return []
    database, notes = client[note.database], list[str]()
    if note.database == "admin" and note.name in {layout.USERS, layout.ROLES}:
        notes = accounts.publish(client, note.staged, note.name, replace=target.replace)
        database.drop_collection(note.staged)
        journal.set(note, state=DONE)
        return notes
    if note.kept and note.state != FILLING and _in_the_way(database, note):
        _put_aside(client, database, note.name, note.kept)
    if note.kept:
        notes.append(
            f"What was in {note.database}.{note.name} is kept as {note.kept}; drop it when it is "
            "not needed"
        )
    if note.definition is not None:
        _place(client, journal, note, note.definition)
    journal.set(note, state=DONE)
    return notes


def _in_the_way(database: Database, note: Note) -> bool:
    """Return whether the final name is still another's: not so after a kill past the rename."""
    found = _present(database).get(note.name)
    if found is None:
        return False
    staged = {one["name"] for one in database.list_collections(filter={"name": note.staged})}
    return note.definition is None or note.definition.kind == VIEW or bool(staged)


def _place(client: Client, journal: Journal, note: Note, definition: Definition) -> None:
    database = client[note.database]
    if definition.kind == VIEW:
        if note.name not in _present(database):
            database.command({"create": note.name, **definition.options})
        return
    renamed = definition.kind == COLLECTION and not note.name.startswith("system.")
    staged = {one["name"] for one in database.list_collections(filter={"name": note.staged})}
    if staged and renamed:
        client.admin.command(
            "renameCollection",
            f"{note.database}.{note.staged}",
            to=f"{note.database}.{note.name}",
        )
    elif staged:
        journal.set(note, state=FILLING)
        if note.name.startswith("system."):
            database[note.name].delete_many({})  # which may not be dropped
        else:
            database.drop_collection(note.name)
            load.make(client, definition, note.name)
        _copy(client, definition, note.staged, note.name)
        database.drop_collection(note.staged)
    _expire(client, definition)


def _expire(client: Client, definition: Definition) -> None:
    """Give a published collection back what makes it lose documents by itself."""
    database = client[definition.database]
    expiry = definition.options.get("expireAfterSeconds")
    if expiry is not None:
        database.command({"collMod": definition.name, "expireAfterSeconds": expiry})
    for name, spec in definition.indexes.items():
        if "expireAfterSeconds" not in spec:
            continue
        if session.release(session.version(client)) >= _EXPIRY_SINCE:
            change = {"name": name, "expireAfterSeconds": spec["expireAfterSeconds"]}
            database.command({"collMod": definition.name, "index": change})
        else:
            database.command({"dropIndexes": definition.name, "index": name})
            database.command({"createIndexes": definition.name, "indexes": [spec]})


def _put_aside(client: Client, database: Database, name: str, kept: str) -> None:
    """Move what is called `name` to `kept`; a repeat goes on where a kill left it."""
    there = _present(database)[name]
    if there.kind == COLLECTION and not name.startswith("system."):
        client.admin.command(
            "renameCollection", f"{database.name}.{name}", to=f"{database.name}.{kept}"
        )
        return
    database.drop_collection(kept)
    if there.kind == VIEW:
        database.command({"create": kept, **there.options})
    else:
        load.make(client, there, kept)
        _copy(client, there, name, kept)
    if not name.startswith("system."):
        database.drop_collection(name)


def _copy(client: Client, definition: Definition, source: str, target: str) -> None:
    """Copy all documents and indexes of a collection that cannot be renamed.

    Raises:
        ComparisonError: The copy is not what was copied.
    """
    database = client[definition.database]
    names = [load.stored_in(definition, name) for name in (source, target)]
    reading = database.get_collection(names[0], read_concern=ReadConcern("local"))
    waiting = b""
    with reading.find_raw_batches(
        cursor_type=pymongo.CursorType.EXHAUST, no_cursor_timeout=True
    ) as cursor:
        for batch in cast("Iterator[bytes]", cursor):
            waiting += batch
            if len(waiting) >= _COPY_BYTES:
                load.insert_batch(client, database.name, names[1], waiting)
                waiting = b""
    if waiting:
        load.insert_batch(client, database.name, names[1], waiting)
    load.build(client, definition, target)
    before, after = (
        facts.measure(client, database.name, name, at=None, checksums=True) for name in names
    )
    if before != after:
        raise ComparisonError(
            f"The copy {definition.database}.{target} is not what {source} is",
            remedy="Nothing was dropped. Stop what writes to the target, then run the publish step "
            "again.",
            namespace=definition.namespace,
        )


def _present(database: Database) -> dict[str, Definition]:
    return {one.name: one for one in catalog.of_database(database)}
