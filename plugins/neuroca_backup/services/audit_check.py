"""Checking the audit trail: every chain by itself, against the others, and against the catalog."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sys import intern
from typing import TextIO

from pydantic import ValidationError

from neuroca_backup.catalog import Catalog
from neuroca_backup.errors import BackupError, ConfigurationError, DamagedError, NotFoundError
from neuroca_backup.model.audit import NOTHING, PREFIX, Head, Line, digest_of, key_of, sequence_of
from neuroca_backup.services import pipeline
from neuroca_backup.services.audit import blocks
from neuroca_backup.stores import Store

log = logging.getLogger(__name__)

# An event this young may still be on its way from one store to the next.
_IN_FLIGHT = timedelta(minutes=2)
# Of the catalog's events, so many of the newest are held against the chains.
_ANCHORS = 10_000
_NAMED = 20  # of what may be thousands, so many are named
_READERS = 16
_CUT_SHORT = "so the trail was cut short"


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """Something wrong with one line: where it is, and what."""

    store: str
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.store}:{self.key}: {self.problem}"


@dataclass(slots=True)
class AuditReport:
    """What a check found.

    `heads` are the last lines by store. `findings` mean that somebody, or a failing disk, has
    changed the trail. `lacking` names events that other stores have, which a sync mends. `unknown`
    says what could not be looked at, so that nothing can be said of it.
    """

    heads: dict[str, Head] = field(default_factory=dict)
    findings: list[AuditFinding] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether everything was looked at, and nothing is wrong or lacking."""
        return bool(self.heads) and not (self.findings or self.lacking or self.unknown)


@dataclass(slots=True)
class _Chain:
    """One store's chain as it was read: digests of lines; of events digest, line, time."""

    store: Store
    name: str = ""
    digests: list[bytes] = field(default_factory=list)  # b"" where there is no line
    events: dict[str, tuple[bytes, int, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Witness:
    """Someone who saw the head of a chain, and where that is written; kept small, one a line."""

    chain: str
    sequence: int
    digest: bytes
    where: str

    @classmethod
    def of(cls, head: Head, where: str) -> _Witness:
        return cls(intern(head.chain), head.sequence, bytes.fromhex(head.digest), where)


def check(
    stores: Mapping[str, Store],
    catalog: Catalog,
    *,
    retired: Iterable[str] = (),
    against: Path | None = None,
    now: datetime | None = None,
) -> AuditReport:
    """Read every line of every store and return what is wrong.

    Args:
        stores: Every configured store by name; all of them have to answer.
        catalog: Whose events name the heads that there were.
        retired: Names of chains that are known to be gone, with the store that held them.
        against: An earlier export, all of whose lines must still be there.
        now: The time (aware).

    Raises:
        ConfigurationError: `against` is not an export.
    """
    report, chains, witnesses = AuditReport(), dict[str, _Chain](), set[_Witness]()
    if against is not None:
        witnesses.update(_exported(against))
    for name, store in stores.items():
        try:
            store.check()
            chain = chains[name] = _Chain(store)
            for one in _read(chain, report):
                witnesses.update(one)
        except BackupError as error:
            chains.pop(name, None)
            report.unknown[name] = str(error)
            continue
        if chain.digests:
            report.heads[name] = Head(
                chain=chain.name or "?",
                sequence=len(chain.digests),
                digest=chain.digests[-1].hex() or NOTHING,
            )
    try:
        witnesses.update(_anchors(catalog))
    except BackupError as error:
        report.unknown["the catalog"] = str(error)
    _hear(witnesses, chains, report, retired=frozenset(retired))
    _compare(chains, report, before=(now or datetime.now(UTC)) - _IN_FLIGHT)
    return report


def export(store: Store, out: TextIO) -> int:
    """Write every line of a store's chain to `out`, one a line, as it is; return how many.

    Raises:
        DamagedError: A line is damaged or missing: such a trail is no evidence; verify names it.
        BackupError: The store's own.
    """
    count = 0
    for block in blocks(store):
        for sequence, data in _fetched(store, block):
            count += 1
            if data is None or sequence != count:
                raise DamagedError(
                    f"{store.name} has no line {count} of the audit trail",
                    remedy="Run `neuroca-backup audit verify`, and export another store's.",
                    store=store.name,
                )
            Line.decode(data, name=f"{store.name}:{key_of(sequence)}")
            out.write(data.decode() + "\n")
    return count


def _read(chain: _Chain, report: AuditReport) -> Iterator[Iterator[_Witness]]:
    """Read a chain from its first line to its last; yield whom each line saw."""
    store, expected, before = chain.store, 1, NOTHING
    for stranger in (one.key for one in store.list(PREFIX) if sequence_of(one.key) is None):
        _find(report, store, stranger, "is not a line of the trail")
    for block in blocks(store):
        for sequence, data in _fetched(store, block):
            while expected < sequence:
                _find(report, store, key_of(expected), "is missing")
                chain.digests.append(b"")
                expected, before = expected + 1, ""
            if data is None:
                _find(report, store, key_of(sequence), "was removed while the trail was read")
            line = None if data is None else _line(chain, report, sequence, data, before)
            before = "" if data is None else digest_of(data)
            chain.digests.append(bytes.fromhex(before))
            expected = sequence + 1
            if line is not None:
                yield _seen(store, line)


def _line(
    chain: _Chain, report: AuditReport, sequence: int, data: bytes, before: str
) -> Line | None:
    """Return a line, held against the digest of the one `before` it ("" if that is unknown)."""
    store, key = chain.store, key_of(sequence)
    try:
        line = Line.decode(data, name=key)
    except DamagedError:
        _find(report, store, key, "was edited or damaged: its bytes are not what was written")
        return None
    if line.sequence != sequence:
        _find(report, store, key, f"is line {line.sequence}, put into another place")
        return line
    chain.name = chain.name or line.chain
    if line.chain != chain.name:
        _find(report, store, key, f"is of another chain, {line.chain}")
    elif before and line.previous != before:
        last = key_of(sequence - 1) if sequence > 1 else "nothing"
        _find(report, store, key, f"does not continue {last}: one of the two was replaced")
    known = chain.events.get(line.event.id)
    digest = bytes.fromhex(line.event.sha256)
    if known is not None and known[0] != digest:
        _find(report, store, key, f"tells event {line.event.id} otherwise than {key_of(known[1])}")
    chain.events.setdefault(line.event.id, (digest, sequence, line.event.at.timestamp()))
    return line


def _hear(
    witnesses: Iterable[_Witness],
    chains: Mapping[str, _Chain],
    report: AuditReport,
    *,
    retired: frozenset[str],
) -> None:
    """Hold every head that somebody saw against the chain that it was the head of."""
    named = {chain.name: chain for chain in chains.values() if chain.name}
    told: set[tuple[str, int]] = set()
    missing: dict[str, list[_Witness]] = {}
    for one in sorted(witnesses, key=lambda one: (one.chain, one.sequence, one.where)):
        chain, place = named.get(one.chain), (one.chain, one.sequence)
        if chain is None:
            missing.setdefault(one.chain, []).append(one)
        elif place not in told and not _stands(chain, one):
            told.add(place)
            there = one.sequence <= len(chain.digests) and chain.digests[one.sequence - 1]
            problem = "was replaced" if there else f"is gone, {_CUT_SHORT}"
            _find(report, chain.store, key_of(one.sequence), f"{problem}: {one.where} saw it")
    for name, seen in missing.items():
        if name in retired or report.unknown.keys() - {"the catalog"}:
            continue  # it may be the chain of the store that does not answer
        last = seen[-1]
        report.findings.append(
            AuditFinding(
                store="no store",
                key=key_of(last.sequence),
                problem=f"the chain {name} is gone, of which {last.where} saw this line",
            )
        )


def _stands(chain: _Chain, seen: _Witness) -> bool:
    if seen.sequence <= len(chain.digests):
        return chain.digests[seen.sequence - 1] == seen.digest
    try:  # it may have been written since this chain was read
        return digest_of(chain.store.get(key_of(seen.sequence))) == seen.digest.hex()
    except NotFoundError:
        return False


def _compare(chains: Mapping[str, _Chain], report: AuditReport, *, before: datetime) -> None:
    """Hold the events of every store against those of the others."""
    every: dict[str, tuple[bytes, str, int, float]] = {}
    for name, chain in chains.items():
        for event_id, (digest, sequence, at) in chain.events.items():
            first = every.setdefault(event_id, (digest, name, sequence, at))
            if first[0] != digest:
                where = f"{first[1]}:{key_of(first[2])}"
                _find(report, chain.store, key_of(sequence), f"tells its event otherwise: {where}")
    for name, chain in chains.items():
        lacking = [
            f"{where}:{key_of(sequence)}"
            for event_id, (_, where, sequence, at) in every.items()
            if event_id not in chain.events and at < before.timestamp()
        ]
        if lacking:
            more = len(lacking) - _NAMED
            report.lacking[name] = lacking[:_NAMED] + ([f"and {more:,} more"] if more > 0 else [])


def _fetched(store: Store, block: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Yield the bytes of each line; None of one that was removed since it was listed."""

    def get(sequence: int) -> bytes | None:
        try:
            return store.get(key_of(sequence))
        except NotFoundError:
            return None

    yield from zip(block, pipeline.in_parallel(get, block, workers=_READERS), strict=True)


def _seen(store: Store, line: Line) -> Iterator[_Witness]:
    return (_Witness.of(head, f"{store.name}:{line.key}") for head in line.seen)


def _anchors(catalog: Catalog) -> Iterator[_Witness]:
    """Yield the heads that the catalog's events name."""
    for event in catalog.events(limit=_ANCHORS):
        for anchors in (event.details.get("audit") or {}).values():
            for chain, place in anchors.items():
                sequence, _, digest = str(place).partition(":")
                try:
                    head = Head(chain=chain, sequence=int(sequence), digest=digest)
                except (ValueError, ValidationError):
                    log.warning("An event of the catalog names no line: %s", place)
                    continue
                yield _Witness.of(head, f"the catalog's event of {event.at.isoformat()}")


def _exported(path: Path) -> Iterator[_Witness]:
    """Yield every line of an export as something that was seen."""
    try:
        with path.open(encoding="utf-8") as opened:
            for number, text in enumerate(opened, start=1):
                data = text.rstrip("\n").encode()
                yield _Witness.of(
                    Line.decode(data, name=f"{path}:{number}").head, f"{path}:{number}"
                )
    except (OSError, UnicodeDecodeError, DamagedError) as error:
        raise ConfigurationError(
            f"{path} is not an export of the audit trail: {error}",
            remedy="Name a file that `neuroca-backup audit export` wrote.",
            value=str(path),
        ) from None


def _find(report: AuditReport, store: Store, key: str, problem: str) -> None:
    report.findings.append(AuditFinding(store=store.name, key=key, problem=problem))
