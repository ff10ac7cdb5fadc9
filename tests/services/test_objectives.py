"""The objectives of a real installation: a real source, a real catalog, two stores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from neuroca_backup.services.objectives.findings import Kind, Level
from support.wiring import (
    back_up,
    drop_databases,
    local_places,
    scratch_database,
    session,
    wire,
)

if TYPE_CHECKING:
    from pathlib import Path

    from neuroca_backup.model.endpoint import Endpoint


def test_what_is_backed_up_is_known_and_a_source_that_lost_its_rows_is_not_passed(
    postgres: Endpoint, tmp_path: Path
) -> None:
    index = replace(postgres, database="objectives_catalog")
    try:
        with scratch_database(postgres, "objectives_source", rows=500) as source:
            runtime = wire(
                local_places(tmp_path),
                postgres=source,
                spool=tmp_path / "spool",
                options={"databases": [source.database]},
                catalog=index,
            )
            back_up(runtime)
            good = runtime.objectives.report()
            with session(source) as opened:
                opened.execute("DELETE FROM memory.items WHERE id % 10 > 0")
            second = back_up(runtime)
            bad = runtime.objectives.report()
    finally:
        drop_databases(postgres, like="objectives_catalog")

    (facts,) = good.facts.sources
    assert facts.proof is not None
    assert facts.proof.stores == {"primary", "secondary"}
    assert facts.fulls[0].content == {"rows": 500}
    assert not facts.uncatalogued
    assert not facts.vanished
    wrong = {one.kind for one in good.findings if one.level is Level.BREACH}
    assert wrong == {Kind.RESTORE_TEST}, "nobody has tried"
    (content,) = (one for one in bad.findings if one.kind is Kind.CONTENT)
    assert content.level is Level.BREACH
    assert content.backup_id == second.backup_id
    assert "50 rows where the middle one of 1 before it has 500 rows" in content.problem
