"""Restoring: load under names of its own, compare, and only then rename into place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuroca_backup import mongodb_session as session
from neuroca_backup.engines import Difference, Restorable, RestoreTarget
from neuroca_backup.engines.mongodb import catalog, chain, facts, load, publish
from neuroca_backup.engines.mongodb.catalog import VIEW, Definition
from neuroca_backup.engines.mongodb.chain import Wanted
from neuroca_backup.engines.mongodb.journal import Journal
from neuroca_backup.errors import (
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
)

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client


def preflight(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Refuse what cannot work before anything is touched; see the protocol."""
    wanted = chain.known(backup)
    with session.connect(target.endpoint) as client:
        theirs = session.version(client)
        _require_newer(backup, theirs, session.feature_version(client), target)
        taken = _taken(client, backup, wanted)
        if taken and not target.replace:
            raise TargetRefusedError(
                f"{target.endpoint.label} has data in {', '.join(taken[:10])}",
                remedy="Restore into an empty server or a sandbox, or confirm an in-place restore; "
                "it keeps them under another name.",
                namespaces=taken,
            )
    mark = chain.mark(backup)
    notes = [f"{name} will be kept under a name that begins with before_{mark}_" for name in taken]
    source = backup.last.dump.server_version
    if session.release(theirs) != session.release(source):
        notes.append(f"Definitions are not compared between versions {source} and {theirs}.")
    return notes


def load_all(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Load everything beside what is there; a repeat starts clean."""
    wanted = chain.resolve(backup)
    with session.connect(target.endpoint) as client:
        journal = Journal(client, wanted.mark)
        journal.begin()
        load.create(client, wanted)
        load.documents(client, backup, wanted)
        replay = load.Replay(client, wanted, load.covered(backup, wanted))
        replay.run(backup)
        load.indexes(client, wanted)
        journal.staged(wanted)
    notes = []
    if replay.applied:
        notes.append(f"{replay.applied:,} operations of the oplog were repeated")
    unsure = [
        name
        for name, one in wanted.facts.items()
        if not one["exact"] and wanted.definitions[name].kind != VIEW
    ]
    if unsure:
        notes.append(f"Not counted at the source, so only defined alike: {', '.join(unsure)}")
    if backup.until is not None:
        notes.append(
            "Collections that changed after the last backup before the chosen moment are compared "
            "by their number of documents alone"
        )
    return notes


def compare(backup: Restorable, target: RestoreTarget) -> list[Difference]:
    """Take the facts of every restored collection again and return what differs."""
    wanted = chain.resolve(backup)
    found: list[Difference] = []
    compared = 0
    with session.connect(target.endpoint) as client:
        same = session.release(session.version(client)) == session.release(
            backup.last.dump.server_version
        )
        staged = Journal(client, wanted.mark).complete
        present = {
            database: _present(client, database)
            for database in {one.database for one in wanted.definitions.values()}
        }
        for namespace, definition in wanted.definitions.items():
            expected = wanted.facts[namespace]
            name, waits = _place_of(wanted, definition, present[definition.database], staged=staged)
            if not waits and (namespace in chain.ACCOUNTS or (staged and definition.kind == VIEW)):
                # Accounts were merged with the target's own; a view has no copy before its end.
                continue
            there = present[definition.database].get(name)
            now = None
            if there is not None:
                now = _facts(client, definition, there, expected)
                if waits or not same:
                    now, expected = _alike(definition, now, expected, only_data=not same)
            shown = Definition.of(namespace, {**expected, "type": definition.kind})
            found += facts.differences(expected, now, shown)
            compared += 1
    if not compared:
        found.append(Difference("comparison", "at least one collection", "nothing to compare"))
    return found


def publish_all(backup: Restorable, target: RestoreTarget) -> list[str]:
    """Put everything in place; a repeat changes nothing more and returns no notes."""
    wanted = chain.resolve(backup)
    with session.connect(target.endpoint) as client:
        if Journal(client, wanted.mark).complete:
            return publish.publish(client, wanted.mark, wanted.whole, target)
        for namespace, one in wanted.definitions.items():
            if namespace not in chain.ACCOUNTS and one.name not in _present(client, one.database):
                raise _nothing_loaded(namespace, target)
    return []


def _require_newer(backup: Restorable, theirs: str, feature: str, target: RestoreTarget) -> None:
    source = backup.last.dump.server_version
    source_feature = backup.last.dump.facts["feature_version"] or source
    pairs = ((source, theirs, "MongoDB"), (source_feature, feature, "featureCompatibilityVersion"))
    for ours, found, what in pairs:
        if found and session.release(found) < session.release(ours):
            raise IncompatibleVersionError(
                f"A backup of {what} {ours} cannot be restored into {found} "
                f"({target.endpoint.label})",
                remedy=f"Restore into a server whose {what} is {ours} or newer.",
                source=ours,
                target=found,
            )


def _taken(client: Client, backup: Restorable, wanted: Mapping[str, Definition]) -> list[str]:
    names: dict[str, set[str]] = {}
    for namespace, one in wanted.items():
        if namespace not in chain.ACCOUNTS:
            names.setdefault(one.database, set()).add(one.name)
    return [
        namespace
        for database, of in sorted(names.items())
        for namespace in publish.occupied(
            client,
            database,
            of,
            whole=database != "admin" and (not backup.only or database in backup.only),
        )
    ]


def _present(client: Client, database: str) -> dict[str, Definition]:
    return {one.name: one for one in catalog.of_database(client[database], staged=True)}


def _place_of(
    wanted: Wanted, definition: Definition, present: Mapping[str, Definition], *, staged: bool
) -> tuple[str, bool]:
    """Return the name under which a collection lies now, and whether it still waits there."""
    waiting = "" if definition.kind == VIEW else wanted.staging(definition)
    if staged and waiting in present:
        return waiting, True
    return definition.name, False


def _facts(
    client: Client, definition: Definition, there: Definition, expected: Mapping[str, Any]
) -> dict[str, Any]:
    now: dict[str, Any] = {**there.facts(), "documents": None, "digest": None, "exact": True}
    if VIEW not in {there.kind, definition.kind} and expected["exact"]:
        now |= facts.measure(
            client,
            there.database,
            there.stored_in,
            at=None,
            checksums=expected["digest"] is not None,
        )
    return now


def _alike(
    definition: Definition,
    now: Mapping[str, Any],
    expected: Mapping[str, Any],
    *,
    only_data: bool,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take out of both what cannot be alike yet: expiry, which waits for the publishing."""
    alike = []
    for one in (now, expected):
        of = Definition.of(definition.namespace, one)
        options = {word: v for word, v in of.options.items() if word != "expireAfterSeconds"}
        indexes = {
            name: catalog.dumps(load.without_expiry(spec)) for name, spec in of.indexes.items()
        }
        if only_data or f"{definition.namespace}" in chain.ACCOUNTS:
            options, indexes = {}, {}
        if definition.name == "system.js":
            options = {}
        alike.append({**one, "options": catalog.dumps(options), "indexes": indexes})
    return alike[0], alike[1]


def _nothing_loaded(namespace: str, target: RestoreTarget) -> NotFoundError:
    return NotFoundError(
        f"{target.endpoint.label} has neither a staged copy nor {namespace}: nothing was loaded",
        remedy="Run the restore from its load step on.",
        namespace=namespace,
    )
