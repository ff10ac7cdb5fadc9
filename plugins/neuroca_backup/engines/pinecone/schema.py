"""A Pinecone index in the words that all stores share, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neuroca_backup.errors import ConfigurationError, IncompatibleVersionError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors.jsonlines import DYNAMIC
from neuroca_backup.vectors.model import Collection, Field, Index, Name

# Columns of the Parquet files; no key of metadata may begin with $, so none is called like these.
KEY, VALUES, SPARSE, METADATA = "$id", "$values", "$sparse_values", DYNAMIC
DEFAULT = "__default__"
# While a restore loads an index it has this tag; a tag that is set to "" is taken away.
MARK = "neuroca-restore"
# The fields of the schema that the vectors API reads and writes; others are of document indexes.
_DENSE_FIELD, _SPARSE_FIELD = "_values", "_sparse_values"
_METRICS = {"cosine": "cosine", "euclidean": "l2", "dotproduct": "ip"}
_PLACES = {
    "managed": ("deployment_type", "cloud", "region"),
    "byoc": ("deployment_type", "environment"),
}


def described(at: Name, model: Mapping[str, Any], namespaces: Sequence[str]) -> Collection:
    """Return the index of which the control plane gives `model`.

    Raises:
        IncompatibleVersionError: Its vectors can be neither listed nor read one by one.
    """
    fields = model["schema"]["fields"]
    require_listable(at, model)
    dense, sparse = fields.get(_DENSE_FIELD), fields.get(_SPARSE_FIELD)
    return Collection(
        name=at.collection,
        key=KEY,
        fields=(
            Field(name=KEY, kind="string"),
            *(
                [
                    Field(
                        name=VALUES,
                        kind="float_vector",
                        dimension=dense["dimension"],
                        nullable=bool(sparse),
                    )
                ]
                if dense
                else []
            ),
            *([Field(name=SPARSE, kind="sparse_vector", nullable=True)] if sparse else []),
            Field(name=METADATA, kind="json", nullable=True),
        ),
        indexes=(
            (Index(field=VALUES, metric=_METRICS.get(dense["metric"], dense["metric"])),)
            if dense
            else ()
        ),
        partitions=tuple(namespaces),
        native={"fields": fields},
        transient={
            word: model[word]
            for word in ("deployment", "deletion_protection", "tags", "read_capacity", "cmek_id")
            if model.get(word)
        },
    )


def require_listable(at: Name, model: Mapping[str, Any]) -> None:
    """Raise `IncompatibleVersionError` for an index whose vectors cannot be exported."""
    kind, fields = model["deployment"]["deployment_type"], set(model["schema"]["fields"])
    if kind == "pod":
        raise IncompatibleVersionError(
            f"The index {at.label} is pod-based: Pinecone does not list the vectors of such ones",
            remedy="Migrate it to serverless, or take collections of it with Pinecone's own "
            "means; then leave it out of the source's `indexes`.",
            collection=at.label,
            deployment=kind,
        )
    if not fields or fields - {_DENSE_FIELD, _SPARSE_FIELD}:
        raise IncompatibleVersionError(
            f"The index {at.label} holds documents or texts that Pinecone embeds "
            f"({', '.join(sorted(fields))}), not vectors of its own",
            remedy="Use Pinecone's own backups for it, and leave it out of the source's `indexes`.",
            collection=at.label,
            fields=sorted(fields),
        )


def creation(collection: Collection, endpoint: Endpoint, *, mark: str) -> dict[str, Any]:
    """Return the arguments of `indexes.create`; `cloud` and `region` of the endpoint go first."""
    known = collection.transient
    place = dict(known["deployment"])
    moved = {word: endpoint.extra[word] for word in ("cloud", "region") if word in endpoint.extra}
    if moved and place["deployment_type"] != "managed":
        raise ConfigurationError(
            f"The connection names {' and '.join(moved)}, the index {collection.name} is in an "
            "environment of your own",
            remedy="Leave both words out of the connection's extra.",
            path="extra",
        )
    place |= moved
    found: dict[str, Any] = {
        "name": collection.name,
        "schema": {"fields": collection.native["fields"]},
        "deployment": {word: place[word] for word in _PLACES[place["deployment_type"]]},
        # Deletion protection follows when the copy is published.
        "tags": {**(known.get("tags") or {}), MARK: mark},
    }
    capacity = known.get("read_capacity") or {}
    if capacity.get("mode") == "Dedicated":
        found["read_capacity"] = {word: capacity[word] for word in ("mode", "dedicated")}
    if known.get("cmek_id") and not moved:
        found["cmek_id"] = known["cmek_id"]
    return found
