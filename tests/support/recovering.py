"""A recovery in two stores in memory or in directories, with a clock that the test sets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from neuroca_backup.model.identity import Component
from neuroca_backup.model.recovery import Declared, Event, EventKind, Objective, RecoveryRef
from neuroca_backup.services.recovery.journal import Journal
from support.memory_store import MemoryStore

AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
BOTH = ("primary", "secondary")
HOUR = 60.0


class Recovering:
    """A drill of two databases and a memory tier, declared at `at`; times are minutes since then.

    The objective `database` has 4 hours, `memory_tiers` 6.
    """

    def __init__(
        self, stores: Mapping[str, Any] | None = None, *, at: datetime = AT, run: str = "x"
    ) -> None:
        self.at = self.now = at
        self.ref = RecoveryRef.new(at=at, drill=True, run=run)
        self.stores: Mapping[str, Any] = stores or {
            name: MemoryStore(name, lambda: self.now) for name in BOTH
        }
        self.declared = Declared(
            recovery_id=self.ref.recovery_id,
            what="the region burnt down",
            declared_at=at,
            recorded_at=at + timedelta(minutes=5),
            actor="sre@host",
            drill=True,
            components=(Component.DATABASE, Component.MEMORY_TIERS),
            target="a sandbox",
            objectives={
                "database": Objective(limit_seconds=4 * 3600, sources=("postgres", "redis")),
                "memory_tiers": Objective(limit_seconds=6 * 3600, sources=("working",)),
            },
            waves=(("postgres", "redis"), ("working",)),
        )
        self.journal().declare(self.declared)

    def journal(self) -> Journal:
        """Return the journal as another process would open it."""
        return Journal(self.stores, self.ref.recovery_id, clock=lambda: self.now)

    def minute(self, minute: float) -> Recovering:
        """Set the clock."""
        self.now = self.at + timedelta(minutes=minute)
        return self

    def tell(self, kind: EventKind, subject: str = "", **details: Any) -> Event:
        """Append an event at the time that the clock shows."""
        return self.journal().append(
            kind, subject, once=f"{kind}:{subject}:{self.now}", actor="airflow", details=details
        )

    def back(self, source: str) -> None:
        """Tell that a source is restored and checked."""
        self.tell(EventKind.RESTORED, source)
        self.tell(EventKind.CHECKED, source, passed=True)

    def told(self, *kinds: EventKind) -> list[tuple[str, str]]:
        """Return kind and subject of the events of these kinds, of all without any."""
        events = self.journal().read().events
        return [(one.kind.value, one.subject) for one in events if not kinds or one.kind in kinds]
