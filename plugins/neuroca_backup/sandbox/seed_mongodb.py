"""NCA-shaped content for MongoDB: the episodes of `neuroca_episodic`."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.model.endpoint import Endpoint

DATABASE = "neuroca_episodic"
_BATCH = 1000
_START = datetime(2026, 1, 1, tzinfo=UTC)
# Far enough that no document expires between a backup and its comparison.
_EXPIRY = datetime(2099, 1, 1, tzinfo=UTC)
_WORDS = ("recall", "context", "signal", "reward", "attention", "goal", "pattern", "surprise")


def counts(scale: float) -> dict[str, int]:
    """Return how many documents each `database.collection` holds after `seed`."""
    episodes = max(1, round(5_000 * scale))
    return {f"{DATABASE}.episodes": episodes, f"{DATABASE}.consolidations": 1 + episodes // 10}


def seed(endpoint: Endpoint, *, scale: float) -> None:
    """Replace the database `neuroca_episodic`, with TTL, text, unique and partial indexes."""
    from pymongo import ASCENDING, DESCENDING, TEXT, MongoClient  # noqa: PLC0415 - slow

    wanted = counts(scale)
    with MongoClient[dict[str, Any]](
        endpoint.host,
        endpoint.port,
        username=endpoint.user,
        password=endpoint.password,
        **endpoint.extra,
    ) as client:
        client.drop_database(DATABASE)
        database = client[DATABASE]
        database.create_collection(
            "episodes", validator={"$jsonSchema": {"required": ["episode_id", "summary"]}}
        )
        episodes = database["episodes"]
        for first, end in _batches(wanted[f"{DATABASE}.episodes"]):
            episodes.insert_many(_episode(n) for n in range(first, end))
        for first, end in _batches(wanted[f"{DATABASE}.consolidations"]):
            database["consolidations"].insert_many(_consolidation(n) for n in range(first, end))
        episodes.create_index([("expires_at", ASCENDING)], name="ttl", expireAfterSeconds=0)
        episodes.create_index([("summary", TEXT)], name="text", default_language="none")
        episodes.create_index([("episode_id", ASCENDING)], name="unique_id", unique=True)
        episodes.create_index(
            [("user", ASCENDING), ("occurred_at", DESCENDING)],
            name="important_of_user",
            partialFilterExpression={"importance": {"$gte": 0.8}},
        )
        database.create_collection(
            "recent_episodes",
            viewOn="episodes",
            pipeline=[{"$match": {"importance": {"$gte": 0.9}}}, {"$project": {"summary": 1}}],
        )


def _batches(number: int) -> Iterator[tuple[int, int]]:
    for first in range(0, number, _BATCH):
        yield first, min(first + _BATCH, number)


def episode_id(n: int) -> str:
    """Return the id of the n-th episode, by which the other tiers refer to it."""
    return hashlib.sha256(f"episode {n}".encode()).hexdigest()[:32]


def _episode(n: int) -> dict[str, Any]:
    from bson import Binary, Decimal128, Int64  # noqa: PLC0415 - as above

    digest = hashlib.sha256(f"episode {n}".encode()).digest()
    return {
        "_id": _object_id("episode", n),
        "episode_id": episode_id(n),
        "user": n % 50,
        "summary": " ".join(_WORDS[byte % len(_WORDS)] for byte in digest),
        "importance": n % 100 / 100,
        "occurred_at": _START + timedelta(minutes=n),
        "expires_at": _EXPIRY + timedelta(seconds=n) if n % 4 else None,
        "emotion": {"valence": digest[0] / 255, "labels": ["calm", "urgent"][: n % 3]},
        "cost": Decimal128(f"{n}.25"),
        "sequence": Int64(2**40 + n),
        "state": Binary(digest * 16),
    }


def _consolidation(n: int) -> dict[str, Any]:
    return {
        "_id": _object_id("consolidation", n),
        "episodes": [_object_id("episode", m) for m in range(n * 10, n * 10 + 10)],
        "finished_at": _START + timedelta(hours=n),
    }


def _object_id(kind: str, number: int) -> Any:
    from bson import ObjectId  # noqa: PLC0415 - as above

    return ObjectId(hashlib.sha256(f"{kind} {number}".encode()).digest()[:12])
