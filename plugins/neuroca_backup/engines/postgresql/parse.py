"""Reading a dump's structure without a server.

Every table's data is there, whole, and has as many rows as were counted when it was dumped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

from neuroca_backup import commands
from neuroca_backup import postgres_facts as facts
from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines.postgresql.dump import CUSTOM, GLOBALS, member_of
from neuroca_backup.errors import DamagedError, ToolFailedError
from neuroca_backup.model.manifest import Manifest
from neuroca_backup.streams import copy

_CHUNK = 1024 * 1024
# How COPY data ends in an archive: pg_dump writes this after the last row.
_END_OF_DATA = b"\\.\n\n\n"
_GLOBALS_END = b"-- PostgreSQL database cluster dump complete"
_LARGE_OBJECTS = re.compile(r"^(\d+); \d+ \d+ BLOBS ", re.MULTILINE)
_TABLE_DATA = re.compile(r"^(\d+); \d+ \d+ TABLE DATA (.+)$", re.MULTILINE)

OpenMember = Callable[[str], BinaryIO]


def check(manifest: Manifest, open_member: OpenMember) -> None:
    """Check globals and every database.

    Raises:
        DamagedError: A dump lacks its end, a table's data, or rows.
        IncompatibleVersionError: Our tools are too old to read it; that is no damage.
    """
    tools.require_reader(manifest)
    with open_member(GLOBALS) as stream:
        *_, tail = _tails(stream, len(_GLOBALS_END) + 128)
    if _GLOBALS_END not in tail:
        raise _damaged(GLOBALS, "does not end as pg_dumpall ends")
    for database, known in manifest.dump.facts["databases"].items():
        if known["layout"] == CUSTOM:
            _check_custom(member_of(database), open_member)
        else:
            _check_directory(
                manifest,
                member_of(database),
                known["tables"],
                open_member,
                large_objects=known["large_objects"],
            )


def _check_custom(member: str, open_member: OpenMember) -> None:
    # Turning the whole archive into SQL reads every block of it; nothing of it is kept.
    argv: list[str | Path] = [tools.find("pg_restore"), "--file=/dev/null"]
    try:
        with open_member(member) as source, commands.started(argv, stdin=subprocess.PIPE) as tool:
            assert tool.stdin is not None  # noqa: S101 - asked for above
            copy(source, cast("BinaryIO", tool.stdin))
            tool.stdin.close()
    except ToolFailedError as error:
        raise _damaged(member, f"is not an archive: {error.facts['stderr']}") from error


def _check_directory(
    manifest: Manifest,
    tree: str,
    tables: Mapping[str, Any],
    open_member: OpenMember,
    *,
    large_objects: int,
) -> None:
    names = {member.name for member in manifest.members}
    contents = _table_of_contents(f"{tree}/toc.dat", open_member)
    seen: set[str] = set()
    for dump_id, rest in _TABLE_DATA.findall(contents):
        member = f"{tree}/{dump_id}.dat"
        if member not in names:
            raise _damaged(member, "is not part of the backup, but the table of contents names it")
        with open_member(member) as stream:
            rows = _count_rows(stream, member)
        table = _table_named(rest, tables, rows=rows, seen=seen)
        if table is None:
            continue  # configuration data of an extension, which facts leave out
        seen.add(table)
        if rows != tables[table]["rows"]:
            raise _damaged(
                member, f"holds {rows} rows of {table}, {tables[table]['rows']} were counted"
            )
    _check_large_objects(tree, contents, names, open_member, count=large_objects)
    absent = sorted(name for name in tables.keys() - seen if tables[name]["rows"])
    if absent:
        raise _damaged(f"{tree}/toc.dat", f"names no data of {', '.join(absent)}")


def _check_large_objects(
    tree: str, contents: str, names: Collection[str], open_member: OpenMember, *, count: int
) -> None:
    """Check that every large object has its file; lists of them are `<oid> <file>` a line."""
    found = 0
    for dump_id in _LARGE_OBJECTS.findall(contents):
        # Before version 17 there was one list, which had no number.
        listed = (f"{tree}/blobs_{dump_id}.toc", f"{tree}/blobs.toc")
        member = next((one for one in listed if one in names), None)
        if member is None:
            raise _damaged(
                listed[0], "is not part of the backup, but the table of contents names it"
            )
        with open_member(member) as stream:
            files = [line.split()[1].decode() for line in stream if line.strip()]
        for file in files:
            if f"{tree}/{file}" not in names:
                raise _damaged(
                    f"{tree}/{file}", f"is not part of the backup, but {member} names it"
                )
        found += len(files)
    if found != count:
        raise _damaged(f"{tree}/toc.dat", f"names {found} large objects, {count} were counted")


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


def _table_named(
    rest: str, tables: Mapping[str, Any], *, rows: int, seen: Collection[str]
) -> str | None:
    """Return the table that a line of the table of contents is about.

    It says "schema table owner", separated by spaces that names may hold, too: of several that
    fit the one with the right number of rows is meant.
    """
    fits = [key for key in tables if rest.startswith(_listed(key) + " ")]
    return max(
        fits,
        key=lambda key: (key not in seen, tables[key]["rows"] == rows, len(key)),
        default=None,
    )


def _listed(key: str) -> str:
    # pg_restore shows a line break within a name as a space.
    return re.sub(r"[\r\n]", " ", " ".join(facts.names_in(key)))


def _damaged(member: str, what: str) -> DamagedError:
    return DamagedError(
        f"{member} {what}",
        remedy="Restore from another store or an older backup; then look why it was made so.",
        key=member,
    )
