"""A Qdrant collection in the words that all stores share, and back.

What a restored collection must have in common with its original is in `native`, by words that are
known here, so that a newer server's further words are no difference. All that the server says is
in `transient`, whence it is created again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroca_backup.errors import IncompatibleVersionError
from neuroca_backup.vectors.jsonlines import DYNAMIC
from neuroca_backup.vectors.model import Collection, Field, Index, Name

# Columns of the Parquet files; $ keeps them apart from keys of a payload in JSON Lines.
KEY, PAYLOAD, _VECTOR = "$id", DYNAMIC, "$vector"
_METRICS = {"Cosine": "cosine", "Euclid": "l2", "Dot": "ip", "Manhattan": "manhattan"}
# https://api.qdrant.tech/api-reference/collections/get-collection
_COMPARED: Mapping[str, Sequence[str]] = {
    "params": (
        *("vectors", "sparse_vectors", "shard_number", "sharding_method"),
        *("replication_factor", "write_consistency_factor", "on_disk_payload"),
    ),
    "hnsw_config": ("m", "ef_construct", "full_scan_threshold", "on_disk", "payload_m"),
    "optimizer_config": (
        *("deleted_threshold", "vacuum_min_vector_number", "default_segment_number"),
        *("max_segment_size", "memmap_threshold", "indexing_threshold"),
    ),
}


def described(
    at: Name, config: Mapping[str, Any], indexes: Mapping[str, Any], aliases: Sequence[str]
) -> Collection:
    """Return the collection of which the server gives `config` and the payload's `indexes`.

    Raises:
        IncompatibleVersionError: Its points are divided by shard keys, which rows do not carry.
    """
    params = config["params"]
    if params.get("sharding_method") == "custom":
        raise IncompatibleVersionError(
            f"The collection {at.label} is divided by shard keys of its own",
            remedy="This engine cannot say which point has which shard key. Leave it out of the "
            "source's `collections`, and back it up by Qdrant's snapshots.",
            collection=at.label,
        )
    dense, sparse = dense_of(params), params.get("sparse_vectors") or {}
    fields = [Field(name=KEY, kind="string"), Field(name=PAYLOAD, kind="json", nullable=True)]
    for name in sorted(dense):
        one = dense[name]
        multi = one.get("multivector_config") is not None
        fields.append(
            Field(
                name=field_name(name),
                # A multivector is its vectors one after the other.
                kind="array" if multi else "float_vector",
                dimension=one["size"],
                element="float" if multi else None,
                nullable=True,
                native={"vector": name, **({"multivector": True} if multi else {})},
            )
        )
    fields += [
        Field(name=field_name(name), kind="sparse_vector", nullable=True, native={"vector": name})
        for name in sorted(sparse)
    ]
    return Collection(
        name=at.collection,
        key=KEY,
        fields=tuple(fields),
        indexes=tuple(
            Index(field=field_name(name), metric=_METRICS.get(word, word.lower()))
            for name, word in sorted((name, one["distance"]) for name, one in dense.items())
        ),
        native={
            **{
                part: {word: config[part][word] for word in words if word in config[part]}
                for part, words in _COMPARED.items()
            },
            "quantization_config": config.get("quantization_config"),
            "metadata": config.get("metadata"),
            "payload_indexes": {name: indexes[name] for name in sorted(indexes)},
        },
        transient={"config": dict(config), "aliases": sorted(aliases)},
    )


def dense_of(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the dense vectors' parameters by name; "" is the name of an unnamed one."""
    vectors = params.get("vectors") or {}
    unnamed = isinstance(vectors.get("size"), int)
    return {"": vectors} if unnamed else vectors


def field_name(vector: str) -> str:
    """Return the field that holds the vector called `vector`."""
    return f"{_VECTOR}.{vector}" if vector else _VECTOR


def named_fields(collection: Collection) -> Iterator[tuple[str, Field]]:
    """Yield the vectors' names with their fields, multivectors included."""
    for field in collection.fields:
        if "vector" in field.native:
            yield field.native["vector"], field


def creation(collection: Collection) -> dict[str, Any]:
    """Return the arguments of `create_collection` that make it again, without an index yet.

    https://qdrant.tech/documentation/tutorials-develop/bulk-upload/: with a threshold of 0 nothing
    is indexed while points arrive.
    """
    from qdrant_client import models  # noqa: PLC0415 - an optional package

    config = collection.transient["config"]
    params = config["params"]
    dense = {
        name: models.VectorParams.model_validate(one) for name, one in dense_of(params).items()
    }
    found: dict[str, Any] = {
        word: params.get(word)
        for word in (
            *("shard_number", "replication_factor", "write_consistency_factor"),
            "on_disk_payload",
        )
    }
    found |= {
        "vectors_config": dense.get("", dense),
        "sparse_vectors_config": {
            name: models.SparseVectorParams.model_validate(one)
            for name, one in (params.get("sparse_vectors") or {}).items()
        }
        or None,
        "hnsw_config": _known(models.HnswConfigDiff, config["hnsw_config"]),
        "optimizers_config": _known(
            models.OptimizersConfigDiff, {**config["optimizer_config"], "indexing_threshold": 0}
        ),
        "wal_config": _known(models.WalConfigDiff, config.get("wal_config") or {}),
        "quantization_config": config.get("quantization_config"),
        "strict_mode_config": None,
        "metadata": config.get("metadata"),
    }
    return {word: value for word, value in found.items() if value is not None}


def optimizers(collection: Collection) -> Any:
    """Return the optimizer's configuration as it was: the threshold is what begins indexing."""
    from qdrant_client import models  # noqa: PLC0415 - an optional package

    return _known(models.OptimizersConfigDiff, collection.transient["config"]["optimizer_config"])


def strict_mode(values: Mapping[str, Any]) -> Any:
    """Return the strict mode's configuration; it would stand in the way of loading."""
    from qdrant_client import models  # noqa: PLC0415 - an optional package

    return _known(models.StrictModeConfig, values)


def payload_index(kind: Any) -> Any:
    """Return an index of payloads: `kind` is a type's word, or its parameters."""
    from pydantic import TypeAdapter  # noqa: PLC0415 - beside the optional package
    from qdrant_client import models  # noqa: PLC0415 - an optional package

    return TypeAdapter(models.PayloadFieldSchema).validate_python(kind)


def _known(model: Any, values: Mapping[str, Any]) -> Any:
    """Return `values` as a `model` that refuses words which it does not know."""
    return model(**{word: value for word, value in values.items() if word in model.model_fields})
