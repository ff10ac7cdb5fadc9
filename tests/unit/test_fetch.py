"""What a fetch reports: enough to act on, never more than XCom should carry."""

from __future__ import annotations

from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.services.fetch import told

PLAN = RestorePlan(
    restore_id="restore-1",
    backup_id="20261123T020000Z-1f0c9a3e-postgres",
    component="database",
    source="postgres",
    engine="postgresql",
    stores=("primary", "secondary"),
    plain_size=1,
    members=1,
    taken_at="2026-11-23T02:00:00+00:00",
    verified=True,
    chain=("20261123T020000Z-1f0c9a3e-postgres",),
    only=("neuroca",),
    allow_older=True,
    passed_over=("a later one is damaged",),
)


def test_a_few_fallbacks_are_all_told() -> None:
    assert told(["one", "two", "three"]) == ("one", "two", "three")


def test_thousands_of_fallbacks_are_counted() -> None:
    short = told([f"member {n} was not taken from primary" for n in range(5000)])
    assert len(short) == 21
    assert short[-1] == "... and 4980 more, see the log"


def test_plans_and_reports_survive_the_way_through_xcom() -> None:
    report = FetchReport(
        plan=PLAN,
        place="fetch-1",
        bytes_by_store={"primary": 5},
        fallbacks=("x",),
        size=5,
        seconds=0.5,
    )
    assert RestorePlan.from_json(PLAN.to_json()) == PLAN
    assert FetchReport.from_json(report.to_json()) == report
