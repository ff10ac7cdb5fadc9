"""Milvus's description of a collection in the words of every vector store, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroca_backup.engines.milvus.session import pymilvus
from neuroca_backup.errors import IncompatibleVersionError
from neuroca_backup.vectors import jsonlines
from neuroca_backup.vectors.model import Collection, Field, Index, Kind, Name

DYNAMIC = jsonlines.DYNAMIC  # how Milvus itself calls the column
# An index that a collection without one needs to be readable; see `MilvusDatabase.reading`.
TEMPORARY = "neuroca_backup_temporary"

_TYPES = pymilvus.DataType
_KINDS: dict[str, Kind] = {
    "BOOL": "bool",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FLOAT": "float",
    "DOUBLE": "double",
    "VARCHAR": "string",
    "JSON": "json",
    "ARRAY": "array",
    "FLOAT_VECTOR": "float_vector",
    "BINARY_VECTOR": "binary_vector",
    "FLOAT16_VECTOR": "float16_vector",
    "BFLOAT16_VECTOR": "bfloat16_vector",
    "INT8_VECTOR": "int8_vector",
    "SPARSE_FLOAT_VECTOR": "sparse_vector",
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
# What an index tells of its progress and place.
_NO_PARAMETERS = {
    *("field_name", "index_name", "index_type", "metric_type", "state"),
    *("total_rows", "indexed_rows", "pending_index_rows", "index_state_fail_reason"),
}
_FIELD_WORDS = ("is_partition_key", "is_clustering_key")
# Properties that a server adds by itself.
_SERVERS_OWN = {"timezone"}
_DEFAULT_PARTITION = "_default"


def described(
    at: Name,
    found: Mapping[str, Any],
    *,
    indexes: Sequence[Mapping[str, Any]],
    partitions: Sequence[str],
    loaded: bool,
) -> Collection:
    """Return a collection from what `describe_collection` and its companions say of it.

    Raises:
        IncompatibleVersionError: It has something that this version cannot put back.
    """
    if found.get("functions") or found.get("struct_fields"):
        raise _unknown(at, "computes fields by functions or has structures as fields")
    fields = [_field(at, one) for one in found["fields"]]
    if found["enable_dynamic_field"]:
        fields.append(Field(name=DYNAMIC, kind="json"))
    key = next(one for one in found["fields"] if one.get("is_primary"))
    keyed = any(one.get("is_partition_key") for one in found["fields"])
    own = ("",) if keyed or list(partitions) == [_DEFAULT_PARTITION] else tuple(sorted(partitions))
    native = {
        "description": found.get("description", ""),
        "dynamic": bool(found["enable_dynamic_field"]),
        "consistency_level": int(found["consistency_level"]),
        "shards": int(found["num_shards"]),
        "properties": {
            name: str(value)
            for name, value in (found.get("properties") or {}).items()
            if name not in _SERVERS_OWN
        },
    }
    if keyed:
        native["partitions"] = int(found.get("num_partitions") or len(partitions))
    return Collection(
        database=at.database,
        name=at.collection,
        key=str(key["name"]),
        fields=tuple(fields),
        indexes=tuple(sorted((_index(one) for one in indexes), key=lambda one: one.field)),
        partitions=own,
        new_keys=bool(found["auto_id"]),
        native=native,
        transient={"aliases": sorted(found.get("aliases") or ()), "loaded": loaded},
    )


def created(collection: Collection) -> Any:
    """Return pymilvus's schema of a collection."""
    schema = pymilvus.MilvusClient.create_schema(
        auto_id=collection.new_keys,
        enable_dynamic_field=collection.native["dynamic"],
        description=collection.native["description"],
    )
    for field in collection.fields:
        if field.name == DYNAMIC:
            continue
        words = dict(field.native)
        if field.dimension:
            words["dim"] = field.dimension
        if field.element:
            words["element_type"] = _TYPES[_NAMES[field.element]]
        if field.nullable:
            words["nullable"] = True
        kind = _TYPES[_NAMES[field.kind]]
        schema.add_field(field.name, kind, is_primary=field.name == collection.key, **words)
    return schema


def index_parameters(indexes: Sequence[Index]) -> Any:
    """Return pymilvus's parameters that make these indexes."""
    made = pymilvus.MilvusClient.prepare_index_params()
    for index in indexes:
        metric = {"metric_type": index.metric.upper()} if index.metric else {}
        made.add_index(
            field_name=index.field,
            index_name=index.name,
            index_type=index.kind,
            params=index.params,
            **metric,
        )
    return made


def temporary_index(field: Field) -> Index:
    """Return the plainest index that makes a vector field readable."""
    if field.kind == "binary_vector":
        return Index(field=field.name, name=TEMPORARY, kind="BIN_FLAT", metric="hamming")
    if field.kind == "sparse_vector":
        return Index(field=field.name, name=TEMPORARY, kind="SPARSE_INVERTED_INDEX", metric="ip")
    return Index(field=field.name, name=TEMPORARY, kind="FLAT", metric="l2")


def search_parameters(index: Index | None) -> dict[str, Any]:
    """Return parameters that make an approximate index search as thoroughly as it can.

    https://milvus.io/docs/v2.3.x/index.md has each one's range.
    """
    kind = index.kind if index else ""
    params = index.params if index else {}
    if kind in {"HNSW", "RHNSW_FLAT"}:
        return {"ef": 1024}
    if "IVF" in kind or kind == "SCANN":
        return {"nprobe": int(params.get("nlist", 128)), "reorder_k": 1000}
    if kind == "DISKANN":
        return {"search_list": 500}
    return {}


def _field(at: Name, found: Mapping[str, Any]) -> Field:
    kind = _KINDS.get(_TYPES(found["type"]).name)
    if kind is None:
        raise _unknown(at, f"has a field {found['name']} of type {_TYPES(found['type']).name}")
    params = dict(found.get("params") or {})
    dimension = int(params.pop("dim", 0))
    element = found.get("element_type")
    native: dict[str, Any] = {
        **{word: value for word, value in params.items() if not isinstance(value, dict)},
        **{word: True for word in _FIELD_WORDS if found.get(word)},
    }
    if found.get("description"):
        native["description"] = found["description"]
    return Field(
        name=found["name"],
        kind=kind,
        dimension=dimension,
        element=_KINDS[_TYPES(element).name] if kind == "array" and element else None,
        nullable=bool(found.get("nullable")),
        native=native,
    )


def _index(found: Mapping[str, Any]) -> Index:
    return Index(
        field=found["field_name"],
        name=found["index_name"],
        kind=found["index_type"],
        metric=str(found.get("metric_type") or "").lower(),
        params={word: value for word, value in found.items() if word not in _NO_PARAMETERS},
    )


def _unknown(at: Name, what: str) -> IncompatibleVersionError:
    return IncompatibleVersionError(
        f"The collection {at.label} {what}, which this version of neuroca-backup cannot put back",
        remedy="Leave it out by the option `collections` and back it up with Milvus's own tool, or "
        "use a newer version.",
        collection=at.label,
    )
