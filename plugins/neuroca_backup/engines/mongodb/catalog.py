"""Which collections there are and how they are defined, read from a server.

A definition is kept as canonical extended JSON, the form in which mongodump writes it, so that it
passes through a manifest unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bson import json_util

from neuroca_backup.engines.mongodb import layout
from neuroca_backup.errors import NotFoundError

if TYPE_CHECKING:
    from neuroca_backup.mongodb_session import Client, Database

COLLECTION, TIMESERIES, VIEW = "collection", "timeseries", "view"


@dataclass(frozen=True, slots=True)
class Definition:
    """One collection, time series or view.

    `uuid` (hex) follows a collection through renames; that of a time series is its buckets', a
    view has none. `options` are those of `create`, `indexes` maps names to specifications without
    the one of `_id`; those of a time series are the buckets'.
    """

    database: str
    name: str
    kind: str
    uuid: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    indexes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        """`database.collection` as applications call it."""
        return f"{self.database}.{self.name}"

    @property
    def stored_in(self) -> str:
        """The collection that holds the documents."""
        return layout.BUCKETS + self.name if self.kind == TIMESERIES else self.name

    @property
    def capped(self) -> bool:
        """Whether the server itself removes the oldest documents."""
        return bool(self.options.get("capped"))

    def facts(self) -> dict[str, Any]:
        """Return the definition as plain JSON for a manifest."""
        return {
            "type": self.kind,
            "uuid": self.uuid,
            "options": dumps(self.options),
            "indexes": {name: dumps(spec) for name, spec in sorted(self.indexes.items())},
        }

    @classmethod
    def of(cls, namespace: str, facts: Mapping[str, Any]) -> Definition:
        """Return the definition that `facts` were made of."""
        database, name = layout.split(namespace)
        return cls(
            database=database,
            name=name,
            kind=facts["type"],
            uuid=facts["uuid"],
            options=loads(facts["options"]),
            indexes={name: loads(spec) for name, spec in facts["indexes"].items()},
        )


def dumps(document: Mapping[str, Any]) -> str:
    """Return a document as canonical extended JSON, in its own order."""
    return json_util.dumps(document, json_options=json_util.CANONICAL_JSON_OPTIONS)


def loads(text: str) -> dict[str, Any]:
    """Return the document that `dumps` wrote."""
    found: dict[str, Any] = json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
    return found


def metadata(definition: Definition, indexes: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the `.metadata.json` of a collection; `indexes` are all of `listIndexes`."""
    document: dict[str, Any] = {"options": definition.options, "indexes": indexes}
    if definition.uuid and definition.kind == COLLECTION:
        document["uuid"] = definition.uuid
    document |= {"collectionName": definition.name, "type": definition.kind}
    return dumps(document).encode()


def read(client: Client, databases: str | Sequence[str]) -> list[Definition]:
    """Return the definition of everything that is backed up, by database and name.

    Raises:
        NotFoundError: A listed database does not exist.
    """
    present = [name for name in client.list_database_names() if layout.takes_database(name)]
    if not isinstance(databases, str):
        missing = sorted(set(databases) - set(present))
        if missing or not databases:
            raise NotFoundError(
                f"There is no database {', '.join(missing) or '(none named)'}; there are "
                f"{', '.join(present)}",
                remedy="Correct the source's `databases` option in backup.yaml.",
                databases=missing,
            )
        # Users and roles are part of every backup.
        present = sorted({*databases, "admin"} & set(present))
    found = [one for name in sorted(present) for one in of_database(client[name])]
    return [
        one
        for one in found
        if isinstance(databases, str)
        or one.database in databases
        or one.name in {layout.USERS, layout.ROLES, layout.VERSION}
    ]


def of_database(database: Database, *, staged: bool = False) -> list[Definition]:
    """Return the definitions of one database by name; with `staged`, those of restores as well."""
    listed = {one["name"]: one for one in database.list_collections()}
    found = []
    for name in sorted(listed):
        if name.startswith(layout.BUCKETS):
            continue
        if not layout.takes_collection(database.name, name) and not (
            staged and layout.STAGING.fullmatch(name)
        ):
            continue
        kind = listed[name].get("type", COLLECTION)
        holder = listed.get(layout.BUCKETS + name) if kind == TIMESERIES else listed[name]
        if holder is None:
            continue  # dropped between two batches of the listing
        uuid = holder.get("info", {}).get("uuid")
        found.append(
            Definition(
                database=database.name,
                name=name,
                kind=kind,
                uuid=bytes(uuid).hex() if kind != VIEW and uuid is not None else "",
                options=_options(listed[name].get("options", {})),
                indexes={} if kind == VIEW else _indexes(database, holder["name"]),
            )
        )
    return found


def all_indexes(database: Database, name: str) -> list[dict[str, Any]]:
    """Return `listIndexes`, without those that are being built; none where the name is gone."""
    command = {"listIndexes": name, "includeBuildUUIDs": True, "cursor": {"batchSize": 1000}}
    from pymongo.errors import OperationFailure  # noqa: PLC0415 - once for each collection

    try:
        listed = database.command(command)["cursor"]["firstBatch"]
    except OperationFailure as error:
        if error.code == 26:
            return []
        raise
    return [
        {word: value for word, value in one.items() if word != "ns"}
        for one in listed
        if "buildUUID" not in one
    ]


def words(definition: Definition) -> str:
    """Return options and indexes for comparison: neither order nor width of numbers matters."""
    return json.dumps(
        [
            _relaxed(definition.options),
            {name: _ordered_key(spec) for name, spec in definition.indexes.items()},
        ],
        sort_keys=True,
    )


def _ordered_key(spec: Mapping[str, Any]) -> Any:
    # The order of an index's key is its meaning, and sorting would hide it.
    body = _relaxed(spec)
    return {**body, "key": list(body.get("key", {}).items())}


def _relaxed(document: Mapping[str, Any]) -> Any:
    words = json_util.dumps(document, json_options=json_util.RELAXED_JSON_OPTIONS)
    return json.loads(words)


def _options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in options.items() if word not in {"uuid", "temp"}}


def _indexes(database: Database, name: str) -> dict[str, dict[str, Any]]:
    return {
        spec["name"]: spec
        for spec in all_indexes(database, name)
        if list(spec["key"].items()) != [("_id", 1)]
    }
