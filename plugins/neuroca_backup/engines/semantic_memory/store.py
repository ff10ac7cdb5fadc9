"""The vector store below the tier: its own engine, found by the kind of its connection.

A connection may say what is embedded there, as NCA is configured: `embedding_model` and
`embedding_dimension` of its extra. Both are compared before anything is restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from neuroca_backup import engines
from neuroca_backup.errors import ConfigurationError, IncompatibleVersionError
from neuroca_backup.memory import tiers
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump
from neuroca_backup.vectors.engine import VectorEngine

if TYPE_CHECKING:
    from neuroca_backup.engines.semantic_memory import Options

MODEL_WORD, DIMENSION_WORD = "embedding_model", "embedding_dimension"


def of(endpoint: Endpoint) -> VectorEngine:
    """Return the engine of the store at `endpoint`.

    Raises:
        ConfigurationError: Its connection is not of a vector store's type.
    """
    return named(endpoint.kind)


def named(kind: str) -> VectorEngine:
    """Return the engine called `kind`; raises as `of` does."""
    try:
        engine: Any = engines.named(kind)
    except ConfigurationError:
        engine = None
    if not isinstance(engine, VectorEngine):
        raise ConfigurationError(
            f"Semantic memory is kept in a vector store, and the connection is of type {kind!r}",
            remedy="Give it the type of its store: milvus, pinecone or qdrant.",
            value=kind,
        )
    return engine


def plain(endpoint: Endpoint) -> Endpoint:
    """Return the endpoint as the store's own engine knows it."""
    words = {MODEL_WORD, DIMENSION_WORD}
    extra = {word: value for word, value in endpoint.extra.items() if word not in words}
    return replace(endpoint, extra=extra, port=endpoint.port or of(endpoint).default_port)


def dump(endpoint: Endpoint, sink: engines.Sink, options: Options) -> Dump:
    """Export the collections; the facts say beside the store's own what is embedded.

    Raises:
        ConfigurationError: A vector has another dimension, or the connection names another model,
            than the options say.
    """
    engine = of(endpoint)
    inner: Any = engine
    _require_same_options(endpoint, options)
    if options.dimension:
        _require_dimension(engine, plain(endpoint), options)
    # Pinecone calls its collections so.
    word = "collections" if "collections" in inner.options({}) else "indexes"
    words = {word: options.collections, "allow_empty": options.allow_empty}
    made: Dump = inner.dump(plain(endpoint), sink, inner.options(words), None)
    model = options.embedding_model or str(endpoint.extra.get(MODEL_WORD, ""))
    facts = {
        **made.facts,
        "form": tiers.FORM,
        "tier": options.tier,
        "store": engine.kind,
        "embedding_model": model,
        "fields": options.fields.model_dump(mode="json"),
        "id_fields": list(options.id_fields),
    }
    notes = made.notes
    if not model:
        notes += (
            "No embedding model is named in the source's options: a restore beside vectors of "
            "another model could not be refused.",
        )
    return made.model_copy(update={"facts": facts, "notes": notes})


def require_same_embedding(facts: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Raise where the target embeds otherwise than the backup's vectors were made.

    Raises:
        IncompatibleVersionError: The store, the model or a dimension is another.
        ConfigurationError: The connection's dimension is no number.
    """
    kind = of(endpoint).kind
    if kind != facts["store"]:
        raise IncompatibleVersionError(
            f"The backup is of {facts['store']}, the target {endpoint.label} is {kind}",
            remedy="Restore into the same kind of store; vector-export and vector-import move "
            "vectors between kinds.",
            source=facts["store"],
            target=kind,
        )
    ours, theirs = facts["embedding_model"], str(endpoint.extra.get(MODEL_WORD, ""))
    if ours and theirs and ours != theirs:
        raise IncompatibleVersionError(
            f"The backup's vectors are of the model {ours}, {endpoint.label} has those of {theirs}",
            remedy="Vectors of two models cannot be compared with each other. Restore to another "
            f"server and embed again, or correct {MODEL_WORD} in the connection's extra.",
            source=ours,
            target=theirs,
        )
    wanted = _number(endpoint)
    for label, one in facts["collections"].items():
        for field, about in one["vectors"].items():
            if wanted and about["dimension"] not in {0, wanted}:
                raise IncompatibleVersionError(
                    f"{label} in the backup has vectors {field} of {about['dimension']} "
                    f"dimensions, {endpoint.label} takes {wanted}",
                    remedy=f"Restore to another server, or correct {DIMENSION_WORD} in the "
                    "connection's extra.",
                    source=about["dimension"],
                    target=wanted,
                )


def _require_same_options(endpoint: Endpoint, options: Options) -> None:
    pairs = (
        (MODEL_WORD, options.embedding_model, str(endpoint.extra.get(MODEL_WORD, ""))),
        ("dimension", options.dimension, _number(endpoint)),
    )
    for word, ours, theirs in pairs:
        if ours and theirs and ours != theirs:
            raise ConfigurationError(
                f"options.{word} is {ours}, and the connection to {endpoint.label} says {theirs}",
                remedy="Correct the one that is wrong.",
                path=f"options.{word}",
                value=ours,
            )


def _require_dimension(engine: VectorEngine, endpoint: Endpoint, options: Options) -> None:
    from neuroca_backup.vectors.dump import choose  # noqa: PLC0415 - it imports pyarrow

    with engine.connect(endpoint) as database:
        for at in choose(database, endpoint, options.collections):
            for field in database.describe(at).vectors:
                if field.dimension not in {0, options.dimension}:
                    raise ConfigurationError(
                        f"{at.label} has vectors {field.name} of {field.dimension} dimensions, "
                        f"options.dimension is {options.dimension}",
                        remedy="Correct the option; or find out who writes vectors of another "
                        "model there.",
                        path="options.dimension",
                        value=options.dimension,
                    )


def _number(endpoint: Endpoint) -> int:
    given = endpoint.extra.get(DIMENSION_WORD) or 0
    if not str(given).isdecimal():
        raise ConfigurationError(
            f"{DIMENSION_WORD} of the connection to {endpoint.label} is no number",
            remedy="Write how long its vectors are, such as 768, or leave it out.",
            path=DIMENSION_WORD,
            value=given,
        )
    return int(given)
