"""Runtimes over two directories: as fast as a disk, and as easy to damage as files are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from neuroca_backup import postgres_tools as tools
from support.wiring import Places, local_places, scratch_database, wire

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint
    from neuroca_backup.runtime import Runtime


@dataclass(frozen=True)
class Bench:
    """One source database, a twin to restore to, and two directories to keep backups in."""

    source: Endpoint
    twin: Endpoint
    root: Path
    places: Places

    @property
    def database(self) -> str:
        return self.source.database

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    def runtime(self, mode: str = "staged", *, spool: Path | None = None) -> Runtime:
        return wire(
            self.places,
            postgres=self.source,
            spool=spool or self.spool,
            mode=mode,
            options={"databases": [self.database], "jobs": 1},
        )


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, postgres: Endpoint, postgres_twin: Endpoint, tmp_path: Path
) -> Iterator[Bench]:
    name = f"fault_{abs(hash(request.node.name)):x}"
    with scratch_database(postgres, name, also_on=[postgres_twin]) as source:
        yield Bench(source=source, twin=postgres_twin, root=tmp_path, places=local_places(tmp_path))


@pytest.fixture
def tools_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose tools go before PostgreSQL's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("NEUROCA_POSTGRES_BIN", str(folder))
    tools._folders.cache_clear()
    tools.version.cache_clear()
    yield folder
    monkeypatch.undo()
    tools._folders.cache_clear()
    tools.version.cache_clear()
