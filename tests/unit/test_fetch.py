"""What a fetch reports: enough to act on, never more than XCom should carry."""

from __future__ import annotations

from pathlib import Path

from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.model.tickets import FetchReport, RestorePlan
from neuroca_backup.services.fetch import Fetching
from neuroca_backup.spool import Spool

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
)


def fetching(tmp_path: Path, *, fallbacks: int) -> Fetching:
    made = Fetching(Spool(tmp_path), PLAN, Keyring([]), {})
    made.fallbacks += [f"member {n} was not taken from primary" for n in range(fallbacks)]
    return made


def test_a_few_fallbacks_are_all_told(tmp_path: Path) -> None:
    assert len(fetching(tmp_path, fallbacks=3).told()) == 3


def test_thousands_of_fallbacks_are_counted(tmp_path: Path) -> None:
    told = fetching(tmp_path, fallbacks=5000).told()
    assert len(told) == 21
    assert told[-1] == "... and 4980 more, see the log"


def test_plans_and_reports_survive_the_way_through_xcom() -> None:
    report = FetchReport(
        place="fetch-1", bytes_by_store={"primary": 5}, fallbacks=("x",), size=5, seconds=0.5
    )
    assert RestorePlan.from_json(PLAN.to_json()) == PLAN
    assert FetchReport.from_json(report.to_json()) == report
