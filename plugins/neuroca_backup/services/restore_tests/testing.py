"""The steps of one source's test. Each may be repeated; taking down is done whatever happened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from neuroca_backup import sandbox
from neuroca_backup.engines import Engine, Question, RestoreTarget
from neuroca_backup.errors import (
    ConfigurationError,
    NotFoundError,
    PermanentError,
    TargetRefusedError,
)
from neuroca_backup.model.endpoint import FILES, Connections, Endpoint
from neuroca_backup.model.identity import whole_source
from neuroca_backup.model.restore_test import Sanitised
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.sandbox.lifecycle import TWIN_SUPERUSER
from neuroca_backup.services import isolated, sanitise, targets
from neuroca_backup.services.restore import Restores
from neuroca_backup.settings import Settings
from neuroca_backup.spool import Spool

log = logging.getLogger(__name__)

# Longer than any sandbox is kept: what is older was forgotten by a killed process.
FORGOTTEN = timedelta(hours=96)
_MONGODB = "mongodb_twin"


@dataclass(frozen=True, slots=True)
class Sanitising:
    """What became of the personal data of a copy, and what there is to say about it."""

    outcome: Sanitised
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Testing:
    """The steps as methods; `restores` has those that a real restore has, too."""

    settings: Settings
    connections: Connections
    spool: Spool
    restores: Restores
    engine: Callable[[str], Engine]
    questions: Callable[[str], Sequence[Question]]

    def start(self, plan: RestorePlan, kind: str) -> tuple[str, ...]:
        """Start the sandbox of a source, or find the one that runs; return notes without secrets.

        Sandboxes that a killed process has left long ago are stopped first.
        """
        self.spool.require_free(0)  # creates it private, which the sandbox would not
        self.restores.end_forgotten(older_than=FORGOTTEN)
        if self._isolated(plan, kind) is None:
            _start(self.spool.sandbox(plan.restore_id), targets.sandbox_kind(plan.engine))
        return (f"The sandbox is at {self.target(plan, kind).endpoint.label}",)

    def target(self, plan: RestorePlan, kind: str) -> RestoreTarget:
        """Return where a source goes, afresh in every step, refused where it is production.

        Raises:
            TargetRefusedError: It is the server of a source, or nobody could see whether it is.
            ConfigurationError: backup.yaml names no isolated server for the source.
            NotFoundError: Its sandbox does not run.
        """
        connection = self._isolated(plan, kind)
        endpoint = self._running(plan) if connection is None else self._connected(connection, plan)
        endpoint = targets.with_default_port(endpoint, plan.engine)
        unknown = targets.refuse_production(
            endpoint, settings=self.settings, connections=self.connections
        )
        if unknown and connection is not None:
            raise TargetRefusedError(
                f"Nobody can tell whether {endpoint.label} is a production server: {unknown[0]}",
                remedy="Add the missing connections, or use a sandbox of the kind `process`.",
                target=endpoint.label,
            )
        return RestoreTarget(endpoint=endpoint)

    def preflight(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Refuse what cannot work before anything is fetched."""
        return self.restores.preflight(plan, target)

    def require_removable(self, plan: RestorePlan, target: RestoreTarget, kind: str) -> None:
        """Refuse to load what could not be taken away again; of a sandbox of ours all goes."""
        if self._isolated(plan, kind) is not None:
            facts = self.restores.fetched_manifest(plan).dump.facts
            isolated.require_removable(target.endpoint, facts)

    def load(
        self, plan: RestorePlan, fetched: FetchReport, target: RestoreTarget, kind: str
    ) -> tuple[str, ...]:
        """Load the members into the sandbox."""
        self.require_removable(plan, target, kind)
        return self.restores.load(plan, fetched, target)

    def examine(self, plan: RestorePlan, target: RestoreTarget) -> tuple[str, ...]:
        """Ask the copy what a restored one is asked; a sandbox need not be as quick."""
        return self.restores.examine(plan, target, questions=self.questions(plan.source))

    def version(self, plan: RestorePlan, target: RestoreTarget) -> str:
        """Return the version of the sandbox's server, "" for a directory."""
        endpoint = target.endpoint
        return self.engine(plan.engine).probe(endpoint) if endpoint.kind != FILES else ""

    def sample(self, plan: RestorePlan, target: RestoreTarget) -> int:
        """Read some records of every part of the copy; return how many.

        Raises:
            PermanentError: None can be read, and the backup is not of nothing.
        """
        dump = self.restores.fetched_manifest(plan).dump
        return sanitise.readable(target.endpoint, dump.facts, empty=dump.empty)

    def sanitise(self, plan: RestorePlan, target: RestoreTarget, *, wanted: bool) -> Sanitising:
        """Take the personal data out of the copy, by the rules of its source, and prove it.

        Raises what `services.sanitise.sanitise` raises.
        """
        source = whole_source(plan.source)
        if not wanted:
            return Sanitising("not asked", ("Not sanitised, as was asked",))
        if source not in self.settings.sources:
            return Sanitising("no rules", (f"{source} is not in backup.yaml: nothing sanitised",))
        rules = sanitise.require_fitting(self.settings, source)
        if rules is None:
            note = f"backup.sanitise has no rules for {source}: nothing was sanitised"
            return Sanitising("no rules", (note,))
        if not rules:
            note = f"backup.sanitise says that nothing in {source} is personal"
            return Sanitising("nothing personal", (note,))
        facts = self.restores.fetched_manifest(plan).dump.facts
        done = sanitise.sanitise(target.endpoint, facts, rules)
        return Sanitising("yes", tuple(done.notes()))

    def tear_down(self, plan: RestorePlan, kind: str, *, loaded: bool) -> tuple[str, ...]:
        """Leave nothing of this source's test; repeating it is no error.

        From an isolated server only what was `loaded` is taken away: what a refused preflight has
        found there is somebody's.
        """
        notes: tuple[str, ...] = ()
        try:
            if loaded and self._isolated(plan, kind) is not None:
                endpoint = self.target(plan, kind).endpoint
                facts = self.restores.fetched_manifest(plan).dump.facts
                gone = isolated.remove(endpoint, facts)
                notes = (f"Removed from {endpoint.label}: {', '.join(gone) or 'nothing'}",)
        finally:
            self.restores.abandon(plan.restore_id)
        left = self.left(plan.restore_id)
        if left:
            raise PermanentError(
                f"Something of the sandbox is left: {', '.join(left)}",
                remedy="Look at it, and clear the task that takes it down.",
                left=left,
            )
        return notes

    def left(self, restore_id: str) -> list[str]:
        """Return what there is still of a test, by path; nothing where all was taken down."""
        places = (
            self.spool.sandbox(restore_id),
            self.spool.work(restore_id),
            self.spool.root / restore_id,
        )
        return [str(place) for place in places if place.exists()]

    def seen_at(self, plan: RestorePlan, kind: str, until: datetime) -> tuple[str, ...]:
        """Return how to look at a copy that is kept; the password stays in its file."""
        endpoint = self.target(plan, kind).endpoint
        if endpoint.kind == FILES:
            where = f"The files are below {endpoint.label}"
        elif self._isolated(plan, kind) is not None:
            where = f"The copy is at {endpoint.label}"
        else:
            root = self.spool.sandbox(plan.restore_id)
            where = (
                f"The copy is at {endpoint.label}, user {endpoint.user or 'default'}; the password "
                f"is in {root}/servers.json, which only the user of this process may read"
            )
        return (
            f"{where}. It is there until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
            "Until then the server's journal (WAL, old segments) on its disk still has what "
            "it wrote before sanitising: do not copy its files.",
        )

    def _isolated(self, plan: RestorePlan, kind: str) -> str | None:
        """Return the connection of the isolated server for a source; None for a sandbox of ours."""
        if kind != "connection" or targets.of_files(plan.engine):
            return None
        found = self.settings.restore_test.connections.get(whole_source(plan.source))
        if found is None:
            raise ConfigurationError(
                f"backup.yaml names no isolated server for {plan.source}",
                remedy=f"Write its connection below backup.restore_test.connections."
                f"{whole_source(plan.source)}, or use a sandbox of the kind `process`.",
                path=f"backup.restore_test.connections.{whole_source(plan.source)}",
            )
        return found

    def _connected(self, connection: str, plan: RestorePlan) -> Endpoint:
        targets.require_server(plan.engine, connection=connection)
        return self.connections.endpoint(connection)

    def _running(self, plan: RestorePlan) -> Endpoint:
        root, kind = self.spool.sandbox(plan.restore_id), targets.sandbox_kind(plan.engine)
        endpoint = sandbox.endpoints(root).get(kind)
        if endpoint is None:
            raise NotFoundError(
                f"No sandbox {kind} runs below {root}",
                remedy="Start the test from its first step on, every step on the same machine "
                "(pipeline.queue).",
                path=str(root),
            )
        return endpoint


def _start(root: Path, kind: str) -> None:
    if kind != _MONGODB:
        sandbox.start(root, [kind])
        return
    from neuroca_backup.sandbox.mongod import MongoServer  # noqa: PLC0415 - as in the sandbox

    # A replica set's oplog would keep every document as it was before it was sanitised. The user
    # has a name that no restored one takes.
    sandbox.launch(root, MongoServer(kind=kind, replica_set="", user=TWIN_SUPERUSER))
