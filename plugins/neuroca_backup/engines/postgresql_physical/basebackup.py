"""Running `pg_basebackup`: the cluster as a tar, and its manifest as a member of its own.

https://www.postgresql.org/docs/current/app-pgbasebackup.html
"""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from neuroca_backup import commands
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines import Parent, Sink
from neuroca_backup.engines.postgresql_physical import lsn
from neuroca_backup.errors import (
    ChainBrokenError,
    ConfigurationError,
    DamagedError,
    ToolFailedError,
    TransientError,
)
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.streams import CHUNK_BYTES, RawStream, copy

FOLDER = "base"
MANIFEST = f"{FOLDER}/backup_manifest"
TAR = f"{FOLDER}/base.tar"

_MANIFEST_IN_TAR = "backup_manifest"
_ENDING_SECONDS = 30
_TAIL_BYTES = 4096  # the positions are in the last lines of a manifest, however long it is
_RANGE = re.compile(
    rb'"Timeline": (\d+), "Start-LSN": "([0-9A-F/]+)", "End-LSN": "([0-9A-F/]+)"', re.IGNORECASE
)
_SUMMARIES_MISSING = re.compile(r"WAL summaries are required")
_OTHER_HISTORY = re.compile(
    r"found in manifest, but not in this server's history|system identifier in backup manifest"
    r"|manifest requires WAL from|could not find.* in history of this server"
)
_WAL_REMOVED = re.compile(r"could not find any WAL files|WAL file .* (?:not found|removed)")
_NOT_YET = re.compile(r"WAL summarization is not progressing")
_LOST_PROGRESS = re.compile(r"requested WAL segment .* has already been removed")


@dataclass(frozen=True, slots=True)
class Base:
    """Where a base backup begins and ends in the WAL."""

    start: int
    stop: int
    timeline: int


def member_of(tablespace: str) -> str:
    """Return the member that holds a tablespace, by its OID."""
    return f"{FOLDER}/{tablespace}.tar"


def take(
    endpoint: Endpoint, sink: Sink, *, tablespaces: Mapping[str, str], parent: Parent | None
) -> Base:
    """Write the cluster to `sink`: all of it, or what has changed since `parent`'s base backup.

    Raises:
        ChainBrokenError: The server cannot say what has changed since then.
        ConfigurationError: There are tablespaces, and the sink has no place for their files.
    """
    with _manifest_of(parent) as known:
        # WAL of the backup is in the tar, so that it can be started on its own. Checksums of every
        # file are SHA-256: they are verified by this project, too, in Python.
        argv: list[str | Path] = [
            tools.find("pg_basebackup"),
            "--no-password",
            "--format=tar",
            "--wal-method=fetch",
            "--checkpoint=fast",
            "--manifest-checksums=SHA256",
            "--label=neuroca-backup",
            *([] if known is None else [f"--incremental={known}"]),
        ]
        with _explained(), tools.translated(endpoint):
            if tablespaces:
                return _into_directory(endpoint, sink, argv, tablespaces)
            return _as_stream(endpoint, sink, argv)


def _as_stream(endpoint: Endpoint, sink: Sink, argv: Sequence[str | Path]) -> Base:
    with (
        sink.member(TAR) as out,
        sink.member(MANIFEST) as manifest,
        commands.started(
            [*argv, "--pgdata=-"],
            env=tools.environment(endpoint),
            stdout=subprocess.PIPE,
            secrets=[endpoint.password],
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - asked for above
        passing = _Passing(cast("BinaryIO", process.stdout), out)
        try:
            tail = _copy_manifest(passing, manifest)
            while passing.read(CHUNK_BYTES):
                pass
        except DamagedError:
            # A tar that ends early is what a tool leaves that has died: then its end is the error.
            process.wait(_ENDING_SECONDS)
            raise
    return _positions(tail)


def _into_directory(
    endpoint: Endpoint, sink: Sink, argv: Sequence[str | Path], tablespaces: Mapping[str, str]
) -> Base:
    tree = sink.tree(FOLDER)
    if tree is None:
        raise ConfigurationError(
            f"The cluster at {endpoint.label} has tablespaces "
            f"({', '.join(tablespaces.values())}), which pg_basebackup cannot stream",
            remedy="Set `pipeline.mode: staged` for this source, or move the tables back to "
            "pg_default.",
            server=endpoint.label,
        )
    with tree as folder:
        commands.run(
            [*argv, f"--pgdata={folder}", "--no-sync"],
            env=tools.environment(endpoint),
            secrets=[endpoint.password],
        )
        tail = (folder / _MANIFEST_IN_TAR).read_bytes()[-_TAIL_BYTES:]
    return _positions(tail)


class _Passing(RawStream):
    """Reads `source` and writes everything that is read to `sink`."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._sink = sink

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._sink.write(data)
        return data


def _copy_manifest(tar: BinaryIO, out: BinaryIO) -> bytes:
    """Copy the manifest, the last entry of `tar`, to `out`; return its last bytes."""
    tail = b""
    for entry, content in entries(tar, name=TAR):
        if entry.name == _MANIFEST_IN_TAR and content is not None:
            while chunk := content.read(CHUNK_BYTES):
                out.write(chunk)
                tail = (tail + chunk)[-_TAIL_BYTES:]
    return tail


def entries(tar: BinaryIO, *, name: str) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield the entries of a tar that is read once from start to end; files with their content.

    Raises:
        DamagedError: `name` is no tar, or ends within an entry.
    """
    with _tar_read(name), tarfile.open(fileobj=tar, mode="r|", bufsize=CHUNK_BYTES) as opened:
        for entry in opened:
            content = opened.extractfile(entry) if entry.isfile() else None
            yield entry, None if content is None else _Content(cast("BinaryIO", content), name)
            opened.members = []  # type: ignore[attr-defined] # would keep every file it has seen


class _Content(RawStream):
    """The content of an entry of the tar called `name`."""

    def __init__(self, content: BinaryIO, name: str) -> None:
        super().__init__()
        self._content = content
        self._name = name

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with _tar_read(self._name):
            return self._content.read(size)


@contextmanager
def _tar_read(name: str) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError) as error:
        raise DamagedError(
            f"{name} is not a whole tar: {error}",
            remedy="Restore from another store or an older backup; then look why it was made so.",
            key=name,
        ) from error


def _positions(tail: bytes) -> Base:
    found = _RANGE.findall(tail)
    if len(found) != 1:
        raise ToolFailedError(
            "The server's manifest does not say which WAL the base backup needs, or it crosses "
            "a change of timeline",
            remedy="Run the backup again.",
            stderr="",
            exit_code=0,
        )
    timeline, start, stop = found[0]
    return Base(
        start=lsn.parse(start.decode()), stop=lsn.parse(stop.decode()), timeline=int(timeline)
    )


@contextmanager
def _manifest_of(parent: Parent | None) -> Iterator[Path | None]:
    if parent is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:  # 0700; names of files, nothing of the data
        path = Path(folder) / _MANIFEST_IN_TAR
        with parent.open(MANIFEST) as source, path.open("xb") as out:
            copy(source, out)
        yield path


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what `pg_basebackup` says of an impossible incremental backup into its meaning."""
    try:
        yield
    except ToolFailedError as error:
        words = error.facts["stderr"]
        if _SUMMARIES_MISSING.search(words) or _OTHER_HISTORY.search(words):
            raise ChainBrokenError(
                f"The server cannot say what has changed since the parent: {error.problem}",
                remedy="Take a full backup; it begins a new chain. Keep WAL summaries longer than "
                "the time between two backups (wal_summary_keep_time).",
                stderr=words,
            ) from error
        if _LOST_PROGRESS.search(words) or _WAL_REMOVED.search(words) or _NOT_YET.search(words):
            raise TransientError(
                f"The base backup could not be finished: {error.problem}",
                remedy="It is tried again; if it keeps happening raise wal_keep_size, or look why "
                "the WAL summarizer does not get on.",
                stderr=words,
            ) from error
        raise
