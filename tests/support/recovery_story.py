"""A recovery from its declaration to its end, for the report: with all that can happen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from neuroca_backup.model.identity import Component
from neuroca_backup.model.recovery import Declared, Event, EventKind, Objective, RecoveryRef
from neuroca_backup.services.recovery.journal import Reading

AT = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
K = EventKind
PLAN = "5f2c9a3e" * 8
WAVES = (
    ("configuration",),
    ("postgres", "mongodb", "redis", "vector"),
    ("working", "episodic", "semantic"),
    ("models__llama_3_8b_instruct_quantised_q4", "models__embedder"),
    ("logs",),
)
RPO = {one: 86400.0 for wave in WAVES for one in wave}


class Story:
    """Events by minutes since the disaster."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, minute: float, kind: EventKind, subject: str = "", **details: Any) -> None:
        actor = details.pop("actor", "airflow:disaster_recovery/manual__1")
        at = AT + timedelta(minutes=minute)
        event = Event(at=at, kind=kind, subject=subject, actor=actor, details=details)
        self.events.append(event)

    def restore(
        self, source: str, begin: float, end: float, *, forecast: float = 0, **details: Any
    ) -> None:
        """Tell of a restore that took from minute to minute, and of its check a minute later."""
        backup = f"20261122T020000Z-1f0c9a3e-{source}"
        self.add(
            begin,
            K.STARTED,
            source,
            restore_id="r1",
            backup_id=backup,
            forecast_seconds=60 * (forecast or end - begin),
        )
        point = AT - timedelta(minutes=details.pop("lost", 300))
        facts = {
            "backup_id": backup,
            "stores": "secondary",
            "consistent_at": point.isoformat(),
            "bytes": 12_300_000_000,
            "seconds": 60.0 * (end - begin),
            **details,
        }
        self.add(end, K.RESTORED, source, **facts)
        self.add(end + 2, K.CHECKED, source, passed=True)

    def reading(self, declared: Declared, **changes: Any) -> Reading:
        events = tuple(sorted(self.events, key=lambda one: one.at))
        kept: dict[str, Any] = {"unreachable": {}, "findings": (), **changes}
        return Reading(declared=declared, events=events, **kept)


def head(waves: Any = WAVES, *, drill: bool = False, **changes: Any) -> Declared:
    """Return what was declared of all sources of `waves`."""
    everything = tuple(one for wave in waves for one in wave)
    fields: dict[str, Any] = {
        "recovery_id": RecoveryRef.new(at=AT, drill=drill, run="story").recovery_id,
        "what": "Fire in us-west-2 <b>| all servers</b> gone",
        "declared_at": AT,
        "recorded_at": AT + timedelta(minutes=12),
        "actor": "airflow:disaster_recovery/manual__1",
        "drill": drill,
        "components": tuple(Component),
        "target": "the connections of the new environment",
        "objectives": {
            "database": Objective(limit_seconds=4 * 3600, sources=waves[1]),
            "memory_tiers": Objective(limit_seconds=6 * 3600, sources=waves[2]),
            "full_system": Objective(
                limit_seconds=12 * 3600, sources=everything, checks=("tls", "default passwords")
            ),
        },
        "waves": waves,
        **changes,
    }
    return Declared(**fields)


def bad_day() -> Reading:
    """Return a recovery with a breach, failures, fallbacks, and a tier that a database covers."""
    told = Story()
    told.add(12, K.DECLARED)
    told.add(15, K.ASSESSED, plan=PLAN, skew_seconds=5.0)
    told.add(16, K.NOTIFIED, "e-mail", message="the plan")
    told.add(31, K.APPROVED, actor="ann@nca.example", plan=PLAN, comment="go | now")
    told.add(38, K.APPROVED, actor="bob@nca.example", plan=PLAN)
    told.add(44, K.PROVISIONED, how="terraform")
    for source in WAVES[1]:
        told.add(45, K.ANSWERED, source, seconds=3.5)
    told.restore("configuration", 46, 47)
    told.restore("redis", 50, 71, forecast=20)
    told.restore("postgres", 50, 138, forecast=40)
    told.restore("vector", 50, 262, forecast=210, lost=1600)
    told.add(50, K.STARTED, "mongodb", restore_id="r1", backup_id="b", forecast_seconds=3600)
    told.add(90, K.FAILED, "mongodb", problem="The store cut the transfer", remedy="Try again.")
    told.restore(
        "mongodb",
        101,
        171,
        lost=1740,
        fallbacks="primary: does not answer",
        passed_over="20261123T010000Z-1f0c9a3e-mongodb: damaged in every store",
    )
    warn = {"limit_seconds": 14400.0, "notified": 2}
    for minute, percent in ((120.2, 50), (180.1, 75), (216.4, 90)):
        told.add(minute, K.WARNED, "database", percent=percent, open="vector", **warn)
    told.add(240.3, K.BREACHED, "database", open="vector", **warn)
    told.add(180.2, K.WARNED, "memory_tiers", percent=50, notified=2)
    told.add(265, K.SKIPPED, "working", reason="redis has brought it back", covered_by="redis")
    told.restore("episodic", 265, 290)
    told.restore("semantic", 265, 301)
    told.restore("models__llama_3_8b_instruct_quantised_q4", 302, 344)
    told.restore("models__embedder", 302, 302)
    told.restore("logs", 350, 362)
    told.add(364, K.CHECKED, "tls", passed=False, problem="redis answers without TLS")
    told.add(371, K.CHECKED, "tls", passed=True)
    told.add(372, K.CHECKED, "default passwords", passed=True)
    told.add(380, K.CONFIRMED, actor="ann@nca.example")
    told.add(381, K.REDIRECTED, comment="DNS")
    told.add(430, K.BACKED_UP, "postgres", backup_id="20261123T090000Z-0badcafe-postgres")
    told.add(440, K.ENDED, outcome="recovered")
    return told.reading(head(), unreachable={"primary": "AccessDenied: the region is gone"})


def short_drill() -> Reading:
    """Return a drill of three minutes in which all went well."""
    told = Story()
    told.add(0, K.DECLARED)
    told.add(0.3, K.APPROVED, actor="ann@nca.example", plan=PLAN)
    for at, wave in enumerate(WAVES):
        for source in wave:
            told.restore(source, 0.5 + at * 0.5, 0.8 + at * 0.5)
    told.add(5, K.CHECKED, "tls", passed=True)
    told.add(5, K.CHECKED, "default passwords", passed=True)
    told.add(5.2, K.ENDED, outcome="recovered")
    return told.reading(head(drill=True, target="a sandbox", recorded_at=AT))


def crowd() -> Reading:
    """Return thirty sources with long and hostile names, restored in no time or not at all."""
    evil = "</svg><script>alert('x')</script>"
    names = tuple(f"source_{n:02}__{'very_long_name_' * (n % 5)}end_{n}" for n in range(28))
    waves = (("configuration",), (*names[:10], evil), names[10:20], names[20:])
    told = Story()
    told.add(1, K.DECLARED)
    for minute in range(2, 9):
        told.add(minute / 4, K.NOTIFIED, message="m" * 80)
    for n, name in enumerate(names[:24]):
        told.restore(name, 5 + n * 3, 5 + n * (3 if n % 2 else 5))
    told.add(20, K.STARTED, evil, restore_id=evil)
    told.add(33, K.FAILED, evil, problem=evil * 4, remedy=evil)
    told.add(50, K.STARTED, names[24])
    declared = head(waves, what=evil)
    return told.reading(declared, findings=(f"primary:{evil} is damaged",))
