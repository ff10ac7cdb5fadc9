"""NCA-shaped content for Milvus: the embeddings of semantic memory."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuroca_backup.sandbox.seed_mongodb import episode_id

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint

COLLECTION = "neuroca_semantic"
DIMENSION = 768
METRIC = "COSINE"
_BATCH = 500  # about 1.5 MB of vectors a request
_SEED = 20_260_101


def counts(scale: float) -> dict[str, int]:
    """Return how many vectors each collection holds after `seed`."""
    return {COLLECTION: max(1, round(2_000 * scale))}


def seed(endpoint: Endpoint, *, scale: float) -> None:
    """Replace the collection `neuroca_semantic`, indexed (HNSW), flushed and loaded."""
    # Takes seconds to import; and its stubs are not valid Python, which stops the type checker.
    pymilvus: Any = import_module("pymilvus")
    kinds = pymilvus.DataType
    client = pymilvus.MilvusClient(
        uri=f"http://{endpoint.host}:{endpoint.port}",
        user=endpoint.user,
        password=endpoint.password,
        db_name=endpoint.database or "default",
    )
    try:
        if client.has_collection(COLLECTION):
            client.drop_collection(COLLECTION)
        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", kinds.INT64, is_primary=True)
        schema.add_field("memory_id", kinds.VARCHAR, max_length=64)
        schema.add_field("content", kinds.VARCHAR, max_length=1024)
        schema.add_field("metadata", kinds.JSON)
        schema.add_field("embedding", kinds.FLOAT_VECTOR, dim=DIMENSION)
        index = client.prepare_index_params()
        index.add_index(
            field_name="embedding",
            index_name="embedding_hnsw",
            index_type="HNSW",
            metric_type=METRIC,
            params={"M": 16, "efConstruction": 100},
        )
        client.create_collection(COLLECTION, schema=schema, consistency_level="Strong")
        number = counts(scale)[COLLECTION]
        for first in range(0, number, _BATCH):
            client.insert(COLLECTION, _rows(first, min(first + _BATCH, number)))
        client.flush(COLLECTION)
        client.create_index(COLLECTION, index)
        client.load_collection(COLLECTION)
    finally:
        client.close()


def _rows(first: int, end: int) -> list[dict[str, Any]]:
    import numpy as np  # noqa: PLC0415 - comes with pymilvus

    generator = np.random.default_rng([_SEED, first])
    vectors = generator.random((end - first, DIMENSION), dtype=np.float32) - np.float32(0.5)
    return [
        {
            "id": n,
            "memory_id": f"semantic-{n:08d}",
            "content": f"Concept {n} relates to concept {n * 7 % 1000}.",
            "metadata": {"topic": n % 17, "verified": n % 2 == 0, "episode_id": episode_id(n)},
            "embedding": vectors[n - first].tolist(),
        }
        for n in range(first, end)
    ]
