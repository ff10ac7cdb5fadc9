"""Restoring any vector store: load beside (or in place), compare, put in place."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from neuroca_backup.errors import (
    ConfigurationError,
    IncompatibleVersionError,
    NotFoundError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.vectors import columns, naming, parts
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.model import Collection, Name

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

log = logging.getLogger(__name__)

_PROGRESS_SECONDS = 10


class Backup(Protocol):
    """What of an engine's `Restorable` is needed here."""

    @property
    def last(self) -> Manifest:
        """The manifest of the chosen backup."""
        ...

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its members lie."""
        ...

    @property
    def until(self) -> datetime | None:
        """The last moment to be restored."""
        ...

    @property
    def only(self) -> tuple[str, ...]:
        """Names of collections, () for all."""
        ...


class Target(Protocol):
    """What of an engine's `RestoreTarget` is needed here."""

    @property
    def endpoint(self) -> Endpoint:
        """Where to restore to."""
        ...

    @property
    def replace(self) -> bool:
        """Whether what is there may be replaced."""
        ...


@dataclass(frozen=True, slots=True)
class Restored:
    """One collection of a backup and where it goes: first to `loaded`, in the end to `place`."""

    collection: Collection
    facts: dict[str, Any]
    place: Name
    loaded: Name
    mark: str

    @property
    def at(self) -> Name:
        """Where it was."""
        return self.collection.at


def chosen(backup: Backup, database: VectorDatabase) -> list[Restored]:
    """Return what is to be restored.

    Raises:
        ConfigurationError: There is no such collection in the backup, or a moment was asked for.
    """
    manifest = backup.last
    if backup.until is not None:
        raise ConfigurationError(
            "A dump of a vector store has one moment, it cannot be restored to another",
            remedy="Choose a backup by its id or by a time before which it was taken.",
            value=backup.until.isoformat(),
        )
    known = manifest.dump.facts["collections"]
    all_of_them = {label: Collection.model_validate(one["schema"]) for label, one in known.items()}
    missing = [
        word
        for word in backup.only
        if not any(word in (one.at.label, one.name) for one in all_of_them.values())
    ]
    if missing:
        raise ConfigurationError(
            f"{manifest.backup_id} holds no collection {', '.join(missing)}",
            remedy=f"It holds {', '.join(known)}.",
            value=missing,
        )
    found = []
    for label, collection in all_of_them.items():
        if backup.only and not {label, collection.name} & set(backup.only):
            continue
        place = database.place(collection.at)
        beside = naming.staging(manifest.backup_id, collection.at, place)
        found.append(
            Restored(
                collection=collection,
                facts=known[label],
                place=place,
                loaded=beside if database.beside else place,
                mark=naming.mark(manifest.backup_id, collection.at),
            )
        )
    return found


def preflight(backup: Backup, target: Target, database: VectorDatabase) -> list[str]:
    """Refuse what cannot work before anything is touched.

    Raises:
        IncompatibleVersionError: The server cannot take a field, an index or a dimension, or has
            a collection of that name with vectors of another dimension.
        TargetRefusedError: A collection holds rows and may not be replaced.
    """
    present = set(database.collections())
    todo = chosen(backup, database)
    taken: list[Restored] = []
    for one in todo:
        database.refuse(one.collection, one.place)
        if one.place in present:
            _refuse_other_dimensions(one, database.describe(one.place))
            if _holds_rows(database, one):
                taken.append(one)
    if taken and not target.replace:
        raise _taken(target, taken, "has")
    if not database.beside:
        return [f"{one.place.label} will be replaced" for one in taken]
    backup_id = backup.last.backup_id
    return [
        f"{one.place.label} will be kept as "
        f"{naming.kept(backup_id, one.at, one.place, present).collection}"
        for one in taken
    ]


def load(backup: Backup, target: Target, database: VectorDatabase) -> list[str]:
    """Load every chosen collection, whole and indexed; a repeat starts clean."""
    files, notes = backup.folders[-1], []
    names = [member.name for member in backup.last.members]
    for one in chosen(backup, database):
        if one.loaded in set(database.collections()):
            theirs = one.loaded == one.place and database.made_by(one.place) != one.mark
            if theirs and not target.replace and _holds_rows(database, one):
                raise _taken(target, [one], "got")
            database.drop(one.loaded)
        database.create(one.collection, one.loaded, mark=one.mark)
        begun = time.monotonic()
        bulk = [
            _load_rows(one, partition, names, files, database)
            for partition in one.facts["partitions"]
        ]
        loaded = time.monotonic()
        database.build(one.loaded, one.collection)
        rows, rate = one.facts["count"], one.facts["count"] / max(loaded - begun, 1e-9)
        how = "the server's own import" if any(bulk) else "batches"
        notes.append(
            f"{one.place.label}: {rows:,} rows by {how} in {loaded - begun:.1f} s ({rate:,.0f}/s), "
            f"indexes in {time.monotonic() - loaded:.1f} s"
        )
        if one.collection.new_keys and rows:
            notes.append(
                f"{one.place.label} makes its own keys ({one.collection.key}): its rows have new "
                "ones, and are compared by what they hold."
            )
    return notes


def publish(backup: Backup, target: Target, database: VectorDatabase) -> list[str]:
    """Put every loaded collection in its place; a repeat changes nothing more."""
    notes: list[str] = []
    for one in chosen(backup, database):
        present = set(database.collections())
        waiting = one.loaded in present and one.loaded != one.place
        if waiting and one.place in present and not target.replace and _holds_rows(database, one):
            raise _taken(target, [one], "got")
        kept = naming.kept(backup.last.backup_id, one.at, one.place, present)
        notes += database.swap(one.collection, one.place, loaded=one.loaded, kept=kept)
    return notes


def _load_rows(
    one: Restored, partition: str, names: Sequence[str], files: Path, database: VectorDatabase
) -> bool:
    """Load one partition; return whether the server imported it by itself."""
    folder = parts.partition_folder(one.at, one.collection, partition)
    members = parts.part_names(names, folder)
    told = _Telling(one.place, one.facts["count"])
    if not members:
        return False
    if database.bulk_import(
        one.loaded,
        one.collection,
        parts.paths(files, members),
        partition=partition,
        on_rows=told.add,
    ):
        return True
    with ThreadPoolExecutor(max_workers=database.threads) as pool:
        running: set[Future[None]] = set()
        try:
            for batch in _batches(one.collection, files, members):
                running.add(pool.submit(_insert, database, one, batch, partition, told))
                if len(running) > database.threads:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return False


def _insert(
    database: VectorDatabase, one: Restored, batch: pa.RecordBatch, partition: str, told: _Telling
) -> None:
    database.insert(one.loaded, one.collection, batch, partition=partition)
    told.add(batch.num_rows)


def _batches(
    collection: Collection, files: Path, members: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    schema = columns.schema_of(collection)
    for member, path in zip(members, parts.paths(files, members), strict=True):
        yield from parts.read_file(path, member, schema)


class _Telling:
    """Tells of a long load: how far, how fast, how long still."""

    def __init__(self, at: Name, total: int) -> None:
        self._at, self._total = at, total
        self._done = 0
        self._begun = self._told = time.monotonic()

    def add(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._told < _PROGRESS_SECONDS:
            return
        self._told = now
        rate = self._done / (now - self._begun)
        log.info(
            "load %s: %d of %d rows, %.0f/s, %.0f s to go",
            self._at.label,
            self._done,
            self._total,
            rate,
            (self._total - self._done) / rate,
        )


def _refuse_other_dimensions(one: Restored, there: Collection) -> None:
    known = {field.name: field.dimension for field in there.vectors}
    for field in one.collection.vectors:
        if field.name in known and known[field.name] != field.dimension:
            raise IncompatibleVersionError(
                f"{one.place.label} has vectors {field.name} of {known[field.name]} dimensions, "
                f"the backup's have {field.dimension}",
                remedy="What reads and writes there expects the other dimension. Restore to "
                "another database or server, or rename that collection first if it is obsolete.",
                field=field.name,
                target=known[field.name],
                backup=field.dimension,
            )


def _holds_rows(database: VectorDatabase, one: Restored) -> bool:
    with database.reading(one.place):
        return database.count(one.place) > 0


def _taken(target: Target, taken: Sequence[Restored], verb: str) -> TargetRefusedError:
    names = [one.place.label for one in taken]
    since = " since the check" if verb == "got" else ""
    return TargetRefusedError(
        f"{target.endpoint.label} {verb} collections with data{since}: {', '.join(names)}",
        remedy="Restore into an empty server or a sandbox, or confirm an in-place restore.",
        collections=names,
    )


def loaded_name(one: Restored, present: set[Name]) -> Name:
    """Return under which name the copy is now: the one it was loaded under, or its own."""
    for name in (one.loaded, one.place):
        if name in present:
            return name
    raise NotFoundError(
        f"There is neither {one.loaded.label} nor {one.place.label}: nothing was loaded",
        remedy="Run the restore from its load step on.",
        collection=one.place.label,
    )
