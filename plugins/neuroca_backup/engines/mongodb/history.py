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
        if operation.kind != operations.COMMAND:
            return
        body, known = operation.body, self._stored.get(operation.uuid)
        match operation.command:
            case "create":
                self._create(operation)
            case "drop":
                self._stored.pop(operation.uuid, None)
            case "dropDatabase":
                self._drop_database(operation.database)
            case "renameCollection":
                self._rename(operation)
            case "collMod" if known is not None:
                self._modify(known, body)
            case "createIndexes" if known is not None:
                spec = {word: value for word, value in body.items() if word != "createIndexes"}
                self._index(known, [spec])
            case "commitIndexBuild" if known is not None:
                self._index(known, body["indexes"])
            case "dropIndexes" | "deleteIndexes" | "deleteIndex" | "dropIndex" if known:
                self._drop_index(known, body)

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

    def _modify(self, known: Definition, given: Mapping[str, Any]) -> None:
        body = _plain(given)
        del body["collMod"]
        index = body.pop("index", None)
        indexes = dict(known.indexes)
        if index is not None:
            name = index.get("name") or next(
                (n for n, s in indexes.items() if s["key"] == index.get("keyPattern")), ""
            )
            if name in indexes:
                changes = {w: v for w, v in index.items() if w not in {"name", "keyPattern"}}
                spec = {**indexes[name], **changes}
                for word in ("hidden", "prepareUnique"):
                    if spec.get(word) is False:
                        del spec[word]
                if spec.get("unique"):
                    spec.pop("prepareUnique", None)
                indexes[name] = spec
        options = dict(known.options)
        if "timeseries" in body:
            series = {**options.get("timeseries", {}), **body.pop("timeseries")}
            if "granularity" in series:
                series.pop("bucketMaxSpanSeconds", None)
                series.pop("bucketRoundingSeconds", None)
            options["timeseries"] = series
        options |= {word: value for word, value in body.items() if word not in {"cappedSize"}}
        if options.get("expireAfterSeconds") == "off":
            del options["expireAfterSeconds"]
        if body.keys() & {"validator", "validationLevel", "validationAction"}:
            # The server writes its defaults down, too.
            options = {"validationLevel": "strict", "validationAction": "error", **options}
        if options.get("validator", {}) == {}:
            for word in ("validator", "validationLevel", "validationAction"):
                options.pop(word, None)
        if "cappedSize" in body:
            options["size"] = body["cappedSize"]
        if "cappedMax" in body:
            options["max"] = options.pop("cappedMax")
        self._stored[known.uuid] = dataclasses.replace(known, options=options, indexes=indexes)

    def _index(self, known: Definition, specs: Iterable[Mapping[str, Any]]) -> None:
        made = {spec["name"]: _plain(spec) for spec in specs}
        self._stored[known.uuid] = dataclasses.replace(known, indexes={**known.indexes, **made})

    def _drop_index(self, known: Definition, body: Mapping[str, Any]) -> None:
        name = body["index"]
        left = {n: spec for n, spec in known.indexes.items() if n != name and name != "*"}
        self._stored[known.uuid] = dataclasses.replace(known, indexes=left)


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a raw document, and all within it, as ordinary dictionaries."""
    text = json_util.dumps(document, json_options=json_util.CANONICAL_JSON_OPTIONS)
    found: dict[str, Any] = json_util.loads(text, json_options=json_util.CANONICAL_JSON_OPTIONS)
    return found
