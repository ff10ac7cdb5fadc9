"""What a restore in place would overwrite is backed up first, unless nobody needs that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import (
    EmptySourceError,
    PermanentError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component
from neuroca_backup.runtime import Runtime
from neuroca_backup.services.inventory import Inventory
from neuroca_backup.services.safety import Safety
from support.wiring import (
    BOTH,
    add_rows,
    back_up,
    local_places,
    plan_of,
    scratch_database,
    spool_names,
    wire,
)

AT = datetime(2026, 11, 23, 2, tzinfo=UTC)


class Forgetful:
    """An engine that keeps nothing of what it replaces."""

    keeps = False


@dataclass
class Bench:
    """A source of 200 rows that has a backup, then got 100 more."""

    runtime: Runtime
    source: Endpoint
    first: BackupRef

    @property
    def safety(self) -> Safety:
        return replace(self.runtime.safety, engine=lambda _: Forgetful())  # type: ignore[arg-type, return-value] # only `keeps` is asked for

    @property
    def in_place(self) -> RestoreTarget:
        return RestoreTarget(self.source, replace=True)

    def backups(self) -> list[str]:
        found = Inventory(self.runtime.stores).newest_first(Component.DATABASE, "postgres")
        return [one.ref.backup_id for one in found]


@pytest.fixture(params=BOTH)
def bench(request: Any, tmp_path: Path, postgres: Endpoint) -> Iterator[Bench]:
    with scratch_database(postgres, f"safety_{request.param}") as source:
        options = {"databases": [source.database]}
        runtime = wire(
            local_places(tmp_path),
            postgres=source,
            spool=tmp_path / "spool",
            mode=request.param,
            options=options,
        )
        first = back_up(runtime)
        add_rows(source, 100)
        yield Bench(runtime, source, first)


def rows_of(bench: Bench, backup_id: str) -> int:
    ref = BackupRef(backup_id=backup_id, component=Component.DATABASE)
    manifest = Inventory(bench.runtime.stores).look(ref).manifest
    assert manifest is not None
    (database,) = manifest.dump.facts["databases"].values()
    rows: int = database["tables"]["memory.items"]["rows"]
    return rows


def test_what_would_be_overwritten_is_saved_verified_named_and_never_the_newest(
    bench: Bench,
) -> None:
    plan = plan_of(bench.runtime)

    (note,) = bench.safety.save(plan, bench.in_place, at=AT, wanted=True)

    saved = note.rpartition(" ")[2]
    assert rows_of(bench, saved) == 300
    found = Inventory(bench.runtime.stores).look(BackupRef(saved, Component.DATABASE))
    assert found.verified
    assert found.manifest is not None
    assert found.manifest.before_restore == plan.restore_id
    assert spool_names(bench.runtime) == []
    # Restoring again, with no backup named, must not bring back what was to be got rid of.
    assert plan_of(bench.runtime).backup_id == bench.first.backup_id


def test_a_repeat_finds_the_backup_and_makes_no_other(bench: Bench) -> None:
    plan = plan_of(bench.runtime)
    first = bench.safety.save(plan, bench.in_place, at=AT, wanted=True)
    add_rows(bench.source, 1)

    again = bench.safety.save(plan, bench.in_place, at=AT, wanted=True)

    assert again == first
    assert len(bench.backups()) == 2


def test_nothing_is_saved_where_nothing_is_lost_or_nobody_wants_it(bench: Bench) -> None:
    plan = plan_of(bench.runtime)
    elsewhere = RestoreTarget(bench.source)

    assert bench.safety.save(plan, elsewhere, at=AT, wanted=True) == ()
    kept = bench.runtime.safety.save(plan, bench.in_place, at=AT, wanted=True)
    declined = bench.safety.save(plan, bench.in_place, at=AT, wanted=False)

    assert "kept beside" in kept[0]
    assert "declined" in declined[0]
    assert bench.backups() == [bench.first.backup_id]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(UnreachableError, TransientError), (PermanentError, PermanentError)],
)
def test_a_source_that_cannot_be_saved_stops_the_restore_and_says_how_to_go_on(
    bench: Bench, error: type[UnreachableError | PermanentError], kind: type[Exception]
) -> None:
    def fail(*_: object) -> None:
        raise error("The server is gone", remedy="Start it.")

    safety = replace(bench.safety, back_up=fail)

    with pytest.raises(kind, match=r"could not be saved .* The server is gone") as caught:
        safety.save(plan_of(bench.runtime), bench.in_place, at=AT, wanted=True)

    assert "--no-save" in str(caught.value)
    assert "save_first" in str(caught.value)


def test_an_empty_source_needs_no_backup(bench: Bench) -> None:
    def fail(*_: object) -> None:
        raise EmptySourceError("Nothing", remedy="Look.")

    safety = replace(bench.safety, back_up=fail)

    (note,) = safety.save(plan_of(bench.runtime), bench.in_place, at=AT, wanted=True)

    assert note == "postgres is empty: there was nothing to save"
