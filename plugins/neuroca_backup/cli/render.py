"""What the command prints on stdout: tables for people, JSON for programs.

To a pipe it is plain text, every line as long as its content needs.
"""

# ruff: noqa: PLC0415 - `--help` must not pay for rich

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from neuroca_backup.model.identity import Component
from neuroca_backup.model.quantity import size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from neuroca_backup.catalog import AuditEvent, CatalogEntry, RestoreRecord
    from neuroca_backup.cli.restore_many import Result
    from neuroca_backup.keyring.keys_document import KeysDocument
    from neuroca_backup.model.manifest import Manifest
    from neuroca_backup.model.status import Verification
    from neuroca_backup.model.tickets import FetchReport
    from neuroca_backup.services.configure import ConfigureReport
    from neuroca_backup.services.inventory import Listed
    from neuroca_backup.services.proposal import Item

_TIME = "%Y-%m-%d %H:%M:%S"
# Wider than any line; rich cuts tables at the console's width.
_PIPE_WIDTH = 100_000


def say(text: str) -> None:
    """Print one sentence."""
    _console().print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on the step before."""
    say(f"           {text}")


def step(name: str, ended: str, seconds: float) -> None:
    """Print how a step of a restore ended."""
    say(f"{name:<10} {ended} in {seconds:.1f} s")


def configured(found: ConfigureReport) -> None:
    """Print what backup.yaml means."""
    from neuroca_backup.settings import format_duration

    say(f"{found.path} was written; edit it." if found.created else f"{found.path} is valid.")
    shown = table("component", "schedule", "next run (UTC)", "kept", "RPO", "sources")
    for one in found.plan:
        shown.add_row(
            one.component.value,
            one.cron or "by hand",
            ", ".join(run.strftime("%Y-%m-%d %H:%M") for run in one.next_runs[:1]) or "-",
            format_duration(one.retention),
            "-" if one.rpo is None else format_duration(one.rpo),
            ", ".join(one.sources) or "none",
        )
    show(shown)
    for warning in found.warnings:
        say(f"warning: {warning}")


def backups(
    found: Iterable[Listed],
    *,
    stores: Sequence[str],
    unreachable: Mapping[str, str],
    now: datetime,
    otherwise: str | None = None,
) -> int:
    """Print a table of backups and return how many; a store that does not answer is named below.

    `unreachable` may grow while `found` is read; `otherwise` is said where nothing is found.
    """
    shown = table(
        *("backup", "kind", "class", "time (UTC)", "age", "unchanged"),
        *("size", "stored", "ratio", *stores),
    )
    for one in found:
        manifest = one.manifest
        numbers = ("?", "?", "?")
        if manifest is not None:
            numbers = (
                size(manifest.plain_size),
                size(manifest.stored_size),
                f"{_ratio(manifest.plain_size, manifest.stored_size):.2f}",
            )
        shown.add_row(
            one.ref.backup_id,
            _kind(manifest),
            "?" if manifest is None else manifest.classification,
            one.ref.time.strftime(_TIME),
            age(now - one.ref.time),
            "-" if one.checked_at is None else f"{age(now - one.checked_at)} ago",
            *numbers,
            *(_state(one, store, unreachable) for store in stores),
        )
    if shown.row_count:
        show(shown)
    else:
        answered = ", ".join(store for store in stores if store not in unreachable)
        say(otherwise or f"No backups were found in {answered}.")
    for store, problem in unreachable.items():
        say(f"{store} did not answer: {problem}")
    return shown.row_count


def backups_json(found: Iterable[Listed], *, unreachable: Mapping[str, str], now: datetime) -> int:
    """Print backups as JSON and return how many; docs/reference/command.md describes the keys."""
    listed = [
        {**_summary(one), "age_seconds": int((now - one.ref.time).total_seconds())} for one in found
    ]
    print_json({"backups": listed, "unreachable": dict(unreachable)})
    return len(listed)


def backup(
    found: Listed,
    *,
    keys: Mapping[str, KeysDocument],
    key_problems: Mapping[str, str],
    chain: Sequence[str],
    chain_problem: str,
) -> None:
    """Print all about one backup; `chain` are the ids that a restore of it needs."""
    manifest = found.manifest
    end = found.erase_after
    expired = "" if end is None else f", EXPIRED: can be taken back until {end.strftime(_TIME)} UTC"
    say(f"backup      {found.ref.backup_id}{expired}")
    if manifest is not None:
        _manifest(manifest)
    if found.checked_at is not None:
        noted = ", ".join(sorted(found.checks))
        say(f"{'unchanged':<11} at {found.checked_at.strftime(_TIME)} UTC (noted in {noted})")
    for number, one in enumerate(chain if len(chain) > 1 else ()):
        say(f"{'' if number else 'chain':<11} {'  ' * number}{'-> ' if number else ''}{one}")
    if chain_problem:
        say(f"{'chain':<11} BROKEN: {chain_problem}")
    for store in sorted({*found.manifests, *found.problems}):
        say(f"{store:<11} {_verdict(found, store)}")
    for label, stores in _openers(keys).items():
        say(f"{'opened by':<11} {label} (keys in {', '.join(stores)})")
    for store, problem in key_problems.items():
        say(f"{'keys':<11} {store}: {problem}")
    if manifest is not None:
        shown = table("member", "size", "stored", "SHA-256")
        for member in manifest.members:
            shown.add_row(
                member.name,
                f"{member.plain.size:,}",
                f"{member.stored.size:,}",
                member.plain.sha256,
            )
        show(shown)


def backup_json(
    found: Listed,
    *,
    keys: Mapping[str, KeysDocument],
    key_problems: Mapping[str, str],
    chain: Sequence[str],
    chain_problem: str,
) -> None:
    """Print all about one backup as JSON."""
    manifest = found.manifest
    print_json(
        {
            **_summary(found),
            "manifest": None if manifest is None else manifest.model_dump(mode="json"),
            "consistent_at": None if manifest is None else manifest.dump.consistent_at.isoformat(),
            "chain": list(chain),
            "chain_problem": chain_problem or None,
            "verifications": {
                store: one.model_dump(mode="json") | {"level": one.level.name.lower()}
                for store, one in found.verifications.items()
            },
            "recipients": [
                {"recipient": label, "stores": stores} for label, stores in _openers(keys).items()
            ],
            "key_problems": dict(key_problems),
        }
    )


def proposed(item: Item) -> None:
    """Print what will be restored, and how long it will take."""
    for text in item.lines():
        say(text)


def fetched(report: FetchReport) -> None:
    """Print where the bytes came from, and why not from elsewhere."""
    for store, count in report.bytes_by_store.items():
        note(f"{size(count)} from {store}")
    for text in report.fallbacks:
        note(text)


def restored(results: Iterable[Result]) -> None:
    """Print what became of every source."""
    shown = table("component", "source", "backup", "size", "seconds", "outcome")
    for one in results:
        shown.add_row(
            one.component,
            one.source,
            one.backup_id,
            size(one.size) if one.size else "-",
            f"{one.seconds:.1f}" if one.seconds else "-",
            one.outcome,
        )
    say("")
    show(shown)


def catalog(
    *,
    connection: str,
    entries: Sequence[CatalogEntry],
    restores: Sequence[RestoreRecord],
    events: Sequence[AuditEvent],
) -> None:
    """Print what the catalog knows."""
    say(f"The catalog {connection} answers: {len(entries):,} backups.")
    newest: dict[tuple[Component, str], list[CatalogEntry]] = {}
    for entry in entries:
        newest.setdefault((entry.component, entry.source), []).append(entry)
    shown = table("component", "source", "backups", "newest", "levels")
    for (component, source), held in sorted(newest.items()):
        levels = ", ".join(f"{s} {one.name.lower()}" for s, one in held[0].levels.items())
        shown.add_row(component.value, source, f"{len(held):,}", held[0].backup_id, levels)
    if newest:
        show(shown)
    for one in restores:
        say(
            f"restore  {one.finished_at.strftime(_TIME)}  {one.backup_id} to {one.target}: "
            f"{one.outcome}, {sum(one.seconds.values()):.1f} s, by {one.actor}"
        )
    for event in events:
        say(f"event    {event.at.strftime(_TIME)}  {event.action} {event.subject} by {event.actor}")


def age(passed: timedelta) -> str:
    """Return `passed` in its largest unit: `3 h`, `2 d`."""
    seconds = int(passed.total_seconds())
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{max(seconds, 0)} s"


def _summary(found: Listed) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "backup_id": found.ref.backup_id,
        "set_id": found.ref.set_id,
        "component": found.ref.component.value,
        "source": found.ref.source,
        "time": found.ref.time.isoformat(),
        "engine": None if manifest is None else manifest.engine,
        "kind": None if manifest is None else manifest.kind,
        "parent": None if manifest is None else manifest.parent,
        "before_restore": None if manifest is None else manifest.before_restore or None,
        "classification": None if manifest is None else manifest.classification,
        "plain_size": None if manifest is None else manifest.plain_size,
        "stored_size": None if manifest is None else manifest.stored_size,
        "own_size": None if manifest is None else manifest.own_size,
        "refers_to": [] if manifest is None else _refers_to(manifest),
        "verified": found.verified,
        "expired": found.expired,
        "erase_after": None if found.erase_after is None else found.erase_after.isoformat(),
        "unchanged_at": None if found.checked_at is None else found.checked_at.isoformat(),
        "current_at": None if found.current_at is None else found.current_at.isoformat(),
        "stores": {store: _copy_json(found.verifications.get(store)) for store in found.manifests},
        "problems": dict(found.problems),
    }


def _manifest(manifest: Manifest) -> None:
    ratio = _ratio(manifest.plain_size, manifest.stored_size)
    rows = {
        "set": manifest.set_id,
        "source": f"{manifest.source} ({manifest.component})",
        "engine": f"{manifest.engine}, server {manifest.dump.server_version}",
        "kind": manifest.kind + (f", continues {manifest.parent}" if manifest.parent else ""),
        **({"saved": f"before {manifest.before_restore}"} if manifest.before_restore else {}),
        "taken": f"{manifest.started_at.strftime(_TIME)} to "
        f"{manifest.finished_at.strftime(_TIME)} UTC",
        "expires": "never"
        if manifest.expires_at is None
        else manifest.expires_at.strftime(_TIME) + " UTC",
        "class": manifest.classification,
        "hold": "yes" if manifest.hold else "no",
        "size": f"{size(manifest.plain_size)}, stored {size(manifest.stored_size)} "
        f"(ratio {ratio:.2f})",
        **_references(manifest),
        "stages": " > ".join(manifest.stages),
        "made by": manifest.product,
    }
    for word, text in rows.items():
        say(f"{word:<11} {text}")
    say(f"{'restores':<11} the state of {manifest.dump.consistent_at.strftime(_TIME)} UTC")
    for word, text in manifest.dump.consistency.items():
        if word != "time":
            say(f"{'consistent':<11} {word} {text}")
    for text in manifest.dump.notes:
        say(f"{'note':<11} {text}")


def _refers_to(manifest: Manifest) -> list[str]:
    """Return the ids of the earlier backups that hold members of this one."""
    from neuroca_backup.services import needs

    return sorted(needs.origins(manifest))


def _references(manifest: Manifest) -> dict[str, str]:
    """Return the row that says how much of a backup lies in earlier ones, or none."""
    held = _refers_to(manifest)
    if not held:
        return {}
    rest = len(manifest.members) - len(manifest.own)
    return {
        "refers to": f"{rest:,} members of {', '.join(held)}; {size(manifest.own_size)} are its own"
    }


def _kind(manifest: Manifest | None) -> str:
    """Return `full`, or an arrow to the backup that is continued, without the source's name."""
    if manifest is None:
        return "?"
    if manifest.parent is not None:
        return f"-> {manifest.parent.removesuffix(f'-{manifest.source}')}"
    return f"{manifest.kind}, saved" if manifest.before_restore else manifest.kind


def _copy_json(check: Verification | None) -> dict[str, Any]:
    if check is None:
        return {"level": None, "sound": None, "findings": 0, "checked_at": None}
    return {
        "level": check.level.name.lower(),
        "sound": check.sound,
        "findings": len(check.findings),
        "checked_at": check.checked_at.isoformat(),
    }


def _state(found: Listed, store: str, unreachable: Mapping[str, str]) -> str:
    if store in found.manifests:
        if found.expired:
            return "expired"
        check = found.verifications.get(store)
        if check is None:
            return "damaged" if store in found.problems else "unchecked"
        return "damaged" if check.findings else check.level.name.lower()
    if store in unreachable:
        return "no answer"
    return "damaged" if store in found.problems else "absent"


def _verdict(found: Listed, store: str) -> str:
    if store in found.problems:
        return found.problems[store]
    check = found.verifications.get(store)
    if check is None:
        return "there, never checked"
    when = f"{check.checked_at.strftime(_TIME)} UTC in {check.seconds:.1f} s"
    if not check.findings:
        proven = "" if check.proven_at is None else f" {check.proven_at.strftime(_TIME)} UTC"
        return f"{check.level.name.lower()}{proven}, checked {when}"
    listed = "; ".join(f"{finding.key} {finding.problem}" for finding in check.findings)
    return f"DAMAGED, checked {when}: {listed}"


def _openers(keys: Mapping[str, KeysDocument]) -> dict[str, list[str]]:
    openers: dict[str, list[str]] = {}
    for store, document in keys.items():
        for recipient in document.recipients:
            openers.setdefault(recipient.label, []).append(store)
    return openers


def _ratio(plain: int, stored: int) -> float:
    return plain / stored if stored else 0.0


def print_json(body: dict[str, Any]) -> None:
    """Print `body` as indented JSON."""
    json.dump(body, sys.stdout, indent=2)
    sys.stdout.write("\n")


def show(filled: Table) -> None:
    """Print a table."""
    _console().print(filled)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def table(first: str, *others: str) -> Table:
    """Return an empty table with these columns."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    made.add_column(first, overflow="fold")
    for other in others:
        made.add_column(other, overflow="fold")
    return made
