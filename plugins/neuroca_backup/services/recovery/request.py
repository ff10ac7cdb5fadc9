"""The form of a recovery: what a person asked for, checked before anything is looked at."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from neuroca_backup.errors import ConfigurationError, TargetRefusedError
from neuroca_backup.model.identity import Component, whole_source
from neuroca_backup.services.recovery.tiers import covering
from neuroca_backup.services.targets import of_files
from neuroca_backup.settings import Settings

DRILL, NEW_ENVIRONMENT, IN_PLACE = "drill", "new_environment", "in_place"
TARGETS = (DRILL, NEW_ENVIRONMENT, IN_PLACE)
PREFERENCES = ("auto", "primary", "secondary")
NEWEST = "newest"
MOST_APPROVALS = 2
_SET_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_LONGEST_STORY = 2000
# The engine of Airflow's own connections and variables.
AIRFLOW = "airflow_metadata"


@dataclass(frozen=True, slots=True)
class RecoveryRequest:
    """The fields of the form; the DAG's params have the same names.

    `components` are those that are lost, () for all. `recover_to` is `newest`, a time with its
    offset, or the id of a backup set. `connections` says for a new environment where each source
    goes: the id of a connection, or for files an absolute directory. `approvals` None means what
    backup.yaml says.
    """

    what_happened: str = ""
    components: tuple[Component, ...] = ()
    declared_at: datetime | None = None
    recover_to: str = NEWEST
    target: str = DRILL
    connections: Mapping[str, str] = field(default_factory=dict)
    prefer_store: str = "auto"
    approvals: int | None = None
    allow_older: bool = True
    save_first: bool = True
    notify: tuple[str, ...] = ()
    confirm: str | None = None
    keep_sandbox: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any], settings: Settings) -> RecoveryRequest:
        """Return the request that `params` describe.

        Raises:
            ConfigurationError: A field is unknown, has no such value, or contradicts another.
            TargetRefusedError: A recovery in place was not confirmed.
        """
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(params) - set(known))
        if unknown:
            raise ConfigurationError(
                f"The recovery form has no field {', '.join(map(repr, unknown))}",
                remedy=f"Its fields are: {', '.join(known)}.",
            )
        request = cls(
            **{
                **params,
                "what_happened": str(params.get("what_happened") or "").strip(),
                "components": _components(params.get("components") or (), settings),
                "declared_at": _moment("declared_at", params.get("declared_at")),
                "recover_to": str(params.get("recover_to") or NEWEST).strip(),
                "connections": _with_tiers(params.get("connections") or {}, settings),
                "notify": tuple(one.strip() for one in params.get("notify") or () if one.strip()),
                "confirm": params.get("confirm") or None,
            }
        )
        request.check(settings)
        return request

    @property
    def drill(self) -> bool:
        """Whether this is a drill: nothing but throwaway servers is written to."""
        return self.target == DRILL

    @property
    def prefer(self) -> str | None:
        """The store to read from first, or None for the order in backup.yaml."""
        return None if self.prefer_store == "auto" else self.prefer_store

    @property
    def set_id(self) -> str | None:
        """The set to recover to, where one is named."""
        return self.recover_to if _SET_ID.fullmatch(self.recover_to) else None

    @property
    def moment(self) -> datetime | None:
        """The time to recover to, where one is named."""
        if self.recover_to == NEWEST or self.set_id is not None:
            return None
        return _moment("recover_to", self.recover_to)

    def lost(self, settings: Settings) -> tuple[Component, ...]:
        """Return the components to recover: those named, or all that have sources."""
        present = tuple(one for one in Component if settings.sources_of(one))
        return tuple(one for one in present if not self.components or one in self.components)

    def needed(self, settings: Settings) -> int:
        """Return how many people other than the one who triggered it have to agree."""
        if self.drill:
            return self.approvals or 0
        return settings.recovery.approvals if self.approvals is None else self.approvals

    def check(self, settings: Settings) -> None:
        """Raise what `parse` raises."""
        _require_one_of("target", self.target, TARGETS)
        _require_one_of("prefer_store", self.prefer_store, PREFERENCES)
        for word in ("allow_older", "save_first", "keep_sandbox"):
            if not isinstance(getattr(self, word), bool):
                raise ConfigurationError(
                    f"{word}: {getattr(self, word)!r} is neither true nor false",
                    remedy="Write true or false, without quotes.",
                )
        if len(self.what_happened) > _LONGEST_STORY:
            raise ConfigurationError(
                f"what_happened has {len(self.what_happened)} characters",
                remedy=f"Write at most {_LONGEST_STORY}; the report has room for more.",
            )
        if not self.drill and not self.what_happened:
            raise ConfigurationError(
                "what_happened is empty",
                remedy="Write a sentence: it is in the plan that others approve, and the report.",
            )
        self._check_moment()
        self._check_approvals(settings)
        self._check_connections(settings)
        wanted = ",".join(self.components) or "all"
        if self.target == IN_PLACE and self.confirm != wanted:
            raise TargetRefusedError(
                f"Recovering {wanted} in place would replace the data of every source at its own "
                f"address, and confirm is {self.confirm!r}",
                remedy=f"If that is what you want, set confirm to {wanted!r}.",
            )

    def restore_form(self, source: str) -> dict[str, Any]:
        """Return the restore form that recovers `source`, as the tasks of a restore read it."""
        place = self.destination_of(source)
        form: dict[str, Any] = {
            "source": source,
            "target": "sandbox",
            "prefer_store": self.prefer_store,
            "allow_older": self.allow_older,
            "save_first": self.save_first,
            # Every byte is checked when it is fetched: reading twice would cost the RTO.
            "read_back": False,
            "keep_sandbox": self.keep_sandbox,
        }
        if self.target == IN_PLACE:
            return {**form, "target": "in_place", "confirm": source}
        if place is None:
            return form
        word = "directory" if place.startswith("/") else "connection"
        return {**form, "target": word, f"target_{word}": place}

    def destination_of(self, source: str) -> str | None:
        """Return what `connections` says of a source, or of the whole that it is a part of."""
        whole = whole_source(source)
        place = self.connections.get(source)
        if place is None and whole in self.connections:
            place = self.connections[whole]
            if place.startswith("/") and source != whole:
                return f"{place.rstrip('/')}/{source.removeprefix(f'{whole}__')}"
        return place

    def leaves(self, source: str, engine: str) -> bool:
        """Return whether a source is left as it is: the connections that this Airflow works with.

        Replacing them would change under the recovery where it restores to.
        """
        if engine != AIRFLOW or self.drill:
            return False
        return self.target == IN_PLACE or whole_source(source) not in self.connections

    def _check_moment(self) -> None:
        if self.recover_to != NEWEST and self.set_id is None:
            _moment("recover_to", self.recover_to)

    def _check_approvals(self, settings: Settings) -> None:
        given, least = self.approvals, settings.recovery.approvals
        if given is None:
            return
        if isinstance(given, bool) or given not in range(MOST_APPROVALS + 1):
            raise ConfigurationError(
                f"approvals: {given!r} is not a choice", remedy="Write 0, 1 or 2."
            )
        if not self.drill and given < least:
            raise ConfigurationError(
                f"approvals is {given}, and recovery.approvals in backup.yaml asks for {least}",
                remedy=f"Write {least} or more, or leave it empty.",
                value=given,
            )

    def _check_connections(self, settings: Settings) -> None:
        if self.target != NEW_ENVIRONMENT:
            if self.connections:
                raise ConfigurationError(
                    f"connections are given, and target is {self.target!r}",
                    remedy=f"Remove them, or choose the target {NEW_ENVIRONMENT!r}.",
                )
            return
        lost = self.lost(settings)
        for source, place in self.connections.items():
            if settings.source(source) is None or not isinstance(place, str) or not place:
                raise ConfigurationError(
                    f"connections: {source!r}: {place!r} says of no source where it goes",
                    remedy=f"Use the names of sources: {', '.join(settings.sources)}; each with "
                    "the id of a connection, or for files an absolute directory.",
                )
        for name, one in settings.sources.items():
            if one.component not in lost or self.leaves(name, one.engine):
                continue
            goes = self.connections.get(name)
            if goes is None:
                raise ConfigurationError(
                    f"connections does not say where {name} goes",
                    remedy="Name a connection, or for files a directory, for every source of the "
                    "lost components; or choose fewer components.",
                    value=name,
                )
            if goes.startswith("/") != of_files(one.engine):
                kind = "an absolute directory" if of_files(one.engine) else "a connection id"
                raise ConfigurationError(
                    f"connections: {name} goes to {goes!r}, and the engine {one.engine} needs "
                    f"{kind}",
                    remedy=f"Write {kind}.",
                    value=goes,
                )


def _with_tiers(given: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return `given`; a memory tier that it leaves out goes where its database goes."""
    found = dict(given)
    for name in settings.sources_of(Component.MEMORY_TIERS):
        database = covering(name, settings)
        if name not in found and database in found:
            found[name] = found[database]
    return found


def _components(given: Any, settings: Settings) -> tuple[Component, ...]:
    present = [one.value for one in Component if settings.sources_of(one)]
    for word in given:
        _require_one_of("components", word, tuple(present))
    return tuple(one for one in Component if one.value in given)


def _require_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigurationError(
            f"{name}: {value!r} is not a choice",
            remedy=f"Use one of: {', '.join(allowed)}.",
            value=value,
        )


def _moment(name: str, value: Any) -> datetime | None:
    if value is None or value == "":
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        words = "" if name == "declared_at" else "newest, the id of a backup set, or "
        raise ConfigurationError(
            f"{name}: {value!r} means nothing",
            remedy=f"Write {words}a time with its offset, such as 2026-11-23T02:00:00Z.",
            value=value,
        ) from None
    if found.tzinfo is None:
        raise ConfigurationError(
            f"{name}: {value!r} has no time zone",
            remedy="Write it with an offset, such as 2026-11-23T02:00:00Z.",
            value=value,
        )
    return found
