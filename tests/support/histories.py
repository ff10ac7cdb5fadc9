"""Backups as retention sees them, written into two stores without a source or a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.model import document
from neuroca_backup.model.backup_set import BackupSet, SetMember
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Digest, Dump, Manifest, Member, Origin, SealedManifest
from neuroca_backup.model.status import Finding, Level, Verification
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.services.retention.planning import Fate, Plan, Rules
from support.memory_store import MemoryStore

BEGIN = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)
BOTH = ("primary", "secondary")
SOURCE = "postgres"
ATTEMPT = "a1b2c3d4"


class History:
    """Two stores, a clock that the test sets, and backups dated by their day."""

    def __init__(
        self, *, kept: int = 30, component: Component = Component.DATABASE, **rules: Any
    ) -> None:
        self.now = BEGIN
        self.component = component
        self.stores = {name: MemoryStore(name, lambda: self.now) for name in BOTH}
        self.catalog = MemoryCatalog()
        self.rules = Rules(kept=dict.fromkeys(Component, timedelta(days=kept)), **rules)
        # Apart, so that what tests count, kill and compare is the deletion.
        self.trails = {name: MemoryStore(name, lambda: self.now) for name in BOTH}
        self.retention = Retention(
            stores=self.stores,
            rules=self.rules,
            catalog=self.catalog,
            workers=1,
            clock=lambda: self.now,
            audit=Audit(stores=self.trails, catalog=self.catalog, clock=lambda: self.now),
        )

    def at(self, day: float) -> History:
        """Set the clock to a day."""
        self.now = BEGIN + day * DAY
        return self

    def ref(self, day: float, source: str = SOURCE) -> BackupRef:
        return BackupRef.of(set_id(at=BEGIN + day * DAY, run=str(day)), self.component, source)

    def put(
        self,
        day: float,
        *,
        sound: Iterable[str] = BOTH,
        damaged: Iterable[str] = (),
        stores: Sequence[str] = BOTH,
        parent: float | None = None,
        refers: Iterable[float] = (),
        source: str = SOURCE,
        zone: Any = UTC,
        facts: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> BackupRef:
        """Store a backup that began on `day`, and what a check found in each store."""
        ref, began = self.ref(day, source), (BEGIN + day * DAY).astimezone(zone)
        stored = Digest(size=5, sha256="0" * 64)
        members = [Member(name="own", plain=stored, stored=stored)]
        for other in refers:
            origin = Origin(
                backup_id=self.ref(other, source).backup_id,
                attempt=ATTEMPT,
                name="own",
                stages=(),
            )
            members.append(Member(name=f"from-{other}", plain=stored, stored=stored, origin=origin))
        manifest = Manifest(
            backup_id=ref.backup_id,
            set_id=ref.set_id,
            component=ref.component,
            source=ref.source,
            engine="postgresql",
            attempt=ATTEMPT,
            kind="full" if parent is None else "incremental",
            parent=None if parent is None else self.ref(parent, source).backup_id,
            stages=(),
            dump=Dump(
                server_version="1", consistency={"time": began.isoformat()}, facts=dict(facts or {})
            ),
            members=tuple(members),
            started_at=began,
            finished_at=began,
            product="test",
            **more,
        )
        sealed = SealedManifest.seal(manifest, lambda _: "").encode()
        for name in stores:
            store = self.stores[name]
            for key, data in (
                (ref.keys_key(ATTEMPT), b"keys"),
                (ref.member_key(ATTEMPT, "own"), b"bytes"),
                (ref.manifest_key, sealed),
            ):
                store.objects[key] = (data, began.astimezone(UTC))
            self.catalog.record_backup(manifest, store=name)
        for name in {*sound, *damaged} & set(stores):
            self.check(ref, name, sound=name not in set(damaged))
        return ref

    def check(self, ref: BackupRef, store: str, *, sound: bool) -> None:
        """Write what a check of one copy found, in its store and in the catalog."""
        found = Verification(
            backup_id=ref.backup_id,
            store=store,
            level=Level.PARSED if sound else Level.PRESENT,
            findings=() if sound else (Finding(key="k", problem="p"),),
            checked_at=self.now,
            seconds=1,
            bytes_read=1,
        )
        data = document.encode(found.model_dump(mode="json"))
        self.stores[store].objects[ref.verification_key] = (data, ref.time)
        self.catalog.record_verification(found)

    def put_set(
        self, *refs: BackupRef, missing: Sequence[str] = (), whole: Sequence[str] = ()
    ) -> BackupSet:
        """Record the set of `refs` in every store."""
        members = {
            ref.source: SetMember(
                backup_id=ref.backup_id, kind="full", consistent_at=ref.time, verified=True
            )
            for ref in refs
        }
        of = refs[0].set_id if refs else self.ref(7.5).set_id
        made = BackupSet.of(
            of,
            self.component,
            members,
            missing=tuple(missing),
            whole=tuple(whole),
            recorded_at=BEGIN,
        )
        for store in self.stores.values():
            store.objects[made.key] = (made.encode(), BEGIN)
        return made

    def plan(self, source: str = SOURCE) -> Plan:
        return self.retention.plan(self.component, source)

    def fates(self, source: str = SOURCE) -> dict[str, Fate]:
        """Return what becomes of every backup, by its id."""
        return {one.record.backup_id: one.fate for one in self.plan(source).decisions}

    def reason(self, ref: BackupRef) -> str:
        """Return why, in the plan's words."""
        return next(
            one.reason
            for one in self.plan(ref.source).decisions
            if one.record.backup_id == ref.backup_id
        )

    def apply(self, *, confirmed: bool = True, source: str = SOURCE) -> Any:
        return self.retention.apply(self.component, source, confirmed=confirmed, actor="test")

    def pass_by(self, *days: float) -> None:
        """Run retention on each of `days`."""
        for day in days:
            self.at(day).apply()

    def left(self) -> set[str]:
        """Return the ids of the backups that any store has a manifest of."""
        return {
            key.split("/")[2]
            for store in self.stores.values()
            for key in store.objects
            if key.endswith("/manifest.json")
        }

    def objects_of(self, ref: BackupRef) -> list[str]:
        """Return every object of a backup in any store."""
        return [
            f"{store.name}: {key}"
            for store in self.stores.values()
            for key in store.objects
            if key.startswith(f"{ref.prefix}/")
        ]

    def manifest(self, ref: BackupRef) -> Manifest:
        return read_manifest(self.stores["primary"], ref).manifest

    def snapshot(self) -> dict[str, dict[str, bytes]]:
        """Return all bytes of all stores."""
        return {
            name: {key: data for key, (data, _) in store.objects.items()}
            for name, store in self.stores.items()
        }


def ids(*refs: BackupRef) -> set[str]:
    return {ref.backup_id for ref in refs}
