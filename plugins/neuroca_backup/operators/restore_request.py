"""The restore form: what a person asked for, checked, and the server that it means."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import ConfigurationError, NotFoundError, TargetRefusedError
from neuroca_backup.services import targets

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from neuroca_backup.model.endpoint import Connections, Endpoint
    from neuroca_backup.settings import Settings

TARGETS = ("sandbox", "connection", "in_place")
PREFERENCES = ("auto", "primary", "secondary")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The fields of the form; the DAG's params have the same names."""

    source: str
    backup_id: str | None = None
    before: datetime | None = None
    target: str = "sandbox"
    target_connection: str | None = None
    confirm: str | None = None
    prefer_store: str = "auto"
    keep_sandbox: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any], settings: Settings) -> RestoreRequest:
        """Return the request that `params` describe.

        Raises:
            ConfigurationError: A field is unknown, or the fields contradict each other.
            TargetRefusedError: An in-place restore was not confirmed.
        """
        _refuse_unknown(params)
        before = params.get("before")
        request = cls(
            **{
                **params,
                "before": datetime.fromisoformat(before) if before else None,
                "backup_id": params.get("backup_id") or None,
                "target_connection": params.get("target_connection") or None,
                "confirm": params.get("confirm") or None,
            }
        )
        request.check(settings)
        return request

    @property
    def prefer(self) -> str | None:
        """The store to read from first, or None for the order in backup.yaml."""
        return None if self.prefer_store == "auto" else self.prefer_store

    def check(self, settings: Settings) -> None:
        """Raise what `parse` raises."""
        _require_one_of("source", self.source, tuple(settings.sources))
        _require_one_of("target", self.target, TARGETS)
        _require_one_of("prefer_store", self.prefer_store, PREFERENCES)
        if self.backup_id and self.before:
            raise ConfigurationError(
                "Both backup_id and before are given",
                remedy="Give one of them, or neither for the newest verified backup.",
            )
        if self.backup_id and not self.backup_id.endswith(f"-{self.source}"):
            raise ConfigurationError(
                f"{self.backup_id} is not a backup of {self.source}",
                remedy="Choose the source that the backup id ends in.",
                value=self.backup_id,
            )
        if self.before is not None and self.before.tzinfo is None:
            raise ConfigurationError(
                f"before: {self.before.isoformat()} has no time zone",
                remedy="Write it with an offset, such as 2026-11-23T02:00:00Z.",
            )
        if (self.target == "connection") != (self.target_connection is not None):
            raise ConfigurationError(
                f"target is {self.target!r} and target_connection is {self.target_connection!r}",
                remedy="Give target_connection if, and only if, target is 'connection'.",
            )
        if self.target == "in_place" and self.confirm != self.source:
            raise TargetRefusedError(
                f"Restoring {self.source} in place would replace the data of its running server, "
                f"and confirm is {self.confirm!r}",
                remedy=f"If that is what you want, set confirm to {self.source!r}.",
            )

    def resolve(
        self, settings: Settings, connections: Connections, sandbox_root: Path
    ) -> RestoreTarget:
        """Return the target, afresh in every task: no address or password goes through XCom.

        Raises:
            TargetRefusedError: It is the server of a configured source, and not in place.
            NotFoundError: The sandbox is not running.
        """
        source = settings.sources[self.source]
        if self.target == "in_place":
            endpoint = targets.with_default_port(
                connections.endpoint(source.connection), source.engine
            )
            return RestoreTarget(endpoint=endpoint, replace=True)
        if self.target == "connection":
            endpoint = connections.endpoint(str(self.target_connection))
        else:
            endpoint = _sandbox_endpoint(sandbox_root, self.sandbox_kind(settings))
        endpoint = targets.with_default_port(endpoint, source.engine)
        for note in targets.refuse_production(endpoint, settings=settings, connections=connections):
            log.warning("%s", note)
        return RestoreTarget(endpoint=endpoint)

    def sandbox_kind(self, settings: Settings) -> str:
        """Return the kind of throwaway server that the source needs."""
        return targets.sandbox_kind(settings.sources[self.source].engine)


def _refuse_unknown(params: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(RestoreRequest)]
    unknown = sorted(set(params) - set(known))
    if unknown:
        raise ConfigurationError(
            f"The restore form has no field {', '.join(map(repr, unknown))}",
            remedy=f"Its fields are: {', '.join(known)}.",
        )


def _require_one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{field}: {value!r} is not a choice", remedy=f"Use one of: {', '.join(allowed)}."
        )


def _sandbox_endpoint(root: Path, kind: str) -> Endpoint:
    endpoint = sandbox.endpoints(root).get(kind)
    if endpoint is None:
        raise NotFoundError(
            f"No sandbox {kind} runs below {root}",
            remedy="Clear the task `sandbox`, and see that every restore task runs on the same "
            "machine (pipeline.queue).",
            path=str(root),
        )
    return endpoint
