"""What a restore brings back: which collections, with what content, up to which oplog entry."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from bson import Timestamp
from bson.raw_bson import RawBSONDocument

from neuroca_backup.engines import Restorable
from neuroca_backup.engines.mongodb import frames, layout, operations, oplog
from neuroca_backup.engines.mongodb.catalog import VIEW, Definition
from neuroca_backup.engines.mongodb.history import History
from neuroca_backup.engines.mongodb.operations import Operation, Transactions
from neuroca_backup.errors import ConfigurationError, DamagedError
from neuroca_backup.model.manifest import Manifest

_NEVER = frozenset({f"admin.{layout.VERSION}"})
ACCOUNTS = frozenset({f"admin.{layout.USERS}", f"admin.{layout.ROLES}"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """The state that a restore is to reach.

    `definitions` and `facts` by namespace; `stop` is the last oplog entry that counts, None for
    all there are; `links` is how many backups of the chain are read; `mark` is part of the names
    that are given to staged collections.
    """

    mark: str
    links: int
    stop: Timestamp | None
    definitions: Mapping[str, Definition]
    facts: Mapping[str, Mapping[str, Any]]
    whole: frozenset[str]

    @property
    def stored(self) -> dict[str, Definition]:
        """The definitions that have documents, by UUID."""
        return {one.uuid: one for one in self.definitions.values() if one.kind != VIEW}

    def staging(self, definition: Definition) -> str:
        """Return under which name a collection is loaded."""
        return f"restoring_{self.mark}_{definition.uuid}"


def mark(backup: Restorable) -> str:
    """Return what distinguishes this restore's names on the target from others'."""
    moment = "" if backup.until is None else backup.until.astimezone(UTC).isoformat()
    words = [backup.last.backup_id, moment, *backup.only]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:12]


def known(backup: Restorable) -> dict[str, Definition]:
    """Return the selected definitions as far as manifests tell, without any member.

    Raises:
        ConfigurationError: The backup holds no such part, or not that moment.
    """
    base, more = _base(backup)
    facts = {**base.dump.facts["collections"], **(more or base).dump.facts["collections"]}
    return _selected(backup, {name: Definition.of(name, one) for name, one in facts.items()})


def resolve(backup: Restorable) -> Wanted:
    """Return the state to be reached; reads the oplog slice in which `backup.until` lies.

    Raises:
        ConfigurationError: The backup holds no such part, or not that moment.
    """
    base, more = _base(backup)
    facts: dict[str, Mapping[str, Any]] = dict(base.dump.facts["collections"])
    definitions = {name: Definition.of(name, one) for name, one in facts.items()}
    stop = None
    links = backup.chain.index(base) + 1
    if more is not None:
        stop = oplog.parsed(base.dump.consistency["ts"])
        definitions, facts, stop = _until(backup, links, definitions, facts, stop)
        links += 1
    chosen = _selected(backup, definitions)
    return Wanted(
        mark=mark(backup),
        links=links,
        stop=stop,
        definitions=chosen,
        facts={name: facts[name] for name in chosen},
        whole=_whole(backup, chosen),
    )


def entries(folder: Path, *, after: Timestamp | None = None) -> Iterator[RawBSONDocument]:
    """Yield the entries of one backup's oplog member that come after `after`."""
    path = folder / layout.OPLOG
    if not path.exists():
        return
    with path.open("rb") as stream:
        for document in frames.documents(stream, name=layout.OPLOG):
            entry = RawBSONDocument(document)
            if after is None or entry["ts"] > after:
                yield entry


def _base(backup: Restorable) -> tuple[Manifest, Manifest | None]:
    """Return the newest backup not after the moment, and the next one if the moment is between."""
    if backup.until is None:
        return backup.last, None
    first, last = backup.full.dump.consistent_at, backup.last.dump.consistent_at
    if not first <= backup.until <= last:
        raise ConfigurationError(
            f"{backup.until.isoformat()} is not between the ends of the full backup and of the "
            "chosen one",
            remedy=f"Choose a moment from {first.isoformat()} to {last.isoformat()}, or other "
            "backups.",
            value=backup.until.isoformat(),
        )
    for number, manifest in reversed(list(enumerate(backup.chain))):
        if manifest.dump.consistent_at <= backup.until:
            more = backup.chain[number + 1] if number + 1 < len(backup.chain) else None
            return manifest, more
    raise AssertionError("the full backup is not after the moment")


def _until(
    backup: Restorable,
    link: int,
    definitions: Mapping[str, Definition],
    facts: Mapping[str, Mapping[str, Any]],
    after: Timestamp,
) -> tuple[dict[str, Definition], dict[str, Mapping[str, Any]], Timestamp]:
    """Return definitions and facts at `backup.until`, and the last entry not after it.

    An entry counts when its wall time, and that of every entry before it, is not after the moment.
    Whatever was acknowledged by then is among them.
    """
    assert backup.until is not None  # noqa: S101 - only called with one
    databases = backup.last.dump.facts["databases"]
    history = History(
        definitions.values(),
        databases=None if databases == "all" else frozenset({*databases, "admin"}),
    )
    transactions = Transactions()
    stop, delta = after, dict[str, int]()
    for number, folder in enumerate(backup.folders[: link + 1]):
        # Those of earlier links only tell which transactions were open at the end.
        for entry in entries(folder):
            effective = number == link and entry["ts"] > after
            if effective and entry["wall"].replace(tzinfo=UTC) > backup.until:
                break
            for operation in transactions.feed(entry):
                if effective:
                    history.apply(operation)
                    _count(delta, operation)
            stop = max(stop, entry["ts"])
    before = {one["uuid"]: one for one in facts.values() if one["uuid"]}
    found: dict[str, Mapping[str, Any]] = {}
    for name, one in history.definitions.items():
        if one.kind == VIEW:
            found[name] = {**one.facts(), "documents": None, "digest": None, "exact": False}
            continue
        old = before.get(one.uuid, {"documents": 0, "digest": None, "exact": True})
        figures = {word: old[word] for word in ("documents", "digest", "exact")}
        if one.uuid in delta:
            documents = (old["documents"] or 0) + delta[one.uuid]
            exact = old["exact"] and not one.capped
            figures = {"documents": documents, "digest": None, "exact": exact}
        found[name] = {**one.facts(), **figures}
    return history.definitions, found, stop


def _count(delta: dict[str, int], operation: Operation) -> None:
    change = {operations.INSERT: 1, operations.DELETE: -1, operations.UPDATE: 0}
    if operation.kind in change:
        delta[operation.uuid] = delta.get(operation.uuid, 0) + change[operation.kind]


def _selected(backup: Restorable, definitions: Mapping[str, Definition]) -> dict[str, Definition]:
    present = {name: one for name, one in definitions.items() if name not in _NEVER}
    if not backup.only:
        return present
    found = {
        name: one
        for name, one in present.items()
        if name in backup.only or one.database in backup.only
    }
    missing = [
        part
        for part in backup.only
        if part not in found and all(one.database != part for one in found.values())
    ]
    if missing:
        shown = ", ".join([*sorted({one.database for one in present.values()}), *present][:40])
        raise ConfigurationError(
            f"{backup.last.backup_id} holds no database or collection {', '.join(missing)}",
            remedy=f"It holds {shown}.",
            value=missing,
        )
    return found


def _whole(backup: Restorable, chosen: Mapping[str, Definition]) -> frozenset[str]:
    """Return the databases that are restored as a whole; `admin` never is."""
    databases = {one.database for one in chosen.values()} - {"admin"}
    return frozenset(databases if not backup.only else databases & set(backup.only))


def documents_of(backup: Restorable) -> dict[str, tuple[str, Path, int]]:
    """Return by UUID the member of the full backup, its file, and its number of documents.

    Raises:
        DamagedError: A file is not there.
    """
    found = {}
    for member, one in backup.full.dump.facts["members"].items():
        path = backup.folders[0].joinpath(*member.split("/"))
        if not path.exists():
            raise DamagedError(
                f"{member} of {backup.full.backup_id} is missing",
                remedy="Run the restore from its fetch step on.",
                key=member,
            )
        found[one["uuid"]] = (member, path, one["documents"])
    return found
