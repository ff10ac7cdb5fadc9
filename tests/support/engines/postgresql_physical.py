"""PostgreSQL, physical: a small cluster of its own, restored to a directory on this machine."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup import sandbox
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.postgres_tools import server_folder
from neuroca_backup.sandbox.postgres_directory import DirectoryServer
from neuroca_backup.sandbox.process import Account
from support.engines import Adapter
from support.wiring import add_rows, scratch_database, session

if TYPE_CHECKING:
    from psycopg import Connection


@contextmanager
def restored_folder() -> Iterator[Path]:
    """Give an empty folder that the account of a restored server can get to."""
    root = Path(tempfile.mkdtemp(prefix="neuroca-physical-", dir=_in_memory()))
    account = Account.unprivileged()
    folder = root / "restored"
    folder.mkdir()
    if account is not None:
        root.chmod(0o711)
        shutil.chown(folder, account.uid, account.gid)
    try:
        yield folder
    finally:
        shutil.rmtree(root)


def _in_memory() -> Path | None:
    """Return a folder in memory, if there is much of it: a cluster is a thousand small files."""
    shared = Path("/dev/shm")  # noqa: S108 - a private folder is made in it
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > 4e9
    return shared if roomy else None


@contextmanager
def opened(directory: Path, database: str) -> Iterator[Connection[tuple[Any, ...]]]:
    """Run a server on a restored directory for the length of the block, and log in."""
    server = DirectoryServer(
        data=directory,
        programs=server_folder(18),
        superuser="nca_admin",
        account=Account.unprivileged(),
    )
    root = directory.parent / "looking"
    try:
        endpoint = sandbox.launch(root, server)
        with session(endpoint, database, password=None) as found:
            yield found
    finally:
        sandbox.stop(root)


class Physical:
    """The table `memory.items` of one database; the whole cluster goes along."""

    def __init__(self, source: Endpoint, directory: Path) -> None:
        self.source = source
        self.target = Endpoint(kind="postgres", extra={"data_directory": str(directory)})
        self.options = {"max_retained_wal": "1GB"}
        self._directory = directory

    def add(self, count: int) -> None:
        add_rows(self.source, count)

    def count(self, endpoint: Endpoint) -> int:
        question = "SELECT count(*) FROM memory.items"
        if endpoint is self.source:
            with session(endpoint) as found:
                return int(found.execute(question).fetchall()[0][0])
        with opened(self._directory, self.source.database) as found:
            return int(found.execute(question).fetchall()[0][0])

    def harm(self, endpoint: Endpoint) -> None:  # noqa: ARG002 - there is one target
        with opened(self._directory, self.source.database) as found:
            found.execute("UPDATE memory.items SET content = 'another' WHERE id = 7")

    def fingerprint(self) -> object:
        root = self._directory.parent
        return sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))

    def structural_damage(self, files: Path) -> Iterator[tuple[str, Callable[[], None]]]:
        def changed(path: Path, change: Callable[[bytes], bytes]) -> tuple[str, Callable[[], None]]:
            data = path.read_bytes()
            return path.relative_to(files).as_posix(), lambda: _rewrite(path, change(data))

        for path in sorted(path for path in files.rglob("*") if path.is_file()):
            yield path.relative_to(files).as_posix(), path.unlink
            yield changed(path, lambda data: data[: len(data) // 2])
            yield changed(path, lambda data: data[:-20])
            yield changed(path, lambda _: b"")
        tar, manifest = files / "base/base.tar", files / "base/backup_manifest"
        yield changed(tar, lambda data: _flipped(data, _in_a_table(tar, b"memory 7")))
        yield changed(tar, lambda data: data.replace(b"ustar", b"other"))
        yield changed(manifest, lambda data: _flipped(data, data.index(b'"Size": ') + 8))
        for path in sorted((files / "wal").iterdir()):
            yield changed(path, lambda data: _flipped(data, 9))


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _in_a_table(tar: Path, words: bytes) -> int:
    """Return where `words` are in a file of a database, not in the WAL."""
    with tarfile.open(tar) as found:
        for entry in found:
            content = found.extractfile(entry) if entry.name.startswith("base/") else None
            at = -1 if content is None else content.read().find(words)
            if at >= 0:
                return entry.offset_data + at
    raise AssertionError(words)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@contextmanager
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    source = request.getfixturevalue("postgres_alone")
    with (
        restored_folder() as folder,
        scratch_database(source, f"engine_{abs(hash(request.node.name)):x}") as endpoint,
    ):
        with session(endpoint) as found:
            found.execute("CREATE TABLE memory.second AS SELECT generate_series(1, 9) AS n")
            found.execute("CREATE UNLOGGED TABLE memory.unlogged AS SELECT 1 AS one")
        yield Physical(endpoint, folder / "data")
