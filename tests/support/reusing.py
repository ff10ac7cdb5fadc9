"""A small engine whose backups refer to earlier ones, and an installation of two stores for it."""

# ruff: noqa: ARG002 - the contract of an engine has arguments that this one needs not

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.engines import (
    Difference,
    Engine,
    Parent,
    Restorable,
    RestoreTarget,
    Sink,
)
from neuroca_backup.errors import DamagedError
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import BackupRef, Component, set_id
from neuroca_backup.model.manifest import Dump, Manifest
from neuroca_backup.services.backup import Backups, BackupType, Subject
from neuroca_backup.services.inventory import read_manifest
from neuroca_backup.services.restore import Restores
from neuroca_backup.services.verify import Verifier
from neuroca_backup.settings import CompressionSettings
from neuroca_backup.spool import Spool
from neuroca_backup.stores.local import LocalStore
from neuroca_backup.streams import DigestWriter

SOURCE = "shelf"
_counter = itertools.count()


class ShelfEngine:
    """Backs up the files of one directory; a file whose digest the parent has is referred to."""

    kind: ClassVar[str] = "shelf"
    default_port: ClassVar[int] = 0
    sandbox: ClassVar[str] = ""
    incremental: ClassVar[bool] = False
    keeps: ClassVar[bool] = False
    reuses: ClassVar[bool] = True

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return given

    def probe(self, endpoint: Endpoint) -> str:
        return "1.0"

    def dump(
        self,
        endpoint: Endpoint,
        sink: Sink,
        options: Mapping[str, Any],
        parent: Parent | None = None,
    ) -> Dump:
        known = {}
        if parent is not None:
            known = {one.plain.sha256: one.name for one in parent.manifest.members}
            with parent.open("index") as index:
                assert index.read()
        names = {}
        for path in sorted(_directory(endpoint).iterdir()):
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            names[path.name] = digest
            name = f"files/{path.name}"
            if digest in known and sink.reuse(name, of=known[digest]):
                continue
            with sink.member(name) as out:
                out.write(data)
        with sink.member("index") as out:
            out.write("\n".join(names).encode())
        now = datetime.now(UTC).isoformat()
        return Dump(server_version="1.0", consistency={"time": now}, facts=names)

    def check(self, manifest: Manifest, open_member: Callable[[str], BinaryIO]) -> None:
        for name, digest in manifest.dump.facts.items():
            with open_member(f"files/{name}") as opened:
                if hashlib.sha256(opened.read()).hexdigest() != digest:
                    raise DamagedError(f"{name} is another file", remedy="None.", key=name)

    def summary(self, manifest: Manifest) -> str:
        return f"{len(manifest.dump.facts)} files"

    def preflight(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        return ()

    def load(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        place = _directory(target.endpoint)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(backup.folders[0] / "files", place)
        return ()

    def compare(self, backup: Restorable, target: RestoreTarget) -> Sequence[Difference]:
        found = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in _directory(target.endpoint).iterdir()
        }
        expected = backup.last.dump.facts
        return () if found == expected else (Difference("files", str(expected), str(found)),)

    def publish(self, backup: Restorable, target: RestoreTarget) -> Sequence[str]:
        return ()


def _directory(endpoint: Endpoint) -> Path:
    return Path(endpoint.extra["directory"])


class CountingStore(LocalStore):
    """A store that adds up the bytes of the members written to it."""

    written = 0

    def writer(self, key: str) -> AbstractContextManager[BinaryIO]:
        return self._counted(super().writer(key))

    @contextmanager
    def _counted(self, opened: AbstractContextManager[BinaryIO]) -> Iterator[BinaryIO]:
        with opened as out:
            counted = DigestWriter(out)
            yield counted
        self.written += counted.digest.size


@dataclass
class Stand:
    """Two stores, one source directory, and services over them; all ages are of the run's time."""

    root: Path
    mode: str = "staged"
    engine: Engine = field(default_factory=ShelfEngine)
    options: Mapping[str, Any] = field(default_factory=dict)
    full_every: timedelta = timedelta(days=7)
    component: Component = Component.MODEL_WEIGHTS

    def __post_init__(self) -> None:
        self.source = self.root / "source"
        self.source.mkdir(exist_ok=True)
        self.stores = {
            name: CountingStore(name, self.root / name) for name in ("primary", "secondary")
        }
        for store in self.stores.values():
            store.initialise()
        key = self.root / "local.key"
        if not key.exists():
            LocalKeyFile.generate(key)
        self.keyring = Keyring([LocalKeyFile(key)])
        self.catalog = MemoryCatalog()
        self.spool = Spool(self.root / "spool")
        shared: dict[str, Any] = {
            "stores": self.stores,
            "keyring": self.keyring,
            "catalog": self.catalog,
            "workers": 2,
        }
        self.backups = Backups(
            subject=self._subject,
            spool=self.spool,
            compression=CompressionSettings(level=1, threads=0),
            **shared,
        )
        self.verifier = Verifier(engine=lambda _: self.engine, **shared)
        self.restores = Restores(engine=lambda _: self.engine, spool=self.spool, **shared)

    def _subject(self, name: str) -> Subject:
        return Subject(
            name=name,
            component=self.component,
            kind=self.engine.kind,
            engine=self.engine,
            endpoint=Endpoint(kind="files", extra={"directory": str(self.source)}),
            options=self.engine.options(self.options),
            retention=timedelta(days=180),
            full_every=self.full_every,
        )

    def write(self, **files: bytes) -> None:
        for name, data in files.items():
            (self.source / name).write_bytes(data)

    def ref(self, *, age: timedelta = timedelta(), source: str = SOURCE) -> BackupRef:
        run = f"run-{next(_counter)}"
        # Two runs of one second must sort as they were made.
        at = datetime.now(UTC) - age + timedelta(seconds=next(_counter))
        return BackupRef.of(set_id(at=at, run=run), self.component, source)

    def back_up(
        self,
        *,
        age: timedelta = timedelta(),
        verify: bool = True,
        backup_type: BackupType = BackupType.AUTO,
        source: str = SOURCE,
    ) -> BackupRef:
        ref = self.ref(age=age, source=source)
        self.backups.run(ref, mode=self.mode, backup_type=backup_type)
        if verify:
            self.verifier.verify(ref)
        return ref

    def manifest(self, ref: BackupRef, store: str = "primary") -> Manifest:
        return read_manifest(self.stores[store], ref).manifest

    def path(self, store: str, key: str) -> Path:
        return self.root / store / key

    def restored(self, ref: BackupRef, *, only: Sequence[str] = ()) -> dict[str, bytes]:
        """Restore with every step, and return the files by name."""
        place = self.root / f"restored-{next(_counter)}"
        target = RestoreTarget(Endpoint(kind="files", extra={"directory": str(place)}))
        plan = self.restores.plan(
            component=self.component,
            source=ref.source,
            restore_id=f"restore-{next(_counter)}",
            backup_id=ref.backup_id,
            only=only,
        )
        self.restores.preflight(plan, target)
        try:
            self.fetched = self.restores.fetch(plan)
            self.restores.load(plan, self.fetched, target)
            self.restores.compare(plan, target)
            self.restores.publish(plan, self.fetched, target)
        finally:
            self.restores.clear(plan.restore_id)
        return {
            path.relative_to(place).as_posix(): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
