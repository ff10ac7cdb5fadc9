"""Carrying a plan out, one source at a time; every step may be repeated, by any number at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import (
    AlreadyExistsError,
    BackupError,
    PermanentError,
    StoreUnavailableError,
    TargetRefusedError,
)
from neuroca_backup.model.erasure import Erasure, key_of
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.retention import Hold, Tombstone
from neuroca_backup.services import locking
from neuroca_backup.services.audit import Audit, Synced
from neuroca_backup.services.ledger import Ledger
from neuroca_backup.services.retention import certifying, demanded, erasing, marks, planning
from neuroca_backup.services.retention.planning import Decision, Fate, Plan, Record, Rules
from neuroca_backup.services.retention.survey import Survey, sources, survey
from neuroca_backup.services.retention.sweeping import Sweeper, Swept
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Applied:
    """What was done to one source: ids by what became of them, and the bytes freed in one store.

    `spared` were to be deleted, and were put on hold a moment before.
    """

    component: Component
    source: str
    taken_back: list[str] = field(default_factory=list)
    expired: list[str] = field(default_factory=list)
    erased: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    size: int = 0


class Retention:
    """Deletes expired backups from all stores, and takes them back.

    Args:
        stores: Every configured store by name; what is needed by the copies of one that is not
            given would be deleted.
        rules: How long what is kept.
        catalog: Where it is noted what is gone.
        workers: Objects handled at once.
        clock: What time it is, aware.
        audit: The audit trail; without one, that of these stores.
        remains: Whether a store that is not among `stores` has a backup: the catalog then keeps it.
    """

    def __init__(
        self,
        *,
        stores: Mapping[str, Store],
        rules: Rules,
        catalog: Catalog,
        workers: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        audit: Audit | None = None,
        remains: Callable[[BackupRef], bool] = lambda _: False,
    ) -> None:
        self._remains = remains
        self._stores = stores
        self._rules = rules
        self._ledger = Ledger(catalog)
        self._audit = audit or Audit(stores=stores, catalog=catalog, clock=clock)
        self._workers = workers
        self._clock = clock

    def sources(self) -> Sequence[tuple[Component, str]]:
        """Return every component and source that any store has anything of.

        Raises:
            BackupError: A store's own; all of them have to answer.
        """
        return sources(self._stores)

    def plan(self, component: Component, source: str) -> Plan:
        """Return what becomes of the backups of `source`; nothing is touched."""
        return self._plan(self._survey(component, source))

    def apply(
        self, component: Component, source: str, *, confirmed: bool = False, actor: str
    ) -> Applied:
        """Plan anew and carry that out: take back, mark what has expired, delete what may go.

        `confirmed` lets more of the verified backups expire at once than the rules allow.

        Raises:
            StoreUnavailableError: Not everything could be read, which may pass; nothing was done.
            PermanentError: Not everything could be read, or the plan has to be confirmed; nothing
                was done.
        """
        found = self._survey(component, source)
        plan = self._plan(found)
        _require_certain(plan, transient=bool(found.unknown) and found.transient)
        if plan.excess and not confirmed:
            raise PermanentError(
                f"Nothing of {component}/{source} was deleted: {plan.excess}",
                remedy="Look at the plan (`neuroca-backup retention run`). If it is what you want, "
                "run it with --apply --confirm, or trigger the DAG with confirm.",
                source=source,
            )
        done = Applied(component=component, source=source)
        # The oldest first: no backup is there without those that it needs. Marked and deleted is
        # the other way round.
        for one in reversed(plan.of(Fate.TAKE_BACK)):
            self._take_back(one, done, actor)
        for one in plan.of(Fate.EXPIRE):
            self._expire(one, done, actor)
        standing = {one.record.backup_id for one in plan.decisions if one.fate is not Fate.ERASE}
        for one in plan.of(Fate.ERASE):
            needing = plan.needed.get(one.record.backup_id, frozenset()) & standing
            if needing or not self._erase(one, done, actor):
                standing.add(one.record.backup_id)
                done.spared.append(one.record.backup_id)
        return done

    def erasable(self, ref: BackupRef) -> Record:
        """Return the backup `ref`, which may be erased on demand; nothing is touched.

        Raises:
            NotFoundError: No store has it.
            TargetRefusedError: It is held, locked, or needed by other backups; says what to do.
            StoreUnavailableError, PermanentError: Not everything could be read.
        """
        found = self._survey(ref.component, ref.source)
        _require_certain(self._plan(found), transient=bool(found.unknown) and found.transient)
        return demanded.require_free(self._stores, ref, found.records, now=self._clock())

    def erase(self, ref: BackupRef, *, reason: str, actor: str) -> Erasure:
        """Erase `ref` at once, whatever its age; return the certificate.

        Where a store fails half way the backup is no backup any more; the next run of retention
        goes on, and only then is there a certificate.

        Raises:
            NotFoundError, TargetRefusedError: See `erasable`; nothing was touched.
            BackupError: A store's own; there is no certificate yet.
        """
        self.erasable(ref)
        now = self._clock()
        tombstone = Tombstone(
            backup_id=ref.backup_id, expired_at=now, erase_after=now, reason=reason, actor=actor
        )
        _, certificate = self._destroy(ref, {"": tombstone}, "erase", actor)
        if certificate is None:
            raise TargetRefusedError(
                f"{ref.backup_id} was put on hold a moment ago, so it is not erased",
                remedy="Talk to who holds it: `neuroca-backup hold list`.",
                backup_id=ref.backup_id,
            )
        return certificate

    def sweep(self, *, actor: str) -> Swept:
        """Remove what never became a backup, or is left of none, from every store.

        Raises:
            BackupError: A store's own.
        """
        return Sweeper(
            stores=self._stores,
            rules=self._rules,
            now=self._clock(),
            survey=self._survey,
            workers=self._workers,
            note=lambda subject, details: self._note(subject, "sweep", actor, details),
        ).sweep()

    def undelete(
        self, ref: BackupRef, *, reason: str, until: datetime | None, actor: str
    ) -> tuple[Sequence[BackupRef], Sequence[BackupError]]:
        """Take `ref` back with all that it needs, and hold it; see `marks.undelete`."""
        wanted = Hold(
            backup_id=ref.backup_id,
            reason=reason,
            actor=actor,
            held_at=self._clock(),
            until=until,
        )
        taken, errors = marks.undelete(self._stores, ref, wanted)
        for one in taken:
            self._note(one.backup_id, "undelete", actor, {"reason": reason})
            self._marked(one, None)
        return taken, errors

    def hold(self, ref: BackupRef, *, reason: str, until: datetime | None, actor: str) -> None:
        """Keep `ref` from being deleted; see `marks.hold`. Stores that lock get a legal hold."""
        wanted = Hold(
            backup_id=ref.backup_id,
            reason=reason,
            actor=actor,
            held_at=self._clock(),
            until=until,
        )
        try:
            marks.hold(self._stores, ref, wanted)
        except AlreadyExistsError:
            # The one that stands may have been cut short before the stores were told.
            locking.hold(self._stores, ref, workers=self._workers)
            raise
        locking.hold(self._stores, ref, workers=self._workers)
        details = {"reason": reason, "until": None if until is None else until.isoformat()}
        self._note(ref.backup_id, "hold", actor, details)

    def release(self, ref: BackupRef, *, actor: str) -> bool:
        """End the hold on `ref`; return whether there was one."""
        now = self._clock()
        others = (one for one, held in self.held() if one != ref and held.stands(now))
        locking.release(self._stores, ref, others=others, workers=self._workers)
        released = marks.release(self._stores, ref)
        if released:
            self._note(ref.backup_id, "release", actor, {})
        return released

    def held(self) -> Iterator[tuple[BackupRef, Hold]]:
        """Yield every hold there is, also those that are over."""
        return marks.held(self._stores)

    def note_run(self, *, actor: str, details: Mapping[str, object]) -> Synced:
        """Note in the audit trail that a run is over; give every store the lines that it lacks."""
        self._note("all sources", "retention", actor, details)
        return self._audit.sync()

    def _survey(self, component: Component, source: str) -> Survey:
        return survey(
            self._stores,
            component,
            source,
            rules=self._rules,
            now=self._clock(),
            workers=self._workers,
        )

    def _plan(self, found: Survey) -> Plan:
        return planning.plan(
            found.component,
            found.source,
            found.records,
            rules=self._rules,
            now=self._clock(),
            unknown=found.unknown,
        )

    def _take_back(self, one: Decision, done: Applied, actor: str) -> None:
        ref = one.record.ref
        if not marks.unbury(self._stores, ref):
            log.warning("%s cannot be taken back any more: its deletion has begun", ref.backup_id)
            return
        done.taken_back.append(ref.backup_id)
        log.info("%s is taken back: %s", ref.backup_id, one.reason)
        self._note(ref.backup_id, "take back", actor, {"reason": one.reason})
        self._marked(ref, None)

    def _expire(self, one: Decision, done: Applied, actor: str) -> None:
        ref, now = one.record.ref, self._clock()
        tombstone = Tombstone(
            backup_id=ref.backup_id,
            expired_at=now,
            erase_after=now + self._rules.grace,
            reason=one.reason,
            actor=actor,
        )
        marks.bury(self._stores, ref, tombstone)
        done.expired.append(ref.backup_id)
        log.info(
            "%s has expired: %s; it can be taken back until %s",
            ref.backup_id,
            one.reason,
            tombstone.erase_after.isoformat(timespec="seconds"),
        )
        details = {"reason": one.reason, "erase_after": tombstone.erase_after.isoformat()}
        self._note(ref.backup_id, "expire", actor, details)
        self._marked(ref, now)

    def _erase(self, one: Decision, done: Applied, actor: str) -> bool:
        log.info("Deleting %s: %s", one.record.backup_id, one.reason)
        gone, _ = self._destroy(one.record.ref, one.record.tombstones, "delete", actor)
        if not gone:
            return False
        done.erased.append(one.record.backup_id)
        done.size += one.record.size
        return True

    def _destroy(
        self, ref: BackupRef, tombstones: Mapping[str, Tombstone], action: str, actor: str
    ) -> tuple[bool, Erasure | None]:
        """Delete a marked backup everywhere; return whether it is gone, not held, and certified.

        A backup that another store still keeps can be read, so there is nothing to certify.
        """
        mark = max(tombstones.values(), key=lambda found: found.expired_at)
        since = min(
            (m.erasing_since for m in tombstones.values() if m.erasing_since is not None),
            default=self._clock(),
        )
        details = {
            "reason": mark.reason,
            "expired_at": mark.expired_at.isoformat(),
            "stores": sorted(self._stores),
        }
        certificates: list[Erasure] = []
        elsewhere = self._remains(ref)

        def begin() -> None:
            if elsewhere:
                return
            certifying.begin(
                self._stores, ref, reason=mark.reason, actor=mark.actor, now=self._clock()
            )

        def end() -> None:
            if elsewhere:
                self._note(ref.backup_id, action, actor, details | {"kept_elsewhere": True})
                return
            certificate, digest = certifying.complete(self._stores, ref, now=self._clock())
            certificates.append(certificate)
            destroyed = {
                "keys": len(certificate.keys),
                "versions": sum(found.versions for found in certificate.keys),
                "certificate": key_of(ref),
                "sha256": digest,
            }
            self._note(ref.backup_id, action, actor, details | destroyed)
            self._ledger.note(
                f"the end of {ref.backup_id}",
                lambda catalog: catalog.forget_backup(ref.backup_id),
            )

        self._audit.require(action, ref.backup_id, actor=actor, details=details)
        gone = erasing.erase(
            self._stores,
            ref,
            begun=mark.model_copy(update={"erasing_since": since}),
            now=self._clock(),
            workers=self._workers,
            before_first=begin,
            before_last=end,
        )
        return gone, certificates[0] if certificates else None

    def _marked(self, ref: BackupRef, at: datetime | None) -> None:
        if at is not None and self._remains(ref):
            return
        self._ledger.note(
            f"the expiry of {ref.backup_id}",
            lambda catalog: catalog.record_expiry(ref.backup_id, at),
        )

    def _note(self, subject: str, action: str, actor: str, details: Mapping[str, object]) -> None:
        self._audit.note(action, subject, actor=actor, details=details)


def _require_certain(plan: Plan, *, transient: bool) -> None:
    """Raise unless everything that the plan depends on is known."""
    if not plan.unknown:
        return
    shown = "; ".join(plan.unknown[:5])
    more = len(plan.unknown) - 5
    problem = (
        f"Nothing of {plan.component}/{plan.source} was deleted, because not everything is known: "
        f"{shown}" + (f"; and {more} more" if more > 0 else "")
    )
    if transient:
        raise StoreUnavailableError(
            problem, remedy="It is tried again; mend the store if it goes on.", source=plan.source
        )
    raise PermanentError(
        problem,
        remedy="Mend what it names: verify a damaged backup again or replicate it anew, set a "
        "wrong clock right. Until then everything stays.",
        source=plan.source,
    )
