"""The tertiary store keeps its copies for longer, each with all that it needs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from neuroca_backup.model.identity import Component
from neuroca_backup.services.retention.planning import Fate, Rules
from neuroca_backup.services.retention.tiers import TieredRetention
from support.histories import BOTH, SOURCE, History
from support.memory_store import MemoryStore

if TYPE_CHECKING:
    from neuroca_backup.model.identity import BackupRef

ALL = (*BOTH, "tertiary")


class Tiers(History):
    """A history with a third store, which keeps for 365 days what the others keep for 30."""

    def __init__(self) -> None:
        super().__init__(kept=30)
        self.stores["tertiary"] = MemoryStore("tertiary", lambda: self.now)
        self.retention = TieredRetention(
            stores=self.stores,
            rules=self.rules,
            tertiary=Rules(
                kept=dict.fromkeys(Component, timedelta(days=365)), presence_counts=True
            ),
            catalog=self.catalog,
            workers=1,
            clock=lambda: self.now,
        )

    def run(self) -> None:
        """Run twice, with the grace period between: what is due is gone then."""
        for _ in range(2):
            self.retention.apply(self.component, SOURCE, confirmed=True, actor="test")
            self.retention.sweep(actor="test")
            self.now += timedelta(days=8)

    def there(self, store: str, ref: BackupRef) -> bool:
        return ref.manifest_key in self.stores[store].objects


def test_a_cold_copy_outlives_the_others_and_goes_when_it_is_due() -> None:
    history = Tiers()
    old = history.put(0, stores=ALL)
    for day in range(1, 60):
        history.put(day)
    history.at(60).run()
    assert [history.there(store, old) for store in ALL] == [False, False, True]
    assert old.member_key("a1b2c3d4", "own") in history.stores["tertiary"].objects
    assert any(one.backup_id == old.backup_id for one in history.catalog.backups())

    for day in (400, 401, 402, 403):
        history.put(day, stores=ALL)
    history.at(404).run()
    assert not history.there("tertiary", old)
    assert not any(one.backup_id == old.backup_id for one in history.catalog.backups())
    assert not [key for key in history.stores["tertiary"].objects if old.prefix in key]


def test_the_newest_cold_copies_stay_although_nobody_can_read_them_back() -> None:
    history = Tiers()
    refs = [history.put(day, stores=ALL, sound=()) for day in (0, 30, 60, 90, 120)]
    history.at(800).run()
    assert [history.there("tertiary", ref) for ref in refs] == [False, False, True, True, True]


def test_what_a_cold_copy_needs_stays_with_it() -> None:
    history = Tiers()
    full = history.put(0, stores=ALL)
    link = history.put(5, stores=ALL, parent=0)
    for day in (364, 365, 366):
        history.put(day, stores=ALL)
    # The full one is older than a year on this day, the one that continues it is not.
    plan = history.at(368).plan()
    kept = {one.record.ref: one for one in plan.decisions if one.reason.startswith("tertiary")}
    assert (kept[link].fate, kept[full].fate) == (Fate.KEEP, Fate.KEEP)
    assert kept[full].reason == f"tertiary: needed by {link.backup_id}"


@pytest.mark.parametrize("kind", ["hold", "damage"])
def test_a_hold_keeps_every_copy_and_damage_keeps_none_alive(kind: str) -> None:
    history = Tiers()
    old = history.put(0, stores=ALL, sound=BOTH, damaged=("tertiary",) if kind == "damage" else ())
    for day in (700, 701, 702, 703):
        history.put(day, stores=ALL)
    if kind == "hold":
        history.retention.hold(old, reason="trial", until=None, actor="test")
    history.at(704).run()
    assert {history.there(store, old) for store in ALL} == {kind == "hold"}


def test_the_plan_says_which_copies_it_is_about() -> None:
    history = Tiers()
    old = history.put(0, stores=ALL)
    for day in range(50, 60):
        history.put(day)
    plan = history.at(60).plan()
    found = [(one.fate, one.reason) for one in plan.decisions if one.record.ref == old]
    assert [fate for fate, _ in found] == [Fate.EXPIRE, Fate.KEEP]
    assert found[1][1].startswith("tertiary: ")
