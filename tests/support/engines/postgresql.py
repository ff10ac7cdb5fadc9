"""PostgreSQL, logical: a scratch database on the source server, restored to the twin."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engines import Adapter
from support.wiring import add_rows, count_rows, databases, scratch_database, session

if TYPE_CHECKING:
    from neuroca_backup.model.endpoint import Endpoint


class Postgresql:
    """PostgreSQL: a scratch database on the one server, restored to the twin."""

    def __init__(self, source: Endpoint, target: Endpoint) -> None:
        self.source, self.target = source, target
        self.options = {"databases": [source.database], "jobs": 2}

    def add(self, count: int) -> None:
        add_rows(self.source, count)

    def count(self, endpoint: Endpoint) -> int:
        return count_rows(endpoint, self.source.database)

    def harm(self, endpoint: Endpoint) -> None:
        with session(endpoint, self.source.database) as opened:
            opened.execute("UPDATE memory.items SET content = 'another' WHERE id = 7")

    def fingerprint(self) -> object:
        with session(self.target) as opened:
            roles = opened.execute("SELECT rolname FROM pg_roles ORDER BY 1").fetchall()
        return sorted(databases(self.target)), roles

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        yield changed(files / "globals.sql", lambda data: data[: len(data) // 2])
        for path in sorted((files / "databases").rglob("*")):
            if path.is_dir():
                continue
            yield path.relative_to(files).as_posix(), path.unlink
            if re.fullmatch(r"\d+\.dat", path.name):
                yield changed(path, lambda data: data.removesuffix(b"\\.\n\n\n"))
                if path.read_bytes().count(b"\n") > 4:
                    yield changed(path, lambda data: data[data.index(b"\n") + 1 :])
            elif not path.name.startswith("blob"):
                yield changed(path, lambda data: data[: len(data) // 2])
                yield changed(path, lambda data: data[:-20])
                yield changed(path, lambda _: b"")


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("postgres")
    twin = request.getfixturevalue("postgres_twin")
    name = f"engine_{abs(hash(request.node.name)):x}"
    with scratch_database(source, name, also_on=[twin]) as endpoint:
        with session(endpoint) as opened:
            opened.execute("SELECT lo_from_bytea(0, 'large')")
            opened.execute("CREATE TABLE memory.second AS SELECT generate_series(1, 9) AS n")
        yield Postgresql(endpoint, twin)
