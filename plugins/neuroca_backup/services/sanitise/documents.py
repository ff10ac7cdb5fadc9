"""Sanitising collections of MongoDB: documents are read and changed in batches, in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from neuroca_backup.errors import NotFoundError, PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.mongodb_session import Client, connect
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker, mask_at, walk
from neuroca_backup.settings import RuleSettings

_BATCH = 1000
_LOOKED_AT = 2000  # documents that are looked into for values to search for
_SERVERS_OWN = frozenset({"admin", "config", "local"})
_NOT_VALID = 121  # https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml


@contextmanager
def opened(endpoint: Endpoint, collections: Sequence[str]) -> Iterator[Documents]:
    """Open the copy of the databases that `collections` (`database.collection`) are of."""
    names = dict.fromkeys(one.partition(".")[0] for one in collections)
    with connect(endpoint) as client:
        yield Documents(client, [name for name in names if name not in _SERVERS_OWN])


@dataclass
class Documents:
    """See `neuroca_backup.services.sanitise.copies.Copy`."""

    client: Client
    databases: Sequence[str]
    _sites: list[RuleSettings] = field(default_factory=list)

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Find the collection and the field of every rule, and refuse what cannot be changed."""
        kinds = dict(self._kinds())
        self._sites = []
        for rule in rules:
            kind = kinds.get(str(rule.collection))
            if kind is not None and kind != "collection":
                raise _impossible(rule, f"is a {kind}, not a collection", "Name a collection.")
            if kind is None or not self._holds(rule):
                if rule.optional:
                    continue
                raise NotFoundError(
                    f"{rule.place} is not in the copy",
                    remedy="Correct that rule of `sanitise`, or say `optional: true` where it may "
                    "be absent. Nothing was changed.",
                    place=rule.place,
                )
            self._refuse(rule)
            self._sites.append(rule)
        return self._sites

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Keep values from all over each collection, then from its beginning."""
        for rule in rules:
            collection = self._collection(rule)
            wanted = {rule.path[0]: 1}
            sampled = collection.aggregate(
                [{"$sample": {"size": _LOOKED_AT // 100}}, {"$project": wanted}]
            )
            for found in (sampled, collection.find({}, wanted, limit=_LOOKED_AT)):
                for one in found:
                    if not evidence.wants(rule.place):
                        break
                    for container, name in walk(one, rule.path):
                        evidence.add(rule.place, container[name])

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Replace what the rules name, all rules of a collection in one walk."""
        changes: list[Change] = []
        ordered = sorted(rules, key=lambda rule: str(rule.collection))
        for _, found in groupby(ordered, key=lambda rule: rule.collection):
            of_collection = list(found)
            emptied = [rule for rule in of_collection if not rule.path]
            if emptied:
                gone = self._collection(emptied[0]).delete_many({}).deleted_count
                changes.append(Change(emptied[0].place, "drop", gone))
                continue
            changes += self._walked(of_collection, masker)
        return changes

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield batches of documents as BSON, in which texts are UTF-8; or one by one."""
        for name, kind in self._kinds():
            if kind == "view":
                continue
            database, _, collection = name.partition(".")
            raw = self.client[database].get_collection(collection)
            if most is None:
                yield from raw.find_raw_batches()
                continue
            options: Any = raw.codec_options.with_options(document_class=RawBSONDocument)
            for one in raw.with_options(codec_options=options).find(limit=most):
                found: Any = one
                yield found.raw

    def _walked(self, rules: Sequence[RuleSettings], masker: Masker) -> list[Change]:
        collection = self._collection(rules[0])
        counts = dict.fromkeys(range(len(rules)), 0)
        batch: list[UpdateOne] = []
        tops = {rule.path[0]: 1 for rule in rules}
        # By `_id`, so that a document that moves while it is changed is not met again.
        for document in collection.find({}, tops, sort=[("_id", 1)], batch_size=_BATCH):
            key = document.pop("_id")
            before = set(document)
            done = 0
            for index, rule in enumerate(rules):
                changed = mask_at(document, rule, masker)
                counts[index] += changed
                done += changed
            if not done:
                continue
            gone = before - set(document)
            words: dict[str, Any] = {}
            if document:
                words["$set"] = document
            if gone:
                words["$unset"] = dict.fromkeys(gone, "")
            batch.append(UpdateOne({"_id": key}, words))
            if len(batch) == _BATCH:
                _write(collection, batch, rules)
                batch = []
        if batch:
            _write(collection, batch, rules)
        return [Change(one.place, one.action, counts[index]) for index, one in enumerate(rules)]

    def _kinds(self) -> Iterator[tuple[str, str]]:
        for database in self.databases:
            for one in self.client[database].list_collections():
                if not one["name"].startswith("system."):
                    yield f"{database}.{one['name']}", one["type"]

    def _collection(self, rule: RuleSettings) -> Any:
        database, _, name = str(rule.collection).partition(".")
        return self.client[database][name]

    def _holds(self, rule: RuleSettings) -> bool:
        """Return whether a document has the field; an empty collection has nothing in clear."""
        collection = self._collection(rule)
        if collection.find_one({}, {"_id": 1}) is None or not rule.path:
            return True
        return collection.find_one({rule.field: {"$exists": True}}, {"_id": 1}) is not None

    def _refuse(self, rule: RuleSettings) -> None:
        if rule.path[:1] == ("_id",):
            raise _impossible(
                rule, "names a document, and cannot be changed", "Drop the documents."
            )
        for name, index in self._collection(rule).index_information().items():
            unique = index.get("unique") and not index.get("sparse")
            covers = rule.field in (key for key, _ in index["key"])
            if covers and unique and rule.action in {"null", "drop"}:
                raise _impossible(
                    rule, f"is unique by the index {name}, and nothing is not", "Write `hash`."
                )


def _write(collection: Any, batch: list[UpdateOne], rules: Sequence[RuleSettings]) -> None:
    try:
        collection.bulk_write(batch, ordered=False)
    except BulkWriteError as error:
        codes = {one.get("code") for one in error.details.get("writeErrors", ())}
        if _NOT_VALID not in codes:
            raise
        places = ", ".join(rule.place for rule in rules)
        raise PermanentError(
            f"The collection {collection.full_name} has a validator that does not allow what the "
            f"rules for {places} would leave",
            remedy="Write `hash` or `fake` for what has to be there.",
            collection=collection.full_name,
        ) from None


def _impossible(rule: RuleSettings, problem: str, remedy: str) -> PermanentError:
    return PermanentError(
        f"{rule.place} {problem}",
        remedy=f"{remedy} The rule is in `sanitise`; nothing was changed.",
        place=rule.place,
    )
