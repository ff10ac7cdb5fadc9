"""Which collections a tier has, and how each is defined."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from bson import json_util

from neuroca_backup.errors import ConfigurationError

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client

COLLECTION, VIEW = "collection", "view"
# What belongs to the server itself, or was left beside by the restore of another engine.
_NEVER = frozenset({"admin", "local", "config", "neuroca_restore"})
_LEFT = re.compile(r"system\..*|restoring_[0-9a-f]{12}_[0-9a-f]{32}|before_[0-9a-f]{12}_.*")
# An index with this removes documents; a restored collection gets it when it has been compared.
_TTL = "expireAfterSeconds"


@dataclass(frozen=True, slots=True)
class Definition:
    """A collection or a view; `options` are those of `create`, `indexes` those beside `_id`'s.

    `uuid` tells one collection from another of the same name, and is no part of what is restored.
    """

    database: str
    name: str
    kind: str
    options: Mapping[str, Any]
    indexes: tuple[Mapping[str, Any], ...] = ()
    uuid: str = ""

    @property
    def namespace(self) -> str:
        """`database.collection`."""
        return f"{self.database}.{self.name}"

    @property
    def lasting_indexes(self) -> list[Mapping[str, Any]]:
        """The indexes that remove no documents."""
        return [spec for spec in self.indexes if _TTL not in spec]

    @property
    def expiring_indexes(self) -> list[Mapping[str, Any]]:
        """The indexes that remove documents when their time has come."""
        return [spec for spec in self.indexes if _TTL in spec]

    def document(self) -> dict[str, Any]:
        """Return it as canonical Extended JSON, without the UUID."""
        body = {"options": dict(self.options), "indexes": list(self.indexes)}
        text = json_util.dumps(body, json_options=json_util.CANONICAL_JSON_OPTIONS)
        plain: dict[str, Any] = json.loads(text)
        return {"database": self.database, "collection": self.name, "type": self.kind, **plain}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Definition:
        """Return the definition that `document` gave."""
        body: dict[str, Any] = json_util.loads(
            json.dumps({word: document[word] for word in ("options", "indexes")}),
            json_options=json_util.CANONICAL_JSON_OPTIONS,
        )
        return cls(
            database=document["database"],
            name=document["collection"],
            kind=document["type"],
            options=body["options"],
            indexes=tuple(body["indexes"]),
        )

    def words(self, *, staged: bool = False) -> str:
        """Return it in a form to be compared; `staged` without what waits for the publish step.

        Neither the order of options nor the width of their numbers matters, that of an index's
        keys does.
        """
        indexes = self.lasting_indexes if staged else self.indexes
        specs = {
            spec["name"]: {
                **_relaxed({word: v for word, v in spec.items() if word != "v"}),
                "key": list(_relaxed(spec["key"]).items()),
            }
            for spec in indexes
        }
        return json.dumps([_relaxed(self.options), specs], sort_keys=True)


def read(client: Client, patterns: Sequence[str]) -> list[Definition]:
    """Return everything that matches a pattern, by database and name.

    Raises:
        ConfigurationError: A time series is among it, whose documents the server keeps otherwise.
    """
    found = []
    for database in sorted(set(client.list_database_names()) - _NEVER):
        if not any(fnmatchcase(database, pattern.partition(".")[0]) for pattern in patterns):
            continue
        for listed in sorted(client[database].list_collections(), key=lambda one: one["name"]):
            namespace = f"{database}.{listed['name']}"
            if _LEFT.fullmatch(listed["name"]) or not takes(patterns, namespace):
                continue
            found.append(_definition(client, database, listed))
    return found


def takes(patterns: Sequence[str], namespace: str) -> bool:
    """Return whether a collection is one of the tier's."""
    return any(fnmatchcase(namespace, pattern) for pattern in patterns)


def one(client: Client, database: str, name: str) -> Definition | None:
    """Return one collection as it is now, None where there is none."""
    listed = list(client[database].list_collections(filter={"name": name}))
    return _definition(client, database, listed[0]) if listed else None


def _definition(client: Client, database: str, listed: Mapping[str, Any]) -> Definition:
    name, kind = listed["name"], listed.get("type", COLLECTION)
    if kind not in {COLLECTION, VIEW}:
        raise ConfigurationError(
            f"{database}.{name} is a {kind}, which cannot be exported document by document",
            remedy="Leave it out by the source's `collections`; the engine mongodb backs it up.",
            path="options.collections",
            value=f"{database}.{name}",
        )
    uuid = listed.get("info", {}).get("uuid")
    return Definition(
        database=database,
        name=name,
        kind=kind,
        options={w: v for w, v in listed.get("options", {}).items() if w not in {"uuid", "temp"}},
        indexes=() if kind == VIEW else tuple(_indexes(client, database, name)),
        uuid=bytes(uuid).hex() if uuid is not None else "",
    )


def _indexes(client: Client, database: str, name: str) -> list[dict[str, Any]]:
    specs = [dict(spec) for spec in client[database][name].list_indexes()]
    return [
        {word: value for word, value in spec.items() if word != "ns"}
        for spec in sorted(specs, key=lambda spec: str(spec["name"]))
        if list(spec["key"].items()) != [("_id", 1)]
    ]


def _relaxed(document: Mapping[str, Any]) -> Any:
    text = json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS)
    return json.loads(text)
