"""Retention killed after every single operation on a store: the next run ends as if it had not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.model.status import Level
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.needs import needs_of
from neuroca_backup.services.retention.applying import Retention
from neuroca_backup.services.retention.planning import Rules
from neuroca_backup.services.verify import Verifier
from support.histories import BOTH, History
from support.memory_store import Death, Killed, MemoryStore
from support.reusing import Stand

Contents = dict[str, dict[str, tuple[bytes, datetime]]]


def contents(history: History) -> Contents:
    return {name: dict(store.objects) for name, store in history.stores.items()}


def bytes_of(found: Contents) -> dict[str, dict[str, bytes]]:
    return {
        name: {key: data for key, (data, _) in objects.items()} for name, objects in found.items()
    }


def run(history: History, start: Contents, *, death: Death, work: Callable[[], Any]) -> Contents:
    """Do `work` from the state `start` until it ends or is killed; a dead process does no more."""
    for name, store in history.stores.items():
        store.objects = dict(start[name])
        store.dies_after = death
    with contextlib.suppress(Killed):
        work()
    for store in history.stores.values():
        store.dies_after = lambda: False
    return contents(history)


def everything(history: History) -> None:
    history.apply()
    history.retention.sweep(actor="test")


@pytest.fixture
def mixed() -> History:
    """One source with a chain, references, a hold, damage, leftovers; some long expired."""
    history = History()
    history.put(0)
    history.put(1, parent=0)
    history.put(2, refers=[0])
    history.put(3, sound=(), damaged=BOTH)
    history.put_set(history.put(4))
    held = history.put(5, stores=("primary",), sound=("primary",))
    history.retention.hold(held, reason="r", until=None, actor="ann")
    history.pass_by(34.5)  # 0 to 3 are marked
    for day in (10, 11, 12, 30, 40, 41):
        parent = 11 if day == 12 else None
        history.put(day, parent=parent, refers=[10] if day == 41 else ())
    for name in BOTH:
        leftover = f"{history.ref(20).prefix}/0badcafe/members/own"
        history.stores[name].objects[leftover] = (b"x", history.ref(20).time)
    return history.at(42)


def test_after_every_single_operation_the_next_run_ends_as_if_there_had_been_no_death(
    mixed: History,
) -> None:
    start = contents(mixed)
    whole = Death()
    expected = bytes_of(run(mixed, start, death=whole, work=lambda: everything(mixed)))
    assert expected != bytes_of(start)
    assert whole.count > 150
    wrong = []
    for after in range(whole.count):
        half = run(mixed, start, death=Death(after), work=lambda: everything(mixed))
        again = run(mixed, half, death=Death(), work=lambda: everything(mixed))
        if bytes_of(again) != expected:
            wrong.append(after)
    assert wrong == []


def test_killed_twice_it_still_ends_the_same(mixed: History) -> None:
    start = contents(mixed)
    whole = Death()
    expected = bytes_of(run(mixed, start, death=whole, work=lambda: everything(mixed)))
    for first in range(20, whole.count, 17):
        half = run(mixed, start, death=Death(first), work=lambda: everything(mixed))
        for second in range(10, whole.count, 23):
            more = run(mixed, half, death=Death(second), work=lambda: everything(mixed))
            again = run(mixed, more, death=Death(), work=lambda: everything(mixed))
            assert bytes_of(again) == expected, (first, second)


def test_at_every_death_what_is_not_being_deleted_is_whole_with_all_that_it_needs(
    mixed: History,
) -> None:
    start = contents(mixed)
    whole = Death()
    run(mixed, start, death=whole, work=lambda: everything(mixed))
    for after in range(whole.count):
        run(mixed, start, death=Death(after), work=lambda: everything(mixed))
        inventory = Inventory(mixed.stores)
        looked = [inventory.look(BackupRef(one, Component.DATABASE)) for one in mixed.left()]
        marked = {one.ref.backup_id for one in looked if one.expired}
        for one in looked:
            # It may be on its way out, but as long as it can be taken back it must be restorable.
            if any(mark.erasing_since for mark in one.tombstones.values()):
                continue
            for name, manifest in one.manifests.items():
                if not one.expired:
                    assert not needs_of(manifest) & marked, (after, name, one.ref)
                for member in manifest.members:
                    for needed in (manifest.key_of(member), manifest.keys_of(member)):
                        assert needed in mixed.stores[name].objects, (after, name, needed)
                if manifest.parent is not None:
                    assert manifest.parent in mixed.left(), (after, manifest.backup_id)


def copied(stand: Stand, clock: Callable[[], datetime]) -> dict[str, MemoryStore]:
    """Return the stores of `stand` with all that they hold, in memory."""
    stores = {name: MemoryStore(name, clock) for name in BOTH}
    for name, store in stores.items():
        for found in stand.stores[name].list():
            store.objects[found.key] = (stand.stores[name].get(found.key), found.modified)
    return stores


def test_real_backups_that_survive_a_death_verify_clean(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.write(large=b"x" * 50_000, note=b"0")
    refs = []
    for number in range(6):
        stand.write(note=b"%d" % number)
        refs.append(stand.back_up(age=timedelta(hours=10 - number)))
    later = [datetime.now(UTC) + timedelta(days=200)]
    stores = copied(stand, lambda: later[0])
    retention = Retention(
        stores=stores,
        rules=Rules(kept=dict.fromkeys(Component, timedelta(days=180))),
        catalog=MemoryCatalog(),
        workers=1,
        clock=lambda: later[0],
    )

    def apply() -> None:
        retention.apply(Component.MODEL_WEIGHTS, "shelf", confirmed=True, actor="test")

    apply()
    later[0] += timedelta(days=8)
    marked = {name: dict(store.objects) for name, store in stores.items()}
    verifier = Verifier(
        engine=lambda _: stand.engine,
        stores=stores,
        keyring=stand.keyring,
        catalog=MemoryCatalog(),
        workers=1,
    )

    def check(after: int) -> None:
        # The first holds what all later ones refer to; the newest three stay anyway.
        for ref in (refs[0], *refs[3:]):
            for name in BOTH:
                assert verifier.check(ref, name, level=Level.PARSED).sound, (after, ref, name)

    for after in range(10, 1000, 9):
        death = Death(after)
        for name, store in stores.items():
            store.objects = dict(marked[name])
            store.dies_after = death
        with contextlib.suppress(Killed):
            apply()
        for store in stores.values():
            store.dies_after = lambda: False
        check(after)
        if death.count <= after:
            break
    assert death.count <= after, "the last one came to its end"
    gone = [key for store in stores.values() for key in store.objects if refs[1].prefix in key]
    assert gone == []
