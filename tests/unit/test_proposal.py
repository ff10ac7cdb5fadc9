"""What a person approves: its words, and a digest of exactly what is then done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from neuroca_backup.model.tickets import RestorePlan
from neuroca_backup.services.forecast import Forecast
from neuroca_backup.services.proposal import Item, Proposal, saved_words

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
PLAN = RestorePlan(
    restore_id="restore-1",
    backup_id=BACKUP,
    component="database",
    source="postgres",
    engine="postgresql",
    stores=("primary", "secondary"),
    plain_size=1_200_000,
    members=3,
    taken_at="2026-11-23T02:00:00+00:00",
    verified=True,
    chain=(BACKUP,),
)
ITEM = Item(source="postgres", plan=PLAN, to="db:5432", saved="replaces it")


def digest(plan: RestorePlan = PLAN, services: tuple[str, ...] = ("api",), **words: Any) -> str:
    return Proposal(items=[replace(ITEM, plan=plan, **words)], services=services).sha256


@pytest.mark.parametrize(
    "changes",
    [
        {"backup_id": BACKUP.replace("02", "03", 1)},
        {"chain": ("another", BACKUP)},
        {"until": "2026-11-23T03:00:00+00:00"},
        {"only": ("neuroca",)},
        {"verified": False},
        {"allow_older": True},
        {"restore_id": "restore-2"},
    ],
)
def test_every_change_of_the_plan_changes_the_digest(changes: dict[str, Any]) -> None:
    assert digest(replace(PLAN, **changes)) != digest()


def test_another_target_other_services_or_no_saving_change_the_digest() -> None:
    others = {digest(to="other:5432"), digest(saved=""), digest(services=("api", "worker"))}
    assert len(others | {digest()}) == 4


def test_what_changes_by_itself_does_not_change_the_digest() -> None:
    same = replace(PLAN, stores=("secondary", "primary"), passed_over=("one is damaged",))
    assert digest(same, forecast=Forecast(seconds=1, measured=True, basis="x")) == digest()
    assert len(digest()) == 64


def test_a_plan_is_told_line_by_line_with_what_could_surprise() -> None:
    plan = replace(PLAN, verified=False, chain=("full", BACKUP), only=("neuroca",))
    forecast = Forecast(seconds=300, measured=False, basis="assumed: nobody knows")
    lines = Proposal(
        items=[
            replace(ITEM, plan=plan, forecast=forecast),
            Item(source="redis", problem="it has no backup"),
        ],
        services=("api",),
    ).lines()
    assert lines == [
        f"postgres: {BACKUP}, NEVER VERIFIED, taken 2026-11-23T02:00:00+00:00",
        f"  chain: full -> {BACKUP}",
        "  1.2 MB in 3 members, engine postgresql",
        "  read from primary, then secondary",
        "  restored to db:5432",
        "  only neuroca",
        "  replaces it",
        "  about 5 min (assumed: nobody knows)",
        "redis: CANNOT be restored: it has no backup",
        "Stopped meanwhile: api",
    ]


def test_what_becomes_of_replaced_data_is_said() -> None:
    assert saved_words(replaces=False, keeps=False, wanted=True) == ""
    assert "kept beside" in saved_words(replaces=True, keeps=True, wanted=False)
    assert "backed up and verified first" in saved_words(replaces=True, keeps=False, wanted=True)
    assert "NOT SAVED" in saved_words(replaces=True, keeps=False, wanted=False)
