"""A double of Pinecone after its published API, version 2026-07.

It follows https://docs.pinecone.io/reference/api and the models of the `pinecone` package, whose
client talks to it unchanged: control plane on one port, and each index on a port of its own, as
each has a host of its own there. What the real service does to data is done, too: vectors become
32-bit, numbers of metadata become floating point, counts and contents lag behind writes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from support.doubles.http_double import HttpDouble, Refusal, Request

DEFAULT = "__default__"
_UPSERT_COUNT = 1000
_UPSERT_BYTES = 2 * 1024 * 1024
_FETCH_COUNT = 1000
_LIST_COUNT = 100
_METADATA_BYTES = 40 * 1024
_URL_BYTES = 8 * 1024
_METRICS = {"cosine", "euclidean", "dotproduct"}

Vectors = dict[str, dict[str, Any]]


@dataclass
class Index:
    """One index: what was created, and its namespaces."""

    model: dict[str, Any]
    ready_at: float
    port: int = 0
    namespaces: dict[str, Vectors] = field(default_factory=dict)
    # Writes that nobody can see yet: when they can, and what they do.
    pending: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    # What the statistics were at which time.
    counted: list[tuple[float, dict[str, int]]] = field(default_factory=lambda: [(0.0, {})])

    @property
    def dense(self) -> Mapping[str, Any] | None:
        """The dense field of the schema."""
        found: Mapping[str, Any] | None = self.model["schema"]["fields"].get("_values")
        return found

    @property
    def sparse(self) -> bool:
        """Whether vectors may have sparse values."""
        return "_sparse_values" in self.model["schema"]["fields"]

    def settle(self) -> None:
        """Make every write visible whose time has come."""
        now = time.monotonic()
        while self.pending and self.pending[0][0] <= now:
            at, write = self.pending.pop(0)
            write()
            self.counted.append((at, {name: len(one) for name, one in self.namespaces.items()}))


class PineconeDouble(HttpDouble):
    """Pinecone in a thread.

    `lag`: seconds until a write is seen by reads; `stats_lag`: seconds more until counts tell of
    it; `start_seconds`: until a new index is ready; `page`: vectors of one page of a listing.
    """

    def __init__(self, *, api_key: str = "pcsk_secret") -> None:
        super().__init__()
        self.api_key = api_key
        self.lag = 0.0
        self.stats_lag = 0.0
        self.start_seconds = 0.0
        self.page = _LIST_COUNT
        self.indexes: dict[str, Index] = {}
        self.port = self.listen(
            [
                ("GET", "/indexes", self._list_indexes),
                ("POST", "/indexes", self._create_index),
                ("GET", "/indexes/([^/]+)", lambda _, name: self._model(self._index(name))),
                ("PATCH", "/indexes/([^/]+)", self._configure_index),
                ("DELETE", "/indexes/([^/]+)", self._delete_index),
            ]
        )
        self.url = f"http://127.0.0.1:{self.port}"

    def authorise(self, request: Request) -> None:
        """Refuse a request without the key."""
        if request.headers.get("api-key") != self.api_key:
            raise Refusal(401, _error("UNAUTHENTICATED", "Invalid API key", 401))

    def failure(self, error: Refusal) -> Any:
        """Return the body of an error."""
        return error.body or _error("INTERNAL", f"status {error.status}", error.status)

    def vectors(self, index: str, namespace: str = "") -> Vectors:
        """Return what a namespace holds by now."""
        self.indexes[index].settle()
        return self.indexes[index].namespaces.get(namespace or DEFAULT, {})

    # Control plane.

    def _list_indexes(self, _: Request) -> Any:
        return {"indexes": [self._model(index) for index in self.indexes.values()]}

    def _create_index(self, request: Request) -> Any:
        body = request.body
        name, fields = body["name"], body["schema"]["fields"]
        if name in self.indexes:
            raise Refusal(409, _error("ALREADY_EXISTS", "Resource already exists", 409))
        for one in fields.values():
            known = one["type"] == "sparse_vector" or (
                one["type"] == "dense_vector"
                and one["metric"] in _METRICS
                and 1 <= one["dimension"] <= 20_000
            )
            if not known and one["type"] != "string":
                raise Refusal(400, _error("INVALID_ARGUMENT", "Invalid schema", 400))
        self.indexes[name] = index = Index(
            model={
                "name": name,
                "schema": {"fields": fields},
                "deployment": body.get("deployment")
                or {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"},
                "deletion_protection": body.get("deletion_protection", "disabled"),
                "tags": body.get("tags"),
                "read_capacity": body.get("read_capacity") or {"mode": "OnDemand"},
            },
            ready_at=time.monotonic() + self.start_seconds,
        )
        index.namespaces[DEFAULT] = {}
        index.port = self.listen(self._data_plane(index))
        return 201, self._model(index)

    def _configure_index(self, request: Request, name: str) -> Any:
        index, body = self._index(name), request.body
        if "deletion_protection" in body:
            index.model["deletion_protection"] = body["deletion_protection"]
        # Tags are merged; one that is given as "" is taken away.
        tags = {**(index.model["tags"] or {}), **(body.get("tags") or {})}
        index.model["tags"] = {word: value for word, value in tags.items() if value} or None
        return self._model(index)

    def _delete_index(self, _: Request, name: str) -> Any:
        if self._index(name).model["deletion_protection"] == "enabled":
            raise Refusal(403, _error("FORBIDDEN", "Deletion protection is enabled", 403))
        del self.indexes[name]
        return 202, None

    def _index(self, name: str) -> Index:
        if name not in self.indexes:
            raise Refusal(404, _error("NOT_FOUND", f"Resource {name} not found", 404))
        return self.indexes[name]

    def _model(self, index: Index) -> dict[str, Any]:
        ready = time.monotonic() >= index.ready_at
        capacity = {**index.model["read_capacity"], "status": {"state": "Ready"}}
        return {
            **index.model,
            "read_capacity": capacity,
            "host": f"http://127.0.0.1:{index.port}",
            "status": {"ready": ready, "state": "Ready" if ready else "Initializing"},
        }

    # Data plane.

    def _data_plane(self, index: Index) -> list[tuple[str, str, Callable[..., Any]]]:
        def bound(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(request: Request, *groups: str) -> Any:
                if index.model["name"] not in self.indexes or time.monotonic() < index.ready_at:
                    raise Refusal(404, _rpc(5, "Index not found"))
                index.settle()
                if request.method == "GET" and request.size > _URL_BYTES:
                    raise Refusal(414, _rpc(3, "Request-URI Too Large"))
                return function(index, request, *groups)

            return call

        return [
            ("POST", "/vectors/upsert", bound(self._upsert)),
            ("GET", "/vectors/fetch", bound(self._fetch)),
            ("GET", "/vectors/list", bound(self._list)),
            ("POST", "/vectors/delete", bound(self._delete)),
            ("POST", "/query", bound(self._query)),
            ("POST", "/describe_index_stats", bound(self._stats)),
            ("GET", "/namespaces", bound(self._list_namespaces)),
            ("POST", "/namespaces", bound(self._create_namespace)),
            ("GET", "/namespaces/([^/]+)", bound(self._describe_namespace)),
            ("DELETE", "/namespaces/([^/]+)", bound(self._delete_namespace)),
        ]

    def _write(self, index: Index, write: Callable[[], None]) -> None:
        index.pending.append((time.monotonic() + self.lag, write))
        index.settle()

    def _upsert(self, index: Index, request: Request) -> Any:
        vectors = request.body["vectors"]
        if len(vectors) > _UPSERT_COUNT:
            raise Refusal(400, _rpc(3, f"Cannot upsert more than {_UPSERT_COUNT} vectors"))
        if request.size > _UPSERT_BYTES:
            raise Refusal(413, _rpc(11, "Request size exceeds the maximum of 2097152 bytes"))
        stored = {one["id"]: _stored(index, one) for one in vectors}
        namespace = request.body.get("namespace") or DEFAULT
        self._write(index, lambda: index.namespaces.setdefault(namespace, {}).update(stored))
        return {"upsertedCount": len(vectors)}

    def _fetch(self, index: Index, request: Request) -> Any:
        ids, namespace = request.query.get("ids", []), request.one("namespace") or DEFAULT
        if not 1 <= len(ids) <= _FETCH_COUNT:
            raise Refusal(400, _rpc(3, f"Cannot fetch {len(ids)} vectors"))
        held = index.namespaces.get(namespace, {})
        return {"vectors": {one: held[one] for one in ids if one in held}, "namespace": namespace}

    def _list(self, index: Index, request: Request) -> Any:
        if index.model["deployment"]["deployment_type"] == "pod":
            raise Refusal(400, _rpc(3, "Listing is supported by serverless indexes only"))
        limit = int(request.one("limit", str(_LIST_COUNT)))
        if not 1 <= limit <= _LIST_COUNT:
            raise Refusal(400, _rpc(3, f"limit must be from 1 to {_LIST_COUNT}"))
        limit = min(limit, self.page)
        held = index.namespaces.get(request.one("namespace") or DEFAULT, {})
        after, prefix = request.one("paginationToken"), request.one("prefix")
        ids = sorted(one for one in held if one > after and one.startswith(prefix))
        body: dict[str, Any] = {
            "vectors": [{"id": one} for one in ids[:limit]],
            "namespace": request.one("namespace"),
            "usage": {"readUnits": 1},
        }
        if len(ids) > limit:
            body["pagination"] = {"next": ids[limit - 1]}
        return body

    def _delete(self, index: Index, request: Request) -> Any:
        body, namespace = request.body, request.body.get("namespace") or DEFAULT
        if namespace not in index.namespaces and not index.pending:
            raise Refusal(404, _rpc(5, "Namespace not found"))
        gone = set(body.get("ids", []))
        if len(gone) > _FETCH_COUNT:
            raise Refusal(400, _rpc(3, f"Cannot delete more than {_FETCH_COUNT} vectors"))

        def write() -> None:
            held = index.namespaces.setdefault(namespace, {})
            for one in list(held):
                fits = "filter" in body and _fits(held[one].get("metadata", {}), body["filter"])
                if body.get("deleteAll") or one in gone or fits:
                    del held[one]

        self._write(index, write)
        return {}

    def _query(self, index: Index, request: Request) -> Any:
        body = request.body
        held = index.namespaces.get(body.get("namespace") or DEFAULT, {})
        asked: dict[str, Any] = {"values": body.get("vector") or []}
        if "sparseVector" in body:
            asked["sparseValues"] = body["sparseVector"]
        if "id" in body:
            asked = held.get(body["id"], {"values": []})
        if index.dense and asked["values"] and len(asked["values"]) != index.dense["dimension"]:
            raise Refusal(400, _rpc(3, "Query vector dimension does not match the index"))
        found = [
            {"id": one, "score": _score(index, asked, vector), **_shown(vector, body)}
            for one, vector in held.items()
            if _fits(vector.get("metadata", {}), body.get("filter") or {})
        ]
        nearest = bool(index.dense) and index.dense["metric"] == "euclidean"
        found.sort(key=lambda one: one["score"] if nearest else -one["score"])
        return {"matches": found[: body["topK"]], "namespace": body.get("namespace", "")}

    def _stats(self, index: Index, _: Request) -> Any:
        seen = time.monotonic() - self.stats_lag
        counts = next(one for at, one in reversed(index.counted) if at <= seen or not at)
        body: dict[str, Any] = {
            "namespaces": {name: {"vectorCount": count} for name, count in counts.items() if count},
            "indexFullness": 0,
            "totalVectorCount": sum(counts.values()),
        }
        if index.dense:
            body |= {"dimension": index.dense["dimension"], "metric": index.dense["metric"]}
        return body

    def _list_namespaces(self, index: Index, request: Request) -> Any:
        limit, after = int(request.one("limit", "100")), request.one("paginationToken")
        names = sorted(one for one in index.namespaces if one > after)
        body: dict[str, Any] = {
            "namespaces": [_described(index, one) for one in names[:limit]],
            "total_count": len(index.namespaces),
        }
        if len(names) > limit:
            body["pagination"] = {"next": names[limit - 1]}
        return body

    def _create_namespace(self, index: Index, request: Request) -> Any:
        name = request.body["name"]
        if name in index.namespaces:
            raise Refusal(409, _rpc(6, "Namespace already exists"))
        index.namespaces[name] = {}
        return _described(index, name)

    def _describe_namespace(self, index: Index, _: Request, name: str) -> Any:
        if name not in index.namespaces:
            raise Refusal(404, _rpc(5, "Namespace not found"))
        return _described(index, name)

    def _delete_namespace(self, index: Index, _: Request, name: str) -> Any:
        if name not in index.namespaces:
            raise Refusal(404, _rpc(5, "Namespace not found"))
        self._write(index, lambda: index.namespaces.pop(name, {}).clear())
        return {}


def _described(index: Index, name: str) -> dict[str, Any]:
    # The service sends this number as text.
    return {"name": name, "record_count": str(len(index.namespaces[name]))}


def _stored(index: Index, vector: Mapping[str, Any]) -> dict[str, Any]:
    """Return `vector` as the service keeps it, or refuse it."""
    values, sparse = vector.get("values") or [], vector.get("sparseValues")
    dimension = index.dense["dimension"] if index.dense else 0
    if len(values) != dimension and (values or not sparse):
        raise Refusal(
            400,
            _rpc(3, f"Vector dimension {len(values)} does not match the dimension {dimension}"),
        )
    if sparse and not index.sparse:
        raise Refusal(400, _rpc(3, "Index does not support sparse values"))
    kept: dict[str, Any] = {"id": vector["id"], "values": np.float32(values).tolist()}
    if sparse:
        kept["sparseValues"] = {
            "indices": sparse["indices"],
            "values": np.float32(sparse["values"]).tolist(),
        }
    metadata = {word: _metadata(word, one) for word, one in (vector.get("metadata") or {}).items()}
    if len(json.dumps(metadata)) > _METADATA_BYTES:
        raise Refusal(400, _rpc(3, "Metadata size exceeds 40960 bytes per vector"))
    if metadata:
        kept["metadata"] = metadata
    return kept


def _metadata(word: str, value: Any) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return value
    raise Refusal(
        400,
        _rpc(
            3,
            "Metadata value must be a string, number, boolean or list of strings, "
            f"got {value!r} for field {word!r}",
        ),
    )


def _score(index: Index, asked: Mapping[str, Any], held: Mapping[str, Any]) -> float:
    score = 0.0
    if index.dense and asked["values"] and held["values"]:
        one, two = np.array(asked["values"]), np.array(held["values"])
        if index.dense["metric"] == "euclidean":
            return float(((one - two) ** 2).sum())
        score = float(one @ two)
        if index.dense["metric"] == "cosine":
            score /= float(np.linalg.norm(one) * np.linalg.norm(two)) or 1.0
    if asked.get("sparseValues") and held.get("sparseValues"):
        theirs = dict(
            zip(held["sparseValues"]["indices"], held["sparseValues"]["values"], strict=True)
        )
        ours = asked["sparseValues"]
        score += sum(
            value * theirs.get(place, 0.0)
            for place, value in zip(ours["indices"], ours["values"], strict=True)
        )
    return score


def _shown(vector: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    words = ["values", "sparseValues"] if body.get("includeValues") else []
    words += ["metadata"] if body.get("includeMetadata") else []
    return {word: vector[word] for word in words if word in vector}


def _fits(metadata: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "$eq": lambda held, given: held == given or (isinstance(held, list) and given in held),
        "$ne": lambda held, given: held != given,
        "$gt": lambda held, given: held > given,
        "$gte": lambda held, given: held >= given,
        "$lt": lambda held, given: held < given,
        "$lte": lambda held, given: held <= given,
        "$in": lambda held, given: held in given,
        "$nin": lambda held, given: held not in given,
        "$exists": lambda _, given: given,
    }
    for word, wanted in condition.items():
        if word in {"$and", "$or"}:
            found = [_fits(metadata, one) for one in wanted]
            if not (all(found) if word == "$and" else any(found)):
                return False
            continue
        asked = wanted if isinstance(wanted, Mapping) else {"$eq": wanted}
        for name, given in asked.items():
            if word not in metadata or not tests[name](metadata[word], given):
                return False
    return True


def _error(code: str, message: str, status: int) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}, "status": status}


def _rpc(code: int, message: str) -> dict[str, Any]:
    return {"code": code, "message": message, "details": []}
