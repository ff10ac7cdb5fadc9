"""The restore form: what a person asked for, checked, and the server that it means."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup import sandbox
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import ConfigurationError, NotFoundError, TargetRefusedError
from neuroca_backup.model.identity import Component
from neuroca_backup.model.retrieval import RetrievalTier
from neuroca_backup.services import past, targets
from neuroca_backup.services.sets import LATEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.model.endpoint import Connections, Endpoint
    from neuroca_backup.settings import Settings, SourceSettings

TARGETS = ("sandbox", "connection", "directory", "in_place")
PREFERENCES = ("auto", "primary", "secondary")
NO_RETRIEVAL = "none"
RETRIEVALS = (*(tier.value for tier in RetrievalTier), NO_RETRIEVAL)
# In the field for a component: none of them, as a form has no choice without a word.
ONE_SOURCE = "one_source"

# Fields that choose what is restored, and do not go together.
_EITHER = (
    ("backup_id", "before"),
    ("before", "until"),
    *(
        (whole, other)
        for whole in ("component", "set_id")
        for other in ("backup_id", "before", "until", "only")
    ),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The fields of the form; the DAG's params have the same names."""

    source: str
    component: str | None = None
    backup_id: str | None = None
    before: datetime | None = None
    until: datetime | None = None
    as_of: datetime | None = None
    only: tuple[str, ...] = ()
    set_id: str | None = None
    target: str = "sandbox"
    target_connection: str | None = None
    target_directory: str | None = None
    confirm: str | None = None
    save_first: bool = True
    prefer_store: str = "auto"
    retrieval: str = RetrievalTier.STANDARD.value
    allow_older: bool = False
    read_back: bool = True
    dry_run: bool = False
    keep_sandbox: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any], settings: Settings) -> RestoreRequest:
        """Return the request that `params` describe.

        Raises:
            ConfigurationError: A field is unknown, or the fields contradict each other.
            TargetRefusedError: An in-place restore was not confirmed.
        """
        _refuse_unknown(params)
        texts = (
            *("component", "backup_id", "set_id"),
            *("target_connection", "target_directory", "confirm"),
        )
        times = ("before", "until", "as_of")
        request = cls(
            **{
                **params,
                **{name: params.get(name) or None for name in texts},
                **({"component": None} if params.get("component") == ONE_SOURCE else {}),
                **{
                    name: datetime.fromisoformat(params[name]) if params.get(name) else None
                    for name in times
                },
                # The form gives a line of its own for each; an empty one means nothing.
                "only": tuple(part.strip() for part in params.get("only") or () if part.strip()),
            }
        )
        request.check(settings)
        return request

    @property
    def prefer(self) -> str | None:
        """The store to read from first, or None for the order in backup.yaml."""
        return None if self.prefer_store == "auto" else self.prefer_store

    @property
    def tier(self) -> RetrievalTier | None:
        """How urgently archives are asked, or None where they are not to be."""
        return None if self.retrieval == NO_RETRIEVAL else RetrievalTier(self.retrieval)

    @property
    def whole(self) -> str | None:
        """The set to restore, an id or `latest`; None where one source is."""
        return self.set_id or (LATEST if self.component else None)

    @property
    def in_place(self) -> bool:
        """Whether the data of running sources is replaced."""
        return self.target == "in_place"

    @property
    def place(self) -> str:
        """The target for the records: a connection, a directory, or what kind of target it is."""
        return self.target_connection or self.target_directory or self.target

    def check(self, settings: Settings) -> None:
        """Raise what `parse` raises."""
        _require_source(self.source, settings)
        if self.component is not None:
            _require_one_of("component", self.component, tuple(Component))
        _require_one_of("target", self.target, TARGETS)
        _require_one_of("prefer_store", self.prefer_store, PREFERENCES)
        _require_one_of("retrieval", self.retrieval, RETRIEVALS)
        self._check_choice()
        if self.backup_id and not self.backup_id.endswith(f"-{self.source}"):
            raise ConfigurationError(
                f"{self.backup_id} is not a backup of {self.source}",
                remedy="Choose the source that the backup id ends in.",
                value=self.backup_id,
            )
        times = {"before": self.before, "until": self.until, "as_of": self.as_of}
        for field, time in times.items():
            if time is not None and time.tzinfo is None:
                raise ConfigurationError(
                    f"{field}: {time.isoformat()} has no time zone",
                    remedy="Write it with an offset, such as 2026-11-23T02:00:00Z.",
                )
        if self.as_of is not None:
            past.moment(self.as_of.isoformat(), field="as_of")
        for word in ("connection", "directory"):
            field, place = f"target_{word}", getattr(self, f"target_{word}")
            if (self.target == word) != (place is not None):
                raise ConfigurationError(
                    f"target is {self.target!r} and {field} is {place!r}",
                    remedy=f"Give {field} if, and only if, target is {word!r}.",
                )
        if self.whole is None:
            self.require_confirmed(self.source)
        elif self.whole != LATEST:
            self.require_confirmed(self.whole)

    def require_confirmed(self, what: str) -> None:
        """Raise `TargetRefusedError` for a restore in place of `what` that was not confirmed."""
        if self.in_place and self.confirm != what:
            raise TargetRefusedError(
                f"Restoring {what} in place would replace the data of running servers, and "
                f"confirm is {self.confirm!r}",
                remedy=f"If that is what you want, set confirm to {what!r}.",
            )

    def _check_choice(self) -> None:
        """Refuse fields that would choose two different things."""
        given = {
            "component": self.component,
            "backup_id": self.backup_id,
            "before": self.before,
            "until": self.until,
            "only": self.only,
            "set_id": self.set_id,
        }
        chosen = [name for name, value in given.items() if value]
        for one, another in _EITHER:
            if one in chosen and another in chosen:
                raise ConfigurationError(
                    f"Both {one} and {another} are given",
                    remedy="Give one of them, or neither for the newest verified backup.",
                )
        if self.whole is not None and self.target in {"connection", "directory"}:
            raise ConfigurationError(
                f"A set cannot be restored to one {self.target}: it has several sources",
                remedy="Restore them one by one, or choose another target.",
            )

    def resolve(
        self,
        settings: Settings,
        connections: Connections,
        sandbox_root: Path,
        *,
        source: str,
        engine: str,
    ) -> RestoreTarget:
        """Return where `source` goes, afresh in every task: nothing of it goes through XCom.

        `engine` is the one that made the backup.

        Raises:
            ConfigurationError: In place of a source that backup.yaml does not have.
            TargetRefusedError: It is the server of a configured source, and not in place, or the
                root directory.
            NotFoundError: The sandbox is not running.
        """
        if self.in_place:
            configured = _require_source(source, settings)
            own = targets.own(source, configured, connections=connections)
            return RestoreTarget(endpoint=targets.with_default_port(own, engine), replace=True)
        if self.target == "directory":
            return RestoreTarget(targets.directory(Path(str(self.target_directory)), engine))
        if self.target == "connection":
            targets.require_server(engine, connection=str(self.target_connection))
            endpoint = connections.endpoint(str(self.target_connection))
        else:
            endpoint = _sandbox_endpoint(sandbox_root, targets.sandbox_kind(engine))
        endpoint = targets.with_default_port(endpoint, engine)
        for note in targets.refuse_production(endpoint, settings=settings, connections=connections):
            log.warning("%s", note)
        return RestoreTarget(endpoint=endpoint)

    def destination(
        self, settings: Settings, connections: Connections, *, source: str, engine: str
    ) -> str:
        """Return where `source` goes in words that name the server, or the directory.

        Raises what `resolve` raises but for a sandbox, which need not run yet.
        """
        if self.target == "sandbox":
            word = "directory" if targets.of_files(engine) else "server"
            return f"a throwaway {word} of this run"
        nowhere = Path("/nonexistent")
        target = self.resolve(settings, connections, nowhere, source=source, engine=engine)
        return target.endpoint.label


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


def _require_source(name: str, settings: Settings) -> SourceSettings:
    """Return the source `name`, or the one of which it is a part; refuse any other name."""
    found = settings.source(name)
    if found is None:
        raise ConfigurationError(
            f"source: {name!r} is not a choice",
            remedy=f"Use one of: {', '.join(settings.sources)}; or a part of one, by the name that "
            "its backups have.",
            value=name,
        )
    return found


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
