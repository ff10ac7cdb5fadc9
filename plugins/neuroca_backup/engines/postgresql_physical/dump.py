"""A physical backup: a base backup, WAL up to a marker, or WAL alone.

Every backup ends with a marker in the WAL and carries the WAL up to it, so a restore always ends
at a position that was really reached. A base backup is left out where WAL alone continues the
parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroca_backup import postgres_tools as tools
from neuroca_backup.engines import Parent, Sink
from neuroca_backup.engines.postgresql_physical import basebackup, contents, lsn, slot, source, wal
from neuroca_backup.errors import ChainBrokenError, ConfigurationError, IncompatibleVersionError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump

if TYPE_CHECKING:
    from neuroca_backup.engines.postgresql_physical import Options

FULL, SUMMARIES, WAL = "full", "summaries", "wal"
_SUMMARIES_SINCE = 17
_FULL_NEEDED = "Take a full backup; it begins a new chain."


def dump(endpoint: Endpoint, sink: Sink, options: Options, parent: Parent | None) -> Dump:
    """Write a full backup, or what came after `parent`, to `sink`.

    Raises:
        ChainBrokenError: The server cannot continue the parent.
        ConfigurationError, AccessDeniedError, IncompatibleVersionError: See `source.examine`.
    """
    found = source.examine(endpoint, slot=options.point_in_time)
    notes: list[str] = []
    method = FULL
    if parent is not None:
        _require_same_history(found, parent)
        method = _method(found, options, parent, notes)
    covered = None if parent is None else lsn.parse(parent.manifest.dump.consistency["end_lsn"])
    if options.point_in_time:
        notes += slot.hold(endpoint, options.slot, limit=options.max_retained_wal, covered=covered)
    base = None
    if method != WAL:
        base = basebackup.take(
            endpoint,
            sink,
            tablespaces=found.tablespaces,
            parent=parent if method == SUMMARIES else None,
        )
        _require_timeline(found, base.timeline)
    taken = contents.take(endpoint, checksums=options.checksums)
    marker = taken.marker
    continues = covered is not None and (options.point_in_time or base is None)
    if continues:
        assert covered is not None  # noqa: S101 - said one line above
        start = lsn.segment_start(covered, found.segment_bytes)
    else:
        assert base is not None  # noqa: S101 - only what continues a parent has none
        # The base backup holds the whole file in which it ends: the server begins a new one then.
        start = lsn.segment_start(base.stop - 1, found.segment_bytes) + found.segment_bytes
    wal.receive(
        endpoint,
        sink,
        start=start,
        end=marker.end,
        timeline=found.timeline,
        segment_bytes=found.segment_bytes,
    )
    return Dump(
        server_version=found.version,
        tools={"pg_basebackup": tools.version("pg_basebackup")},
        consistency={
            "lsn": lsn.printed(marker.position),
            "end_lsn": lsn.printed(marker.end),
            "wal_start": lsn.printed(start),
            **({} if base is None else _words(base)),
            "timeline": str(found.timeline),
            "system_identifier": found.identifier,
            "time": marker.time,
        },
        facts={
            "method": method,
            "continues": continues,
            "segment_bytes": found.segment_bytes,
            "superuser": found.superuser,
            "tablespaces": dict(found.tablespaces),
            "databases": dict(taken.databases),
            "exact": taken.exact,
            "checksums": options.checksums,
        },
        notes=(*notes, *taken.notes),
    )


def _words(base: basebackup.Base) -> dict[str, str]:
    return {"start_lsn": lsn.printed(base.start), "stop_lsn": lsn.printed(base.stop)}


def _method(found: source.Source, options: Options, parent: Parent, notes: list[str]) -> str:
    """Return how to continue `parent`: by changed blocks, or by WAL alone."""
    if options.incremental == WAL:
        return WAL
    able = tools.major(found.version) >= _SUMMARIES_SINCE and found.summarizes
    if options.incremental == SUMMARIES and not able:
        if tools.major(found.version) < _SUMMARIES_SINCE:
            raise IncompatibleVersionError(
                f"PostgreSQL {found.version} has no WAL summaries, which `incremental: summaries` "
                "needs",
                remedy=f"Set `incremental: wal`, or use PostgreSQL {_SUMMARIES_SINCE} or newer.",
                server=found.version,
            )
        raise ConfigurationError(
            "summarize_wal is off on the server, and `incremental: summaries` needs it",
            remedy="Run ALTER SYSTEM SET summarize_wal = on and reload, or set `incremental: wal`.",
            path="options.incremental",
            value=options.incremental,
        )
    if able and parent.manifest.dump.facts["method"] != WAL:
        return SUMMARIES
    if not options.point_in_time:
        raise ChainBrokenError(
            "Changed blocks cannot continue a backup that has only WAL, or a server without "
            "summaries, and `point_in_time: false` rules WAL out",
            remedy=_FULL_NEEDED,
        )
    if able:
        notes.append("Continued by WAL alone, as its parent was; the next full backup changes it.")
    return WAL


def _require_same_history(found: source.Source, parent: Parent) -> None:
    known: Any = parent.manifest.dump.consistency
    if known["system_identifier"] != found.identifier:
        raise ChainBrokenError(
            f"The server is another cluster ({found.identifier}) than the one that "
            f"{parent.manifest.backup_id} was taken of ({known['system_identifier']})",
            remedy=_FULL_NEEDED,
        )
    _require_timeline(found, int(known["timeline"]))


def _require_timeline(found: source.Source, timeline: int) -> None:
    if timeline != found.timeline:
        raise ChainBrokenError(
            f"The server is on timeline {found.timeline} and the backup on {timeline}: the server "
            "was promoted or restored",
            remedy=_FULL_NEEDED,
        )
