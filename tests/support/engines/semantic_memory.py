"""Semantic memory in a double of Qdrant's published API; test_semantic_memory.py has Milvus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.doubles.qdrant_api import QdrantDouble
from support.engines import Adapter
from support.engines.qdrant import DIMENSION, Qdrant, fill


class SemanticMemory(Qdrant):
    """As the engine of the store itself, with a name for what is embedded."""

    options: dict[str, Any] = {  # noqa: RUF012 - the protocol's
        "embedding_model": "all-mpnet-base-v2",
        "dimension": DIMENSION,
    }


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    with QdrantDouble() as one, QdrantDouble(api_key="another_secret") as two:
        fill(one)
        yield SemanticMemory(one, two)
