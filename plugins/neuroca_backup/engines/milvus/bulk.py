"""Milvus's own import of Parquet files: no row passes through us, or through its message queue.

The connection's extra word `bulk_import_path` is a directory that this process may write to and
the server may read, such as one below the storage path of a standalone server, or a mounted
bucket; `bulk_import_server_path` is what the server calls it where that is something else.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from neuroca_backup.engines.milvus.session import CALL_SECONDS, Session
from neuroca_backup.errors import ConfigurationError, PermanentError, UnreachableError
from neuroca_backup.vectors import columns, parts
from neuroca_backup.vectors.model import Collection, Name

log = logging.getLogger(__name__)

WORTHWHILE_BYTES = 16 * 1024 * 1024  # below, inserting takes less than an import's two seconds
_AT_ONCE = 8  # files handed over; the server has a queue of its own
_STILL_SECONDS = 1800  # without any task getting further
_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE = 5.0
_COMPLETED, _FAILED = {"Completed"}, {"Failed", "Failed and cleaned"}
# What its reader of Parquet files takes; rows with others are inserted.
_READABLE = {
    *("bool", "int8", "int16", "int32", "int64", "float", "double", "string", "json", "array"),
    *("float_vector", "binary_vector"),
}


def imported(
    session: Session,
    at: Name,
    collection: Collection,
    files: Sequence[Path],
    *,
    partition: str,
    on_rows: Callable[[int], None],
) -> bool:
    """Import `files` and wait until their rows are durable; False where it is not possible.

    Raises:
        PermanentError: The server could not import a file; says why.
        UnreachableError: No task got further for half an hour.
    """
    shared = session.endpoint.extra.get("bulk_import_path")
    if not shared or sum(path.stat().st_size for path in files) < WORTHWHILE_BYTES:
        return False
    if any(field.kind not in _READABLE or field.nullable for field in collection.fields):
        return False
    with _folder(Path(str(shared)), at) as folder:
        seen = PurePosixPath(
            str(session.endpoint.extra.get("bulk_import_server_path") or shared), folder.name
        )
        waiting, running = list(enumerate(files)), dict[int, Path]()
        still = time.monotonic() + _STILL_SECONDS
        pause, progress = _PAUSE_SECONDS, dict[int, Any]()
        while waiting or running:
            while waiting and len(running) < _AT_ONCE:
                number, source = waiting.pop(0)
                path = _placed(source, folder / f"part-{number:05d}.parquet", collection)
                task = _begin(session, at, str(seen / path.name), partition)
                running[task] = path
            for task, path in list(running.items()):
                with session.translated(f"asking for the import into {at.label}"):
                    state = session.handler(at.database).get_bulk_insert_state(
                        task, timeout=CALL_SECONDS, context=session.context(at.database)
                    )
                now = (state.state_name, state.infos.get("progress_percent"))
                if progress.get(task) != now:
                    progress[task], still, pause = now, time.monotonic() + _STILL_SECONDS, 0.2
                if state.state_name in _FAILED:
                    raise _failed(at, path, state)
                if state.state_name in _COMPLETED:
                    on_rows(state.row_count)
                    path.unlink()
                    del running[task]
            if time.monotonic() > still:
                raise UnreachableError(
                    f"Milvus has not got further with the import into {at.label} for "
                    f"{_STILL_SECONDS} s",
                    remedy="Look at the data node's log; then run the load again.",
                    collection=at.label,
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return True


@contextmanager
def _folder(shared: Path, at: Name) -> Iterator[Path]:
    """Give an empty folder below the shared one, gone afterwards; what a kill left goes first.

    It is private; where the server is another user's, a group that the shared directory hands on
    (its set-group-id bit) may read it.
    """
    folder = shared / f"neuroca-{at.collection}"
    try:
        mode = shared.stat().st_mode
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        if mode & stat.S_ISGID:
            folder.chmod(0o2750)
    except OSError as error:
        raise ConfigurationError(
            f"bulk_import_path {shared} cannot be used: {error.strerror}",
            remedy="Name a directory that this process may write to and Milvus may read, or "
            "remove the word: rows are then inserted.",
            path="bulk_import_path",
            value=str(shared),
        ) from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _placed(source: Path, target: Path, collection: Collection) -> Path:
    """Put a part where the server can read it, as a link if that is possible.

    A server that makes its own keys refuses files that hold some.
    """
    if collection.new_keys:
        schema = columns.schema_of(collection)
        index = schema.get_field_index(collection.key)
        with target.open("xb") as out, parts.writer(out, schema.remove(index)) as part:
            for batch in parts.read_file(source, source.name, schema):
                part.write_batch(batch.drop_columns([collection.key]))
        return target
    shared = target.parent.stat().st_mode & stat.S_ISGID
    if not shared:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            pass
        else:
            return target
    shutil.copyfile(source, target)
    if shared:
        target.chmod(0o640)
    return target


def _begin(session: Session, at: Name, path: str, partition: str) -> int:
    with session.translated(f"importing into {at.label}"):
        task: int = session.handler(at.database).do_bulk_insert(
            at.collection,
            partition,
            [path],
            timeout=CALL_SECONDS,
            context=session.context(at.database),
        )
    return task


def _failed(at: Name, path: Path, state: Any) -> PermanentError:
    reason = str(state.infos.get("failed_reason", ""))
    return PermanentError(
        f"Milvus could not import {path.name} into {at.label}: {reason[:300]}",
        remedy="Where it does not find the file, correct bulk_import_server_path; or remove "
        "bulk_import_path from the connection: rows are then inserted.",
        collection=at.label,
    )
