"""The contract of every engine, run on every engine there is, against its real server.

An engine takes part through an `Adapter`, which knows how to fill and to count its server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import pytest

from neuroca_backup import engines, registry
from neuroca_backup.engines import RestoreTarget
from neuroca_backup.errors import (
    ConfigurationError,
    DamagedError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder
from support.wiring import add_rows, count_rows, databases, scratch_database, session

if TYPE_CHECKING:
    from neuroca_backup.engines import Engine
    from neuroca_backup.model.endpoint import Endpoint


class Adapter(Protocol):
    """What the suite needs of one engine's server; it holds 200 things to count at first."""

    source: Endpoint
    target: Endpoint
    options: Mapping[str, Any]

    def add(self, count: int) -> None:
        """Add things to the source."""

    def count(self, endpoint: Endpoint) -> int:
        """Count the things in the source or in the restored target."""

    def harm(self, endpoint: Endpoint) -> None:
        """Change one thing without changing how many there are."""

    def fingerprint(self) -> object:
        """Return what shows whether the target was touched."""

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield ways to damage a dump that re-sealing would hide, each with the member it hits."""


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
def _postgresql(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("postgres")
    twin = request.getfixturevalue("postgres_twin")
    name = f"engine_{abs(hash(request.node.name)):x}"
    with scratch_database(source, name, also_on=[twin]) as endpoint:
        with session(endpoint) as opened:
            opened.execute("SELECT lo_from_bytea(0, 'large')")
            opened.execute("CREATE TABLE memory.second AS SELECT generate_series(1, 9) AS n")
        yield Postgresql(endpoint, twin)


ADAPTERS: Mapping[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Adapter]]] = {
    "postgresql": _postgresql
}


@dataclass(frozen=True)
class Dumped:
    """A dump in a folder, as the spool would hold it."""

    manifest: Manifest
    files: Path

    def open(self, name: str) -> BinaryIO:
        return (self.files / name).open("rb")

    def relisted(self) -> Dumped:
        """The same, with a manifest that names what is there: as if someone had re-sealed it."""
        present = tuple(one for one in self.manifest.members if (self.files / one.name).exists())
        return replace(self, manifest=self.manifest.model_copy(update={"members": present}))


class _NoTree(SpoolSink):
    """A sink that gives no tool a directory, as a streamed backup does not."""

    def tree(self, name: str) -> Any:  # noqa: ARG002 - the contract
        return None


@pytest.fixture(params=registry.kinds(engines))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    assert name in ADAPTERS, f"Write an Adapter for the engine {name}, so that it is held to this."
    return name


@pytest.fixture
def engine(kind: str) -> Engine:
    found: Engine = registry.load(engines, kind, "ENGINE")
    return found


@pytest.fixture
def adapter(request: pytest.FixtureRequest, kind: str) -> Iterator[Adapter]:
    with ADAPTERS[kind](request) as made:
        yield made


@pytest.fixture(params=["into a directory", "as streams"])
def sink_kind(request: pytest.FixtureRequest) -> type[SpoolSink]:
    return SpoolSink if request.param == "into a directory" else _NoTree


def dump(engine: Engine, adapter: Adapter, root: Path, sink_kind: type[SpoolSink]) -> Dumped:
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    sink = sink_kind(folder, Progress("dump"))
    begun = datetime.now(UTC)
    found: Dump = engine.dump(adapter.source, sink, engine.options(adapter.options))
    of = set_id(at=begun, run=str(root))
    ref = BackupRef.of(of, Component.DATABASE, "source")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=of,
        component=ref.component,
        source=ref.source,
        engine=engine.kind,
        attempt="a1b2c3d4",
        stages=(),
        dump=found,
        members=tuple(
            Member(name=one.name, plain=one.plain, stored=one.current) for one in sink.members
        ),
        started_at=begun,
        finished_at=datetime.now(UTC),
        product="test",
    )
    # Whatever facts an engine has, they go through the manifest's JSON and come back the same.
    again = Manifest.model_validate_json(manifest.model_dump_json())
    assert again == manifest
    return Dumped(manifest=again, files=folder.files)


@pytest.fixture
def dumped(engine: Engine, adapter: Adapter, tmp_path: Path, sink_kind: type[SpoolSink]) -> Dumped:
    return dump(engine, adapter, tmp_path / "dump", sink_kind)


def test_an_unknown_option_is_refused_by_its_name(engine: Engine, adapter: Adapter) -> None:
    with pytest.raises(ConfigurationError, match="surprise"):
        engine.options({**adapter.options, "surprise": 1})


def test_options_that_were_filled_may_be_checked_again(engine: Engine, adapter: Adapter) -> None:
    filled = engine.options(adapter.options)
    assert engine.options(filled) == filled
    assert engine.options({})


def test_a_probe_tells_the_version_of_the_server(engine: Engine, adapter: Adapter) -> None:
    assert re.match(r"\d+\.", engine.probe(adapter.source))


def test_a_server_that_is_not_there_is_unreachable(engine: Engine, adapter: Adapter) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1\b"):
        engine.probe(replace(adapter.source, port=1))


def test_a_dump_says_what_it_is_and_holds_no_password(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    assert dumped.manifest.dump.server_version == engine.probe(adapter.source)
    assert dumped.manifest.dump.tools
    assert dumped.manifest.dump.consistency
    assert dumped.manifest.plain_size > 0
    assert not dumped.manifest.dump.empty
    assert adapter.source.password not in json.dumps(dumped.manifest.model_dump(mode="json"))


def test_a_whole_dump_passes_the_check_of_its_structure(engine: Engine, dumped: Dumped) -> None:
    engine.check(dumped.manifest, dumped.open)


def test_structural_damage_that_no_digest_tells_is_found(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    whole = {path: path.read_bytes() for path in dumped.files.rglob("*") if path.is_file()}
    for member, damage in list(adapter.structural_damage(dumped.files)):
        damage()
        with pytest.raises((DamagedError, FileNotFoundError)) as caught:
            engine.check(dumped.relisted().manifest, dumped.open)
        assert Path(member).name in str(caught.value), (member, str(caught.value))
        for path, data in whole.items():
            path.write_bytes(data)
    engine.check(dumped.manifest, dumped.open)


def test_a_restore_gives_what_was_there_at_the_dump(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    adapter.add(100)
    target = RestoreTarget(adapter.target)
    engine.preflight(dumped.manifest, target)
    engine.load(dumped.manifest, dumped.files, target)
    engine.load(dumped.manifest, dumped.files, target)  # a repeat starts clean
    assert list(engine.compare(dumped.manifest, target)) == []
    engine.publish(dumped.manifest, dumped.files, target)
    assert engine.publish(dumped.manifest, dumped.files, target) in ((), [])
    assert adapter.count(adapter.target) == 200
    assert adapter.count(adapter.source) == 300
    assert list(engine.compare(dumped.manifest, target)) == []
    adapter.harm(adapter.target)
    assert list(engine.compare(dumped.manifest, target)) != []


def test_a_target_that_holds_data_is_refused_untouched_unless_it_may_be_replaced(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    target = RestoreTarget(adapter.target, replace=True)
    engine.load(dumped.manifest, dumped.files, target)
    engine.publish(dumped.manifest, dumped.files, target)
    before = adapter.fingerprint()
    with pytest.raises(TargetRefusedError):
        engine.preflight(dumped.manifest, RestoreTarget(adapter.target))
    assert adapter.fingerprint() == before
    assert engine.preflight(dumped.manifest, target)


def test_two_dumps_of_the_same_content_have_the_same_facts_of_it(
    engine: Engine, adapter: Adapter, tmp_path: Path
) -> None:
    first = dump(engine, adapter, tmp_path / "first", SpoolSink).manifest
    target = RestoreTarget(adapter.target)
    second = dump(engine, adapter, tmp_path / "second", _NoTree)
    engine.load(second.manifest, second.files, target)
    engine.publish(second.manifest, second.files, target)
    assert list(engine.compare(first, target)) == []
