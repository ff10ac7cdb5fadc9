"""The contract of every engine, run on every engine there is, against its real server.

An engine takes part through `support/engines/<kind>.py`, whose `adapter` fills and counts its
server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from neuroca_backup import engines, registry, sandbox
from neuroca_backup.engines import Parent, Restorable, RestoreTarget, Reusing
from neuroca_backup.errors import (
    ChainBrokenError,
    ConfigurationError,
    DamagedError,
    TargetRefusedError,
    UnreachableError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest, Member
from neuroca_backup.services.pipeline import SpoolSink
from neuroca_backup.services.progress import Progress
from neuroca_backup.spool import Folder
from support.moments import MOMENT

if TYPE_CHECKING:
    from neuroca_backup.engines import Engine
    from support.engines import Adapter


@dataclass(frozen=True)
class Dumped:
    """A dump in a folder, as the spool would hold it."""

    manifest: Manifest
    files: Path

    def restorable(self) -> Restorable:
        """The dump as a restore gets it."""
        return restorable([self], work=self.files.parent / "work")

    def open(self, name: str) -> BinaryIO:
        return (self.files / name).open("rb")

    def relisted(self) -> Dumped:
        """The same, with a manifest that names what is there: as if someone had re-sealed it."""
        present = tuple(one for one in self.manifest.members if (self.files / one.name).exists())
        return replace(self, manifest=self.manifest.model_copy(update={"members": present}))


def restorable(chain: Sequence[Dumped], *, work: Path) -> Restorable:
    """Return a full dump and those that continue it as a restore gets them."""
    return Restorable(
        chain=tuple(one.manifest for one in chain),
        folders=tuple(one.files for one in chain),
        work=work,
    )


def _stub(engine: Engine) -> Dumped:
    """A parent that an engine without incremental backups must not even look at."""
    begun = datetime.now(UTC)
    manifest = Manifest(
        backup_id=f"{set_id(at=begun, run='stub')}-source",
        set_id=set_id(at=begun, run="stub"),
        component=Component.DATABASE,
        source="source",
        engine=engine.kind,
        attempt="a1b2c3d4",
        stages=(),
        dump=Dump(server_version="1", consistency=MOMENT, facts={}),
        members=(),
        started_at=begun,
        finished_at=begun,
        product="test",
    )
    return Dumped(manifest=manifest, files=Path("/nonexistent"))


class _NoTree(SpoolSink):
    """A sink that gives no tool a directory, as a streamed backup does not."""

    def tree(self, name: str) -> Any:  # noqa: ARG002 - the contract
        return None


@pytest.fixture(params=registry.kinds(engines))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def engine(kind: str) -> Engine:
    found: Engine = registry.load(engines, kind, "ENGINE")
    return found


@pytest.fixture
def adapter(request: pytest.FixtureRequest, kind: str) -> Iterator[Adapter]:
    # An engine without an adapter fails here, so that every one is held to this.
    with import_module(f"support.engines.{kind}").adapter(request) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_server_stays(tmp_path: Path) -> Iterator[None]:
    """Stop what an engine has started for itself, as whoever drives a restore does."""
    yield
    for work in tmp_path.rglob("work"):
        sandbox.stop(work)


@pytest.fixture(params=["into a directory", "as streams"])
def sink_kind(request: pytest.FixtureRequest) -> type[SpoolSink]:
    return SpoolSink if request.param == "into a directory" else _NoTree


def dump(
    engine: Engine,
    adapter: Adapter,
    root: Path,
    sink_kind: type[SpoolSink],
    *,
    after: Sequence[Dumped] = (),
) -> Dumped:
    folder = Folder(root)
    folder.files.mkdir(parents=True)
    sink = sink_kind(folder, Progress("dump"))
    begun = datetime.now(UTC)
    parent = Parent(manifest=after[-1].manifest, open=after[-1].open) if after else None
    found: Dump = engine.dump(adapter.source, sink, engine.options(adapter.options), parent)
    of = set_id(at=begun, run=str(root))
    ref = BackupRef.of(of, Component.DATABASE, "source")
    manifest = Manifest(
        backup_id=ref.backup_id,
        set_id=of,
        component=ref.component,
        source=ref.source,
        engine=engine.kind,
        attempt="a1b2c3d4",
        kind="incremental" if after else "full",
        parent=after[-1].manifest.backup_id if after else None,
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
    assert filled


def test_a_probe_tells_the_version_of_the_server(engine: Engine, adapter: Adapter) -> None:
    assert re.match(r"\d+\.", engine.probe(adapter.source))


def test_a_server_that_is_not_there_is_unreachable(engine: Engine, adapter: Adapter) -> None:
    if engine.sandbox == engines.DIRECTORY:
        with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:1\b"):
            engine.probe(Endpoint(kind="postgres", host="127.0.0.1", port=1))
        return
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1\b"):
        engine.probe(replace(adapter.source, port=1))


def test_a_dump_says_what_it_is_and_holds_no_password(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    assert dumped.manifest.dump.server_version == engine.probe(adapter.source)
    assert dumped.manifest.dump.tools
    assert abs(dumped.manifest.dump.consistent_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert dumped.manifest.plain_size > 0
    assert not dumped.manifest.dump.empty
    said = json.dumps(dumped.manifest.model_dump(mode="json"))
    assert (adapter.source.password or "files have none") not in said


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
    engine.preflight(dumped.restorable(), target)
    engine.load(dumped.restorable(), target)
    engine.load(dumped.restorable(), target)  # a repeat starts clean
    assert list(engine.compare(dumped.restorable(), target)) == []
    engine.publish(dumped.restorable(), target)
    assert engine.publish(dumped.restorable(), target) in ((), [])
    assert adapter.count(adapter.target) == 200
    assert adapter.count(adapter.source) == 300
    assert list(engine.compare(dumped.restorable(), target)) == []
    adapter.harm(adapter.target)
    assert list(engine.compare(dumped.restorable(), target)) != []


def test_a_chain_is_restored_as_far_as_it_was_chosen(
    engine: Engine, adapter: Adapter, tmp_path: Path
) -> None:
    if isinstance(engine, Reusing) and engine.reuses:
        # What it cannot refer to, it stores.
        again = dump(engine, adapter, tmp_path / "more", SpoolSink, after=[_stub(engine)])
        engine.check(again.manifest, again.open)
        return
    if not engine.incremental:
        with pytest.raises(ChainBrokenError):
            dump(engine, adapter, tmp_path / "more", SpoolSink, after=[_stub(engine)])
        return
    chain = [dump(engine, adapter, tmp_path / "full", SpoolSink)]
    for number in range(3):
        adapter.add(100)
        chain.append(dump(engine, adapter, tmp_path / f"more{number}", SpoolSink, after=chain))
        engine.check(chain[-1].manifest, chain[-1].open)
    adapter.add(100)
    assert [one.manifest.dump.consistent_at for one in chain] == sorted(
        one.manifest.dump.consistent_at for one in chain
    )
    assert max(one.manifest.plain_size for one in chain[1:]) < chain[0].manifest.plain_size
    upto = restorable(chain[:3], work=tmp_path / "work")
    target = RestoreTarget(adapter.target)
    engine.preflight(upto, target)
    engine.load(upto, target)
    assert list(engine.compare(upto, target)) == []
    engine.publish(upto, target)
    assert adapter.count(adapter.target) == 400
    assert adapter.count(adapter.source) == 600


def test_a_target_that_holds_data_is_refused_untouched_unless_it_may_be_replaced(
    engine: Engine, adapter: Adapter, dumped: Dumped
) -> None:
    target = RestoreTarget(adapter.target, replace=True)
    engine.load(dumped.restorable(), target)
    engine.publish(dumped.restorable(), target)
    before = adapter.fingerprint()
    with pytest.raises(TargetRefusedError):
        engine.preflight(dumped.restorable(), RestoreTarget(adapter.target))
    assert adapter.fingerprint() == before
    assert engine.preflight(dumped.restorable(), target)


def test_two_dumps_of_the_same_content_have_the_same_facts_of_it(
    engine: Engine, adapter: Adapter, tmp_path: Path
) -> None:
    first = dump(engine, adapter, tmp_path / "first", SpoolSink)
    target = RestoreTarget(adapter.target)
    second = dump(engine, adapter, tmp_path / "second", _NoTree)
    engine.load(second.restorable(), target)
    engine.publish(second.restorable(), target)
    assert list(engine.compare(first.restorable(), target)) == []
