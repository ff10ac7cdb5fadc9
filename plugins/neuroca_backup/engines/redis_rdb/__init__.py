"""Redis: every logical database as one RDB, taken over the replication protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from neuroca_backup.engines import (
    Answer,
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
    checked_options,
)
from neuroca_backup.errors import ChainBrokenError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# ruff: noqa: PLC0415 - redis-py takes 0.2 s to import, and DAG files and the command's help need
# nothing of it: each method imports its module when it is called.


class Options(BaseModel):
    """`options` of a source of this engine.

    `sample`: keys whose contents are compared after a restore; counts are always exact.
    `start_seconds`: how long the server may take to begin, while it writes its snapshot.
    `allow_empty`: whether a server without any key is a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: int = Field(default=2000, ge=1, le=100_000)
    start_seconds: int = Field(default=1800, ge=1, le=86_400)
    allow_empty: bool = False


class RedisRdbEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "redis_rdb"
    default_port: ClassVar[int] = 6379
    sandbox: ClassVar[str] = "redis_twin"
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `7.2.5`."""
        from neuroca_backup import redis_session as session

        return session.state(endpoint).version

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Dump the snapshot that the server makes for a new replica."""
        if parent is not None:
            raise ChainBrokenError(
                "A snapshot of Redis cannot continue another one: the server keeps no log of its "
                "changes",
                remedy="Schedule full backups of this source alone.",
            )
        from neuroca_backup.engines.redis_rdb import dump

        return dump.dump(endpoint, sink, Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Walk through the whole RDB and count again."""
        from neuroca_backup.engines.redis_rdb import check

        check.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many databases and keys the backup holds."""
        databases = manifest.dump.facts["databases"].values()
        keys = sum(database["keys"] for database in databases)
        expiring = sum(database["expiring"] for database in databases)
        return f"{len(databases)} databases, {keys:,} keys, {expiring:,} of them expire"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse versions that cannot work, replicas, and keys that would be overwritten."""
        from neuroca_backup.engines.redis_rdb import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Load the RDB into a throwaway server; the target is not touched."""
        from neuroca_backup.engines.redis_rdb import restore

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare keys, types, expiry and sampled contents."""
        from neuroca_backup.engines.redis_rdb import restore

        return restore.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Replicate from the throwaway server, or copy key by key, or put the file in place."""
        from neuroca_backup.engines.redis_rdb import restore

        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Ask whether it takes writes, and read random keys."""
        from neuroca_backup.engines.redis_rdb import examine

        return examine.examine(endpoint, facts, only=only)


ENGINE: Engine = RedisRdbEngine()
