"""A double of Qdrant after its published REST API, as of version 1.16.

It follows https://api.qdrant.tech/api-reference and the models of the `qdrant-client` package,
whose client talks to it unchanged. What the real server does to data is done, too: vectors become
32-bit (or what their `datatype` says), those compared by cosine are normalised unless they are,
ids are 64-bit numbers or UUIDs, a search without `exact` sees what is indexed.
"""

from __future__ import annotations

import copy
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from support.doubles.http_double import HttpDouble, Refusal, Request

VERSION = "1.16.0"
_BODY_BYTES = 32 * 1024 * 1024
_DEFAULTS: Mapping[str, Any] = {
    "hnsw_config": {
        "m": 16,
        "ef_construct": 100,
        "full_scan_threshold": 10_000,
        "max_indexing_threads": 0,
        "on_disk": False,
    },
    "optimizer_config": {
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 1000,
        "default_segment_number": 0,
        "indexing_threshold": 10_000,
        "flush_interval_sec": 5,
    },
    "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1},
    "params": {
        "shard_number": 1,
        "replication_factor": 1,
        "write_consistency_factor": 1,
        "on_disk_payload": True,
    },
}


@dataclass
class Stored:
    """One collection."""

    config: dict[str, Any]
    created: Mapping[str, Any]
    points: dict[int | str, dict[str, Any]] = field(default_factory=dict)
    schema: dict[str, dict[str, Any]] = field(default_factory=dict)
    busy_until: float = 0.0

    @property
    def dense(self) -> Mapping[str, Any]:
        """The dense vectors by name; "" is the unnamed one."""
        vectors = self.config["params"].get("vectors") or {}
        return {"": vectors} if "size" in vectors else vectors

    @property
    def sparse(self) -> Mapping[str, Any]:
        """The sparse vectors by name."""
        return self.config["params"].get("sparse_vectors") or {}

    def ordered(self) -> list[int | str]:
        """Return all ids in the server's order: numbers first."""
        return sorted(self.points, key=_order)


class QdrantDouble(HttpDouble):
    """Qdrant in a thread.

    `index_seconds`: how long the optimizer works after each write; `broken`: why it gave up.
    """

    def __init__(self, *, api_key: str = "qdrant_secret") -> None:
        super().__init__()
        self.api_key = api_key
        self.index_seconds = 0.0
        self.version = VERSION
        self.broken = ""
        self.stored: dict[str, Stored] = {}
        self.aliases: dict[str, str] = {}
        one, points = "/collections/([^/]+)", "/collections/([^/]+)/points"
        self.port = self.listen(
            [
                ("GET", "/", lambda _: self._about()),
                ("GET", "/collections", self._list_collections),
                ("GET", "/aliases", lambda _: _ok({"aliases": self._aliases_of(None)})),
                ("POST", "/collections/aliases", self._change_aliases),
                ("GET", one, self._describe),
                ("PUT", one, self._create),
                ("PATCH", one, self._update),
                ("DELETE", one, self._delete_collection),
                ("GET", f"{one}/exists", lambda _, name: _ok({"exists": bool(self._find(name))})),
                ("GET", f"{one}/aliases", self._collection_aliases),
                ("PUT", f"{one}/index", self._create_index),
                ("PUT", points, self._upsert),
                ("POST", points, self._retrieve),
                ("POST", f"{points}/scroll", self._scroll),
                ("POST", f"{points}/count", self._count),
                ("POST", f"{points}/query", self._query),
                ("POST", f"{points}/delete", self._delete_points),
                ("POST", f"{points}/payload", self._set_payload),
            ]
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def authorise(self, request: Request) -> None:
        """Refuse a request without the key."""
        if request.headers.get("api-key") != self.api_key:
            raise Refusal(401, "Invalid API key or JWT")
        if request.size > _BODY_BYTES:
            raise _wrong("Payload error: JSON payload is larger than allowed", status=413)

    def failure(self, error: Refusal) -> Any:
        """Return the body of an error."""
        return error.body or {"status": {"error": f"status {error.status}"}, "time": 0.0}

    def points(self, name: str) -> dict[int | str, dict[str, Any]]:
        """Return the points of a collection or of an alias."""
        return self._get(name).points

    # Collections.

    def _about(self) -> Any:
        return {"title": "qdrant - vector search engine", "version": self.version, "commit": "0"}

    def _find(self, name: str) -> Stored | None:
        return self.stored.get(self.aliases.get(name, name))

    def _get(self, name: str) -> Stored:
        found = self._find(name)
        if found is None:
            raise _wrong(f"Not found: Collection `{name}` doesn't exist!", status=404)
        return found

    def _list_collections(self, _: Request) -> Any:
        return _ok({"collections": [{"name": name} for name in self.stored]})

    def _describe(self, _: Request, name: str) -> Any:
        found = self._get(name)
        busy = time.monotonic() < found.busy_until
        return _ok(
            {
                "status": "red" if self.broken else "yellow" if busy else "green",
                "optimizer_status": {"error": self.broken} if self.broken else "ok",
                "indexed_vectors_count": 0 if busy else len(found.points),
                # The real one is approximate while segments are merged.
                "points_count": len(found.points),
                "segments_count": 1,
                "config": found.config,
                "payload_schema": {
                    name: {**schema, "points": len(found.points)}
                    for name, schema in found.schema.items()
                },
            }
        )

    def _create(self, request: Request, name: str) -> Any:
        body = request.body
        if name in self.aliases:
            raise _wrong(
                f"Wrong input: Can't create collection with name {name}. "
                "Alias with the same name already exists"
            )
        if name in self.stored:
            raise _wrong(f"Wrong input: Collection `{name}` already exists!", status=409)
        if re.search(r'[<>:"/\\|?*\0\x1f]', name) or len(name) > 255:
            raise _wrong(f"Collection name cannot contain such characters: {name!r}", status=422)
        config = copy.deepcopy(dict(_DEFAULTS))
        config["hnsw_config"] |= body.get("hnsw_config") or {}
        config["optimizer_config"] |= body.get("optimizers_config") or {}
        config["wal_config"] |= body.get("wal_config") or {}
        config["params"] |= {
            word: body[word]
            for word in (
                *("vectors", "sparse_vectors", "shard_number", "sharding_method"),
                *("replication_factor", "write_consistency_factor", "on_disk_payload"),
            )
            if body.get(word) is not None
        }
        config["quantization_config"] = body.get("quantization_config")
        for word in ("strict_mode_config", "metadata"):
            if body.get(word):
                config[word] = body[word]
        self.stored[name] = Stored(config=config, created=body)
        return _ok(True)

    def _update(self, request: Request, name: str) -> Any:
        found, body = self._get(name), request.body
        found.config["optimizer_config"] |= body.get("optimizers_config") or {}
        found.config["hnsw_config"] |= body.get("hnsw_config") or {}
        if body.get("strict_mode_config"):
            found.config["strict_mode_config"] = body["strict_mode_config"]
        if body.get("metadata"):
            found.config.setdefault("metadata", {}).update(body["metadata"])
        found.busy_until = time.monotonic() + self.index_seconds
        return _ok(True)

    def _delete_collection(self, _: Request, name: str) -> Any:
        # An alias does not reach this one.
        found = self.stored.pop(name, None)
        self.aliases = {alias: of for alias, of in self.aliases.items() if of != name}
        return _ok(found is not None)

    # Aliases.

    def _aliases_of(self, name: str | None) -> list[dict[str, str]]:
        return [
            {"alias_name": alias, "collection_name": of}
            for alias, of in self.aliases.items()
            if name is None or of == name
        ]

    def _collection_aliases(self, _: Request, name: str) -> Any:
        return _ok({"aliases": self._aliases_of(name)})

    def _change_aliases(self, request: Request) -> Any:
        changed = dict(self.aliases)
        for action in request.body["actions"]:
            if "create_alias" in action:
                alias, name = (
                    action["create_alias"]["alias_name"],
                    action["create_alias"]["collection_name"],
                )
                if alias in self.stored:
                    raise _wrong(f"Wrong input: Collection `{alias}` already exists!", status=409)
                if name not in self.stored:
                    raise _wrong(f"Not found: Collection `{name}` doesn't exist!", status=404)
                changed[alias] = name
            elif "delete_alias" in action:
                changed.pop(action["delete_alias"]["alias_name"], None)
            else:
                rename = action["rename_alias"]
                changed[rename["new_alias_name"]] = changed.pop(rename["old_alias_name"])
        self.aliases = changed
        return _ok(True)

    def _create_index(self, request: Request, name: str) -> Any:
        schema = request.body["field_schema"]
        plain = (
            {"data_type": schema}
            if isinstance(schema, str)
            else {
                "data_type": schema["type"],
                "params": schema,
            }
        )
        self._get(name).schema[request.body["field_name"]] = plain
        return _done()

    # Points.

    def _upsert(self, request: Request, name: str) -> Any:
        found = self._get(name)
        batch = request.body.get("batch")
        points = (
            request.body["points"]
            if batch is None
            else [
                {
                    "id": one,
                    "vector": {word: values[place] for word, values in batch["vectors"].items()}
                    if isinstance(batch["vectors"], dict)
                    else batch["vectors"][place],
                    "payload": (batch.get("payloads") or [None] * len(batch["ids"]))[place],
                }
                for place, one in enumerate(batch["ids"])
            ]
        )
        ready = {}
        for point in points:
            given = point["vector"]
            vectors = given if isinstance(given, dict) and "indices" not in given else {"": given}
            ready[_id(point["id"])] = {
                "vectors": {
                    word: _vector(found, word, values)
                    for word, values in vectors.items()
                    if values is not None
                },
                "payload": point.get("payload"),
            }
        found.points.update(ready)
        found.busy_until = time.monotonic() + self.index_seconds
        return _done()

    def _retrieve(self, request: Request, name: str) -> Any:
        held, body = self._get(name).points, request.body
        ids = [_id(one) for one in body["ids"]]
        return _ok([_record(one, held[one], body) for one in ids if one in held])

    def _scroll(self, request: Request, name: str) -> Any:
        found, body = self._get(name), request.body
        ids, limit = found.ordered(), body.get("limit") or 10
        strict = found.config.get("strict_mode_config") or {}
        if strict.get("enabled") and limit > strict.get("max_query_limit", limit):
            raise _wrong(f"Forbidden: Limit exceeded {limit} > {strict['max_query_limit']}")
        if body.get("offset") is not None:
            start = _order(_id(body["offset"]))
            ids = [one for one in ids if _order(one) >= start]
        page = ids[:limit]
        return _ok(
            {
                "points": [_record(one, found.points[one], body) for one in page],
                "next_page_offset": ids[limit] if len(ids) > limit else None,
            }
        )

    def _count(self, _: Request, name: str) -> Any:
        return _ok({"count": len(self._get(name).points)})

    def _query(self, request: Request, name: str) -> Any:
        found, body = self._get(name), request.body
        word, query = body.get("using") or "", body["query"]
        query = query.get("nearest", query) if isinstance(query, dict) else query
        exact = (body.get("params") or {}).get("exact", False)
        scored = [
            {"id": one, "version": 0, "score": _score(found, word, query, point["vectors"][word])}
            for one, point in found.points.items()
            if word in point["vectors"] and (exact or time.monotonic() >= found.busy_until)
        ]
        nearest = word in found.dense and found.dense[word]["distance"] in {"Euclid", "Manhattan"}
        scored.sort(key=lambda one: one["score"] if nearest else -one["score"])
        return _ok({"points": scored[: body.get("limit") or 10]})

    def _delete_points(self, request: Request, name: str) -> Any:
        for one in request.body.get("points", []):
            self._get(name).points.pop(_id(one), None)
        return _done()

    def _set_payload(self, request: Request, name: str) -> Any:
        held = self._get(name).points
        for one in request.body["points"]:
            point = held[_id(one)]
            point["payload"] = {**(point["payload"] or {}), **request.body["payload"]}
        return _done()


def _ok(result: Any) -> dict[str, Any]:
    return {"result": result, "status": "ok", "time": 0.0}


def _done() -> dict[str, Any]:
    return _ok({"operation_id": 0, "status": "completed"})


def _wrong(message: str, *, status: int = 400) -> Refusal:
    return Refusal(status, {"status": {"error": message}, "time": 0.0})


def _order(one: int | str) -> tuple[bool, int | str]:
    return isinstance(one, str), one


def _id(given: Any) -> int | str:
    if isinstance(given, int) and 0 <= given < 2**64:
        return given
    try:
        return str(uuid.UUID(given))
    except (ValueError, AttributeError, TypeError):
        raise _wrong(f"value {given} is not a valid point ID") from None


def _vector(found: Stored, word: str, values: Any) -> Any:
    if word in found.sparse:
        pairs = sorted(zip(values["indices"], np.float32(values["values"]).tolist(), strict=True))
        return {"indices": [one for one, _ in pairs], "values": [one for _, one in pairs]}
    if word not in found.dense:
        raise _wrong(f"Wrong input: Not existing vector name error: {word}")
    params = found.dense[word]
    multi = params.get("multivector_config") is not None
    rows = np.float32(values if multi else [values])
    if rows.ndim != 2 or rows.shape[1] != params["size"]:
        raise _wrong(
            f"Wrong input: Vector dimension error: expected dim: {params['size']}, "
            f"got {rows.shape[-1]}"
        )
    if params["distance"] == "Cosine":
        rows = np.stack([_normalised(row) for row in rows])
    if params.get("datatype") == "float16":
        rows = rows.astype(np.float16).astype(np.float32)
    elif params.get("datatype") == "uint8":
        rows = rows.astype(np.uint8).astype(np.float32)
    return rows.tolist() if multi else rows[0].tolist()


def _normalised(row: Any) -> Any:
    # The server leaves a vector alone whose length is one, within this, so that what it has
    # given out comes back as it was.
    length = np.float32((row * row).sum(dtype=np.float32))
    if length < np.finfo(np.float32).eps or abs(length - 1) <= 1e-6:
        return row
    return row / np.sqrt(length, dtype=np.float32)


def _record(one: int | str, point: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {"id": one, "payload": None, "vector": None}
    if body.get("with_payload", True):
        record["payload"] = point["payload"] or {}
    if body.get("with_vector"):
        vectors = point["vectors"]
        record["vector"] = vectors[""] if list(vectors) == [""] else vectors
    return record


def _score(found: Stored, word: str, query: Any, held: Any) -> float:
    if word in found.sparse:
        theirs = dict(zip(held["indices"], held["values"], strict=True))
        return sum(
            value * theirs.get(place, 0.0)
            for place, value in zip(query["indices"], query["values"], strict=True)
        )
    params = found.dense[word]
    if params.get("multivector_config") is not None:
        products = np.float32(query) @ np.float32(held).T
        return float(products.max(axis=1).sum())
    ours, theirs = np.float32(query), np.float32(held)
    if params["distance"] == "Euclid":
        return float(np.linalg.norm(ours - theirs))
    if params["distance"] == "Manhattan":
        return float(np.abs(ours - theirs).sum())
    if params["distance"] == "Cosine":
        ours = _normalised(ours)
    return float(ours @ theirs)
