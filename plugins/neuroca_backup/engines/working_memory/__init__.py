"""Working memory: the keys of a tier in Redis, each with its type, value and expiry, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar

from pydantic import Field, model_validator

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
from neuroca_backup.memory import tiers
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump, Manifest

# ruff: noqa: PLC0415 - redis-py takes 0.2 s to import, and DAG files and the command's help need
# nothing of it: each method imports its module when it is called.


class Options(tiers.TierOptions):
    """`options` of a source of this engine, beside those of every tier.

    `keys`: patterns of SCAN; without any, those of NCA's own keys of the tier. `databases`: the
    logical databases, all of them or a list of numbers. `indexes`: patterns of the sets that list
    items by something; when single items are restored they are added to these, which are never
    replaced then.
    """

    tier: tiers.Tier = tiers.WORKING
    backend: str = "redis"
    keys: tuple[str, ...] = ()
    databases: str | tuple[int, ...] = Field(default="all")
    indexes: tuple[str, ...] = ("*:index:*",)

    @model_validator(mode="before")
    @classmethod
    def _own_keys(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("keys"):
            return given
        try:
            code = tiers.CODE_NAMES[tiers.tier_of(given.get("tier", tiers.WORKING))]
        except ValueError:
            return given  # which the field itself will say
        return {**given, "keys": (f"memory:{code}:*", f"neuroca:memory:{code}:*")}

    @model_validator(mode="after")
    def _possible(self) -> Options:
        if isinstance(self.databases, str) and self.databases != "all":
            raise ValueError("databases are `all`, or a list of numbers such as [0, 1]")
        if not all(self.keys) or not all(self.indexes):
            raise ValueError("a pattern is empty")
        return self


class WorkingMemoryEngine:
    """See `neuroca_backup.engines.Engine`."""

    kind: ClassVar[str] = "working_memory"
    default_port: ClassVar[int] = 6379
    sandbox: ClassVar[str] = "redis_twin"
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the options, checked and filled."""
        tiers.require_backend(given, kind=self.kind, known=("redis",))
        return checked_options(Options, given, kind=self.kind).model_dump()

    def probe(self, endpoint: Endpoint) -> str:
        """Return the server's version, e.g. `7.2.5`."""
        from neuroca_backup import redis_session

        return redis_session.state(endpoint).version

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        """Export every key of the tier, one member a logical database."""
        if parent is not None:
            raise ChainBrokenError(
                "An export of working memory cannot continue another one: Redis keeps no log of "
                "its changes",
                remedy="Schedule full backups of this source alone.",
            )
        from neuroca_backup.engines.working_memory import dump

        return dump.dump(endpoint, sink, Options.model_validate(options))

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        """Read every key of every member and count again."""
        from neuroca_backup.engines.working_memory import members

        members.check(manifest, open_member)

    def summary(self, manifest: Manifest) -> str:
        """Return how many keys the backup holds."""
        databases = manifest.dump.facts["databases"].values()
        keys = sum(one["keys"] for one in databases)
        expiring = sum(one["expiring"] for one in databases)
        tier = manifest.dump.facts["tier"]
        return f"{tier} memory: {len(databases)} databases, {keys:,} keys, {expiring:,} expire"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Refuse words that select nothing known, replicas, and keys that would be replaced."""
        from neuroca_backup.engines.working_memory import restore

        return restore.preflight(backup, target)

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Write the chosen keys under names of their own beside what is there."""
        from neuroca_backup.engines.working_memory import restore

        return restore.load(backup, target)

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        """Compare every chosen key's type, value and expiry with the server's."""
        from neuroca_backup.engines.working_memory import compare

        return compare.compare(backup, target)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        """Rename every key into its place; of a whole tier, remove what it had not."""
        from neuroca_backup.engines.working_memory import restore

        return restore.publish(backup, target)

    def examine(
        self, endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
    ) -> Sequence[Answer]:
        """Read keys of the tier in every database; see the protocol."""
        from neuroca_backup.engines.working_memory import examine

        return examine.examine(endpoint, facts, only=only)

    def values(self, backup: Restorable, *, place: str, field: str) -> Iterator[str]:
        """Yield the values of a field of keys; see the protocol."""
        from neuroca_backup.engines.working_memory import values

        return values.values(backup, place=place, field=field)


ENGINE: Engine = WorkingMemoryEngine()
