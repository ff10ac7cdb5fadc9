"""Definitions through time: what an oplog makes of the collections of a manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from bson import json_util

from neuroca_backup.engines.mongodb import layout, operations
from neuroca_backup.engines.mongodb.catalog import COLLECTION, TIMESERIES, VIEW, Definition
from neuroca_backup.engines.mongodb.operations import Operation
from neuroca_backup.errors import ChainBrokenError

_VALIDATION = frozenset({"validator", "validationLevel", "validationAction"})


class History:
    """The definitions at one moment; `apply` moves it on by one operation.

    Only collections of `databases` (None for all) are followed.
    """

    def __init__(
        self, definitions: Iterable[Definition], *, databases: frozenset[str] | None
    ) -> None:
        self._stored: dict[str, Definition] = {}
        self._views: dict[str, Definition] = {}
        self._databases = databases
        for one in definitions:
            if one.kind == VIEW:
                self._views[one.namespace] = one
            else:
                self._stored[one.uuid] = one

    @property
    def definitions(self) -> dict[str, Definition]:
        """What there is at this moment, by namespace."""
        found = {one.namespace: one for one in self._stored.values()}
        return dict(sorted((found | self._views).items()))

    def apply(self, operation: Operation) -> None:
        """Repeat what changes definitions; other operations change nothing here.

        Raises:
            ChainBrokenError: A collection got its name from a place that is not backed up.
        """
        if not self._follows(operation.database):
            return
        if operation.namespace.endswith(f".{layout.VIEWS}"):
            self._view(operation)
            return
        if operation.kind == operations.COMMAND:
            self._command(operation)

    def _command(self, operation: Operation) -> None:
        match operation.command:
            case "create":
                self._create(operation)
            case "drop":
                self._stored.pop(operation.uuid, None)
            case "dropDatabase":
                self._drop_database(operation.database)
            case "renameCollection":
                self._rename(operation)
            case _:
                known = self._stored.get(operation.uuid)
                if known is not None:
                    self._stored[operation.uuid] = _changed(known, operation)

    def _follows(self, database: str) -> bool:
        return layout.takes_database(database) and (
            self._databases is None or database in self._databases
        )

    def _view(self, operation: Operation) -> None:
        body = _plain(operation.body)
        if operation.kind == operations.COMMAND:
            return
        namespace = str((operation.criteria or body)["_id"])
        if operation.kind == operations.DELETE:
            self._views.pop(str(body["_id"]), None)
        elif not str(body.get("viewOn", "")).startswith(layout.BUCKETS):
            database, name = layout.split(namespace)
            options = {word: value for word, value in body.items() if word != "_id"}
            self._views[namespace] = Definition(database, name, VIEW, options=options)

    def _create(self, operation: Operation) -> None:
        body = _plain(operation.body)
        name = str(body.pop("create"))
        for word in ("idIndex", "temp", "uuid"):
            body.pop(word, None)
        if "viewOn" in body:
            made = Definition(operation.database, name, VIEW, options=body)
            self._views[made.namespace] = made
            return
        if name == layout.VIEWS or not layout.takes_collection(operation.database, name):
            return
        kind = COLLECTION
        if name.startswith(layout.BUCKETS):
            kind, name = TIMESERIES, name.removeprefix(layout.BUCKETS)
            # The server adds these to the collection of the buckets.
            for word in ("validator", "validationLevel", "validationAction", "clusteredIndex"):
                body.pop(word, None)
        self._stored[operation.uuid] = Definition(
            operation.database, name, kind, uuid=operation.uuid, options=body
        )

    def _drop_database(self, database: str) -> None:
        for group in (self._stored, self._views):
            for key in [key for key, one in group.items() if one.database == database]:
                del group[key]

    def _rename(self, operation: Operation) -> None:
        body = operation.body
        source, target = str(body["renameCollection"]), str(body["to"])
        database, name = layout.split(target)
        replaced = body.get("dropTarget")
        if replaced is not None and not isinstance(replaced, bool):
            self._stored.pop(bytes(replaced).hex(), None)
        known = self._stored.get(operation.uuid)
        if known is not None:
            self._stored[operation.uuid] = dataclasses.replace(known, database=database, name=name)
        elif layout.takes_collection(database, name):
            raise ChainBrokenError(
                f"{target} was renamed from {source}, which is not backed up: a restore in place",
                remedy="Take a full backup; the next incremental ones continue that.",
                namespace=target,
            )


def _changed(known: Definition, operation: Operation) -> Definition:
    """Return what a command about options or indexes makes of a definition."""
    body = operation.body
    match operation.command:
        case "collMod":
            changes = _plain(body)
            del changes["collMod"]
            index = changes.pop("index", None)
            indexes = known.indexes if index is None else _changed_index(known.indexes, index)
            options = _changed_options(known.options, changes)
            return dataclasses.replace(known, options=options, indexes=indexes)
        case "createIndexes":
            spec = {word: value for word, value in _plain(body).items() if word != "createIndexes"}
            return dataclasses.replace(known, indexes={**known.indexes, spec["name"]: spec})
        case "commitIndexBuild":
            made = {spec["name"]: _plain(spec) for spec in body["indexes"]}
            return dataclasses.replace(known, indexes={**known.indexes, **made})
        case "dropIndexes" | "deleteIndexes" | "deleteIndex" | "dropIndex":
            gone = body["index"]
            left = {n: spec for n, spec in known.indexes.items() if gone not in {n, "*"}}
            return dataclasses.replace(known, indexes=left)
    return known


def _changed_index(
    indexes: Mapping[str, Mapping[str, Any]], change: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    name = change.get("name") or next(
        (name for name, spec in indexes.items() if spec["key"] == change.get("keyPattern")), ""
    )
    if name not in indexes:
        return dict(indexes)
    words = {word: value for word, value in change.items() if word not in {"name", "keyPattern"}}
    spec = {**indexes[name], **words}
    unset = {word for word in ("hidden", "prepareUnique") if spec.get(word) is False}
    if spec.get("unique"):
        unset.add("prepareUnique")
    return {**indexes, name: {word: value for word, value in spec.items() if word not in unset}}


def _changed_options(options: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    found = {**options, **change}
    if "timeseries" in change:
        series = {**options.get("timeseries", {}), **change["timeseries"]}
        if "granularity" in change["timeseries"]:
            # The server derives these from the granularity.
            for word in ("bucketMaxSpanSeconds", "bucketRoundingSeconds"):
                series.pop(word, None)
        found["timeseries"] = series
    for word, name in (("cappedSize", "size"), ("cappedMax", "max")):
        if word in found:
            found[name] = found.pop(word)
    if found.get("expireAfterSeconds") == "off":
        del found["expireAfterSeconds"]
    if change.keys() & _VALIDATION:
        # The server writes its defaults down, too.
        found = {"validationLevel": "strict", "validationAction": "error", **found}
    if not found.get("validator"):
        found.pop("validator", None)
    return found


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw document, and all within it, as ordinary dictionaries."""
    text = json_util.dumps(document, json_options=json_util.CANONICAL_JSON_OPTIONS)
    found: dict[str, Any] = json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
    return found
