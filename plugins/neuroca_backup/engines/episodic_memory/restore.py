"""Restoring collections: load beside what is there, then rename or merge into place."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bson.raw_bson import RawBSONDocument

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Restorable, RestoreTarget
from neuroca_backup.engines.episodic_memory import definitions
from neuroca_backup.engines.episodic_memory.definitions import COLLECTION, VIEW, Definition
from neuroca_backup.engines.episodic_memory.selecting import chosen, chosen_documents
from neuroca_backup.errors import TargetRefusedError
from neuroca_backup.memory.journal import LOADED, LOADING, PUBLISHED, Journal, mark
from neuroca_backup.memory.selection import nothing_matches

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client

_BATCH = 1000
_BATCH_BYTES = 8 * 1024 * 1024


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    selection, wanted = chosen(backup)
    with session.connect(target.endpoint) as client:
        session.version(client)
        if not client.admin.command("hello").get("isWritablePrimary"):
            raise TargetRefusedError(
                f"{target.endpoint.label} is no primary: nothing can be written there",
                remedy="Name the primary, or all members of the replica set.",
                server=target.endpoint.label,
            )
        taken = _taken(client, backup, wanted, whole=selection.whole)
    if taken and not target.replace:
        raise _refused(target, taken, verb="holds")
    if selection.whole:
        return [f"{name} will become as it is in the backup, or go with it" for name in taken]
    return [f"Chosen documents of {name} will be replaced, the others left alone" for name in taken]


def load(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Load every chosen document beside what is there; a repeat starts clean."""
    journal = Journal(backup.work)
    selection, wanted = chosen(backup)
    journal.write(LOADING)
    # What a killed load still has under way arrives under another name.
    token = secrets.token_hex(4)
    loaded: dict[str, int] = {}
    with session.connect(target.endpoint) as client:
        stored = [one for one in wanted.values() if one.kind != VIEW]
        _sweep(client, backup)
        for one in stored:
            name = staged(backup, one, token)
            options = one.options if selection.whole else {}
            client[one.database].command({"create": name, **options})
            raws = (raw for raw, _ in chosen_documents(backup, selection, one.namespace))
            loaded[one.namespace] = _insert(client, one, name, raws)
            if selection.whole and one.lasting_indexes:
                client[one.database].command(
                    {"createIndexes": name, "indexes": one.lasting_indexes}
                )
        if not selection.whole and not any(loaded.values()):
            _sweep(client, backup)
            raise nothing_matches(backup.only, backup_id=backup.last.backup_id)
    journal.write(LOADED, token=token)
    return [f"{name}: {count:,} documents loaded" for name, count in loaded.items() if count]


def publish(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Put everything in its place; a repeat changes nothing more."""
    journal = Journal(backup.work)
    if journal.published:
        return []
    selection, wanted = chosen(backup)
    note = journal.require_loaded(backup_id=backup.last.backup_id)
    notes = []
    with session.connect(target.endpoint) as client:
        if not note.get("begun"):
            taken = _taken(client, backup, wanted, whole=selection.whole)
            if taken and not target.replace:
                raise _refused(target, taken, verb="got")
            journal.write(**{**note, "begun": True})
        for one in sorted(wanted.values(), key=lambda one: one.kind == VIEW):
            if not selection.whole:
                _merge(client, one, staged(backup, one, note["token"]))
            elif one.kind == VIEW:
                _view(client, one)
            else:
                _rename(client, one, staged(backup, one, note["token"]))
        if selection.whole:
            for one in surplus(client, backup):
                client[one.database].drop_collection(one.name)
                notes.append(f"{one.namespace}, which the backup does not have, is removed")
        _sweep(client, backup)
    journal.write(PUBLISHED)
    return notes


def staged(backup: Restorable, definition: Definition, token: str) -> str:
    """Return under which name a collection is loaded; no engine takes it for data."""
    digest = hashlib.sha256(f"{token} {definition.namespace}".encode()).hexdigest()[:32]
    return f"{_staging(backup)}{digest}"


def _staging(backup: Restorable) -> str:
    return f"restoring_{mark(backup.last.backup_id, backup.only)}_"


def _sweep(client: Client, backup: Restorable) -> None:
    """Remove what an earlier load of this restore has left."""
    for database in {one.database for one in chosen(backup)[1].values()}:
        for name in client[database].list_collection_names():
            if name.startswith(_staging(backup)):
                client[database].drop_collection(name)


def surplus(client: Client, backup: Restorable) -> list[Definition]:
    """Return the tier's collections that are on the server and not in the backup."""
    facts = backup.last.dump.facts
    present = definitions.read(client, facts["patterns"])
    return [one for one in present if one.namespace not in facts["collections"]]


def _insert(client: Client, definition: Definition, name: str, raws: Iterator[bytes]) -> int:
    """Insert documents in their order; return how many.

    They were there, so no rule that was made later keeps them out.
    """
    into = client[definition.database].get_collection(name)
    held: list[Any] = []
    size = count = 0
    for raw in raws:
        if held and (len(held) >= _BATCH or size + len(raw) > _BATCH_BYTES):
            into.insert_many(held, bypass_document_validation=True)
            held, size = [], 0
        held.append(RawBSONDocument(raw))
        size += len(raw)
        count += 1
    if held:
        into.insert_many(held, bypass_document_validation=True)
    return count


def _rename(client: Client, definition: Definition, name: str) -> None:
    """Give the collection loaded as `name` its own, then the indexes that remove documents."""
    database = client[definition.database]
    if definitions.one(client, definition.database, name) is not None:
        there = definitions.one(client, definition.database, definition.name)
        if there is not None and there.kind != COLLECTION:
            database.drop_collection(definition.name)
        client.admin.command(
            "renameCollection",
            f"{definition.database}.{name}",
            to=definition.namespace,
            dropTarget=True,
        )
    if definition.expiring_indexes:
        specs = definition.expiring_indexes
        database.command({"createIndexes": definition.name, "indexes": specs})


def _view(client: Client, definition: Definition) -> None:
    database = client[definition.database]
    there = definitions.one(client, definition.database, definition.name)
    if there is not None and there.kind == VIEW and there.words() == definition.words():
        return
    if there is not None:
        database.drop_collection(definition.name)
    database.command({"create": definition.name, **definition.options})


def _merge(client: Client, definition: Definition, name: str) -> None:
    """Put the documents loaded as `name` in the place of those with their `_id`s."""
    database = client[definition.database]
    if definitions.one(client, definition.database, name) is None:
        return  # an earlier try has come so far
    if definitions.one(client, definition.database, definition.name) is None:
        database.command({"create": definition.name, **definition.options})
        if definition.indexes:
            database.command(
                {"createIndexes": definition.name, "indexes": list(definition.indexes)}
            )
    stage: Mapping[str, Any] = {
        "into": {"db": definition.database, "coll": definition.name},
        "on": "_id",
        "whenMatched": "replace",
        "whenNotMatched": "insert",
    }
    # https://www.mongodb.com/docs/manual/reference/operator/aggregation/merge/
    database[name].aggregate([{"$merge": stage}], bypassDocumentValidation=True).close()
    database.drop_collection(name)


def _taken(
    client: Client, backup: Restorable, wanted: Mapping[str, Definition], *, whole: bool
) -> list[str]:
    """Return what of the tier holds documents, or is a view, where this would be restored."""
    present = definitions.read(client, backup.last.dump.facts["patterns"])
    return [
        one.namespace
        for one in present
        if (whole or one.namespace in wanted)
        and (one.kind == VIEW or client[one.database][one.name].find_one({}, {"_id": 1}))
    ]


def _refused(target: RestoreTarget, taken: list[str], *, verb: str) -> TargetRefusedError:
    return TargetRefusedError(
        f"{target.endpoint.label} {verb} data in {', '.join(taken[:10])}",
        remedy="Restore into an empty server or a sandbox, or confirm an in-place restore.",
        namespaces=taken,
    )
