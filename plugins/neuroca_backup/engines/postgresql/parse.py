"""Reading a dump's structure without a server.

Every table's data is there, whole, and has as many rows as were counted when it was dumped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from neuroca_backup import commands
from neuroca_backup.engines.postgresql import tools
from neuroca_backup.engines.postgresql.dump import CUSTOM, GLOBALS, member_of
from neuroca_backup.errors import DamagedError, ToolFailedError
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import copy

_CHUNK = 1024 * 1024
# How COPY data ends in an archive: pg_dump writes this after the last row.
_END_OF_DATA = b"\\.\n\n\n"
_GLOBALS_END = b"-- PostgreSQL database cluster dump complete"
_TABLE_DATA = re.compile(r"^(\d+); \d+ \d+ TABLE DATA (.+)$", re.MULTILINE)

OpenMember = Callable[[str], BinaryIO]


def check(manifest: Manifest, open_member: OpenMember) -> None:
    """Check globals and every database.

    Raises:
        DamagedError: A dump lacks its end, a table's data, or rows.
    """
    with open_member(GLOBALS) as stream:
        *_, tail = _tails(stream, len(_GLOBALS_END) + 128)
    if _GLOBALS_END not in tail:
        raise _damaged(GLOBALS, "does not end as pg_dumpall ends")
    for database, known in manifest.dump.facts["databases"].items():
        if known["layout"] == CUSTOM:
            _check_custom(member_of(database), open_member)
        else:
            _check_directory(manifest, member_of(database), known["tables"], open_member)


def _check_custom(member: str, open_member: OpenMember) -> None:
    # Turning the whole archive into SQL reads every block of it; nothing of it is kept.
    argv = [tools.find("pg_restore"), "--file=/dev/null"]
    try:
        with open_member(member) as source, commands.started(argv, stdin=subprocess.PIPE) as tool:
            assert tool.stdin is not None  # noqa: S101 - asked for above
            copy(source, tool.stdin)
            tool.stdin.close()
    except ToolFailedError as error:
        raise _damaged(member, f"is not an archive: {error.facts['stderr']}") from error


def _check_directory(
    manifest: Manifest, tree: str, tables: Mapping[str, Any], open_member: OpenMember
) -> None:
    names = {member.name for member in manifest.members}
    contents = _table_of_contents(f"{tree}/toc.dat", open_member)
    seen = set()
    for dump_id, rest in _TABLE_DATA.findall(contents):
        member = f"{tree}/{dump_id}.dat"
        if member not in names:
            raise _damaged(member, "is not part of the backup, but the table of contents names it")
        with open_member(member) as stream:
            rows = _count_rows(stream, member)
        table = _table_named(rest, tables)
        if table is None:
            continue  # configuration data of an extension, which facts leave out
        seen.add(table)
        if rows != tables[table]["rows"]:
            raise _damaged(
                member, f"holds {rows} rows of {table}, {tables[table]['rows']} were counted"
            )
    absent = sorted(name for name in tables.keys() - seen if tables[name]["rows"])
    # A materialised view has rows but no data of its own: it is computed again.
    absent = [name for name in absent if not _is_view(name, contents)]
    if absent:
        raise _damaged(f"{tree}/toc.dat", f"names no data of {', '.join(absent)}")


def _table_of_contents(member: str, open_member: OpenMember) -> str:
    with tempfile.TemporaryDirectory() as folder:  # 0700; holds definitions, no rows
        path = Path(folder)
        with open_member(member) as source, (path / "toc.dat").open("xb") as out:
            shutil.copyfileobj(source, out)
        try:
            return commands.run([tools.find("pg_restore"), "--list", path]).decode()
        except ToolFailedError as error:
            raise _damaged(
                member, f"is not a table of contents: {error.facts['stderr']}"
            ) from error


def _count_rows(stream: BinaryIO, member: str) -> int:
    newlines = 0
    tail = b""
    for chunk, last in _chunks(stream, len(_END_OF_DATA)):
        newlines += chunk.count(b"\n")
        tail = last
    if not tail.endswith(_END_OF_DATA):
        raise _damaged(member, "does not end as pg_dump ends a table's data")
    return newlines - _END_OF_DATA.count(b"\n")


def _tails(stream: BinaryIO, size: int) -> Iterator[bytes]:
    yield b""
    for _, tail in _chunks(stream, size):
        yield tail


def _chunks(stream: BinaryIO, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield each chunk with the last `size` bytes seen up to its end."""
    tail = b""
    while chunk := stream.read(_CHUNK):
        tail = (tail + chunk[-size:])[-size:]
        yield chunk, tail


def _table_named(rest: str, tables: Mapping[str, Any]) -> str | None:
    # "schema table owner", separated by spaces that names may hold, too.
    fits = [name for name in tables if rest.startswith(name.replace(".", " ", 1) + " ")]
    return max(fits, key=len, default=None)


def _is_view(name: str, contents: str) -> bool:
    return f" MATERIALIZED VIEW {name.replace('.', ' ', 1)} " in contents


def _damaged(member: str, what: str) -> DamagedError:
    return DamagedError(
        f"{member} {what}",
        remedy="Restore from another store or an older backup; then look why it was made so.",
        key=member,
    )
