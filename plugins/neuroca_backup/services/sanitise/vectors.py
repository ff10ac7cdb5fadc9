"""Sanitising collections of vectors: copied with new values, and the copy takes their place."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroca_backup.engines.semantic_memory import store
from neuroca_backup.errors import NotFoundError, PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker, mask_at, walk
from neuroca_backup.settings import RuleSettings
from neuroca_backup.vectors import columns
from neuroca_backup.vectors.database import VectorDatabase
from neuroca_backup.vectors.model import Collection, Field, Name

_BATCH_BYTES = 8 << 20
_LOOKED_AT = 500  # rows that are looked into for values to search for


@contextmanager
def opened(endpoint: Endpoint, facts: Mapping[str, Any]) -> Iterator[Vectors]:
    """Open the copy of the collections that the dump's `facts` name."""
    names = {label.rpartition(".")[2] for label in facts["collections"]}
    with store.of(endpoint).connect(store.plain(endpoint)) as database:
        places = [at for at in database.collections() if at.collection in names]
        yield Vectors(database, places)


@dataclass
class Vectors:
    """See `neuroca_backup.services.sanitise.copies.Copy`."""

    database: VectorDatabase
    places: Sequence[Name]
    _sites: dict[Name, list[RuleSettings]] = field(default_factory=dict)

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Find the collection and the field of every rule, and refuse what cannot be changed."""
        self._sites = {}
        found = []
        for rule in rules:
            places = [at for at in self.places if self._holds(at, rule)]
            if not places and not rule.optional:
                raise NotFoundError(
                    f"{rule.place} is not in the copy",
                    remedy="Correct that rule of `sanitise`, or say `optional: true` where it may "
                    "be absent. Nothing was changed.",
                    place=rule.place,
                )
            for at in places:
                self._sites.setdefault(at, []).append(rule)
            found += [rule] if places else []
        return found

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Keep values from the first rows; a number of a vector is told from no other."""
        for at, found in self._sites.items():
            texts = [one for one in found if one in rules and not self._field(at, one).is_vector]
            for looked, row in enumerate(self._rows(at)):
                if looked == _LOOKED_AT or not any(evidence.wants(rule.place) for rule in texts):
                    break
                for rule in texts:
                    for container, name in walk(row, rule.path):
                        evidence.add(rule.place, container[name])

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Write each collection anew where the store can exchange two, in its place elsewhere."""
        del rules  # as in `capture`
        changes: list[Change] = []
        for at, found in self._sites.items():
            whole = next((rule for rule in found if not rule.path), None)
            if whole is not None:
                with self.database.reading(at):
                    count = self.database.count(at)
                self.database.drop(at)
                changes.append(Change(whole.place, "drop", count))
            else:
                changes += self._rewritten(at, found, masker)
        self.places = [at for at in self.places if at in self.database.collections()]
        return changes

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield rows as JSON; of vectors there is nothing to be read."""
        for at in self.places:
            for told, row in enumerate(self._rows(at)):
                if told == most:
                    break
                yield columns.json_text(
                    {name: value for name, value in row.items() if _readable(value)}
                ).encode()

    def _rewritten(self, at: Name, rules: Sequence[RuleSettings], masker: Masker) -> list[Change]:
        database, collection = self.database, self.database.describe(at)
        counts = dict.fromkeys(range(len(rules)), 0)
        word = secrets.token_hex(6)
        made = at._replace(collection=f"restoring_{word}") if database.beside else at
        if database.beside:
            database.create(collection, made, mark=word)
        elif collection.new_keys:
            raise PermanentError(
                f"The rows of {at.label} cannot be changed: the server makes their keys",
                remedy="Drop the whole collection by a rule without `field`.",
                collection=at.label,
            )
        for partition in collection.partitions:
            with database.reading(at):
                for batch in database.export(
                    at, collection, partition=partition, batch_bytes=_BATCH_BYTES
                ):
                    rows = list(columns.to_rows(collection, batch))
                    for row in rows:
                        for index, rule in enumerate(rules):
                            counts[index] += _mask(row, rule, masker, collection)
                    new = columns.from_rows(collection, rows)
                    put = database.insert if database.beside else database.upsert
                    put(made, collection, new, partition=partition)
        database.build(made, collection)
        if database.beside:
            kept = at._replace(collection=f"before_{word}")
            database.swap(collection, at, loaded=made, kept=kept)
            database.drop(kept)
        return [Change(one.place, one.action, counts[index]) for index, one in enumerate(rules)]

    def _rows(self, at: Name) -> Iterator[dict[str, Any]]:
        collection = self.database.describe(at)
        for partition in collection.partitions:
            with self.database.reading(at):
                for batch in self.database.export(
                    at, collection, partition=partition, batch_bytes=_BATCH_BYTES
                ):
                    yield from columns.to_rows(collection, batch)

    def _holds(self, at: Name, rule: RuleSettings) -> bool:
        """Return whether a collection has the place of `rule`, which may be within JSON."""
        if rule.collection not in {at.label, at.collection}:
            return False
        if not rule.path:
            return True
        collection = self.database.describe(at)
        if rule.path[0] not in {one.name for one in collection.fields}:
            return False
        found = self._field(at, rule)
        _refuse(found, rule, collection)
        if len(rule.path) == 1:
            return True
        empty = True
        for row in self._rows(at):
            empty = False
            if any(True for _ in walk(row, rule.path)):
                return True
        return empty

    def _field(self, at: Name, rule: RuleSettings) -> Field:
        return self.database.describe(at).field(rule.path[0])


def _refuse(found: Field, rule: RuleSettings, collection: Collection) -> None:
    if found.name == collection.key:
        raise _impossible(rule, "is the key of the collection", "Drop the whole collection.")
    if found.is_vector and (rule.action != "drop" or found.kind != "float_vector"):
        if rule.action == "drop":
            raise _impossible(
                rule, f"is a {found.kind}, which cannot be made the same", "Drop the collection."
            )
        raise _impossible(rule, "is a vector", "Write `action: drop`.")
    if found.kind not in {"json", "string", "array"} and not found.is_vector:
        raise _impossible(rule, f"is of type {found.kind}", "Drop the whole collection.")
    if len(rule.path) > 1 and found.kind != "json":
        raise _impossible(rule, f"leads into {found.kind}, not into JSON", "Name the field alone.")


def _mask(row: dict[str, Any], rule: RuleSettings, masker: Masker, collection: Collection) -> int:
    found = collection.field(rule.path[0])
    if found.is_vector:
        # Every row has to have one: they all get the same, which says nothing.
        same = np.zeros(found.dimension, np.float32)
        same[0] = 1
        row[found.name] = same
        return 1
    if len(rule.path) == 1 and (rule.action in {"null", "drop"}):
        # A field of a collection cannot be taken away, and most stores have no null.
        row[found.name] = (
            None if found.nullable else {"json": None, "array": []}.get(found.kind, "")
        )
        return 1
    done = mask_at(row, rule, masker)
    longest = int(found.native.get("max_length") or 0)
    if found.kind == "string" and longest and isinstance(row.get(found.name), str):
        row[found.name] = row[found.name][:longest]
    return done


def _readable(value: Any) -> bool:
    return isinstance(value, str | int | float | list | dict | None)


def _impossible(rule: RuleSettings, problem: str, remedy: str) -> PermanentError:
    return PermanentError(
        f"{rule.place} {problem}",
        remedy=f"{remedy} The rule is in `sanitise`; nothing was changed.",
        place=rule.place,
    )
