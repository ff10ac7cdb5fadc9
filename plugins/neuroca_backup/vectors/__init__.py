"""Vector stores: what Milvus, Pinecone and Qdrant have in common, written once.

A store takes part with a `VectorDatabase` (database.py), the few things it must be able to do, and
a `VectorEngine` (engine.py). Nothing here imports pyarrow or numpy before it is needed.
"""
