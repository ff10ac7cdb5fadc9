"""The report of a recovery, made from its journal alone; writing it beside the backups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

from neuroca_backup.model.recovery import Declared, Event, EventKind
from neuroca_backup.model.recovery_report import (
    Attempt,
    Check,
    Decision,
    Failure,
    Happened,
    ObjectiveReport,
    Report,
    SourceReport,
    Warned,
)
from neuroca_backup.services.recovery import clock
from neuroca_backup.services.recovery.clock import State
from neuroca_backup.services.recovery.journal import Journal, Reading
from neuroca_backup.services.recovery.lessons import NOT_MET, questions
from neuroca_backup.services.recovery.report_html import html
from neuroca_backup.services.recovery.report_markdown import markdown
from neuroca_backup.services.recovery.states import Stage, States, number
from neuroca_backup.settings import Settings

FORMATS = ("json", "md", "html")
_DECISIONS = {EventKind.APPROVED, EventKind.REJECTED, EventKind.CONFIRMED, EventKind.REDIRECTED}
_NONE: Mapping[str, float] = MappingProxyType({})


def write(journal: Journal, *, now: datetime, rpo: Mapping[str, float] = _NONE) -> Report:
    """Make the report and keep it in every store that answers; copy there what they lack.

    `rpo` are the recovery point objectives by source, in seconds.

    Raises:
        BackupError: The journal cannot be read, or no store takes the report.
    """
    journal.spread()
    report = build(journal.read(tolerant=True), now=now, rpo=rpo)
    for form in FORMATS:
        journal.attach(f"report.{form}", render(report, form=form).encode())
    return report


def render(report: Report, *, form: str) -> str:
    """Return the report as `json`, `md` or `html`."""
    if form == "json":
        body = report.model_dump(mode="json")
        return json.dumps(body, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return {"md": markdown, "html": html}[form](report)


def rpo_of(settings: Settings, sources: Iterable[str]) -> dict[str, float]:
    """Return the recovery point objective of every source that has one, in seconds."""
    found: dict[str, float] = {}
    for name in sources:
        source = settings.source(name)
        limit = None if source is None else settings.objectives.rpo.of(source.component)
        if limit is not None:
            found[name] = limit.total_seconds()
    return found


def build(reading: Reading, *, now: datetime, rpo: Mapping[str, float] = _NONE) -> Report:
    """Return the report of what was read; while the recovery goes on, as it stands at `now`."""
    declared, states = reading.declared, States(reading.events)
    until = now if states.ended is None else states.ended.at
    sources = tuple(
        _source(name, declared, reading.events, states, rpo=rpo.get(name))
        for name in declared.sources
    )
    objectives = tuple(_objective(name, reading, now=until) for name in declared.objectives)
    checks = _checks(declared, reading.events)
    points = [one.consistent_at for one in sources]
    known = [point for point in points if point is not None]
    whole = bool(known) and len(known) == len(points)
    failures = tuple(_failures(reading.events))
    decisions = tuple(_decisions(reading.events))
    return Report(
        recovery_id=declared.recovery_id,
        drill=declared.drill,
        what=declared.what,
        target=declared.target,
        actor=declared.actor,
        components=tuple(one.value for one in declared.components),
        declared_at=declared.declared_at,
        recorded_at=declared.recorded_at,
        ended_at=None if states.ended is None else states.ended.at,
        outcome="" if states.ended is None else _text(states.ended, "outcome"),
        written_at=now,
        complete=all(one.back_at is not None for one in sources)
        and all(one.passed for one in checks)
        and not reading.findings,
        lost_seconds=max(one.lost_seconds or 0.0 for one in sources) if whole else None,
        skew_seconds=(max(known) - min(known)).total_seconds() if whole else None,
        objectives=objectives,
        sources=sources,
        checks=checks,
        decisions=decisions,
        failures=failures,
        questions=tuple(questions(declared, sources, objectives, decisions, failures)),
        findings=reading.findings,
        unreachable=dict(reading.unreachable),
        events=tuple(
            Happened(
                at=one.at,
                seconds=round((one.at - declared.declared_at).total_seconds(), 3),
                kind=one.kind.value,
                subject=one.subject,
                actor=one.actor,
                details=one.details,
            )
            for one in reading.events
        ),
    )


def _source(
    name: str,
    declared: Declared,
    events: Sequence[Event],
    states: States,
    *,
    rpo: float | None,
) -> SourceReport:
    state, back_at = states.of(name), states.back_at(name)
    point = _point(states, name)
    # What was brought back from after the disaster has lost nothing.
    lost = None if point is None else max((declared.declared_at - point).total_seconds(), 0.0)
    facts = {} if state.restored is None else dict(state.restored.details)
    size = None if state.restored is None else number(state.restored, "bytes")
    return SourceReport(
        source=name,
        stage=state.stage.value,
        back_at=back_at,
        back_seconds=None if back_at is None else (back_at - declared.declared_at).total_seconds(),
        backup_id=str(facts.get("backup_id") or ""),
        stores=str(facts.get("stores") or ""),
        consistent_at=point,
        lost_seconds=lost,
        rpo_seconds=rpo,
        within_rpo=None if lost is None or rpo is None else lost <= rpo,
        size=None if size is None else int(size),
        seconds=None if state.restored is None else number(state.restored, "seconds"),
        fallbacks=str(facts.get("fallbacks") or ""),
        passed_over=str(facts.get("passed_over") or ""),
        covered_by=state.covered_by,
        reason="" if state.skipped is None else _text(state.skipped, "reason"),
        attempts=tuple(_attempts(one for one in events if one.subject == name)),
    )


def _point(states: States, name: str) -> datetime | None:
    """Return the moment whose state `name` has now; what another brings back has that one's."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        state = states.of(name)
        if not state.covered_by:
            if state.restored is None or state.stage not in {Stage.BACK, Stage.RESTORED}:
                return None
            return _time(state.restored.details.get("consistent_at"))
        name = state.covered_by
    return None


def _attempts(events: Iterable[Event]) -> Iterator[Attempt]:
    """Yield each restore of one source; what began before it was told begins when it was told."""
    current: dict[str, Any] = {}
    for event in events:
        if event.kind is EventKind.STARTED:
            if current:
                yield Attempt(**current)
            current = {
                "started_at": event.at,
                "forecast_seconds": number(event, "forecast_seconds"),
            }
        elif event.kind in {EventKind.RESTORED, EventKind.FAILED, EventKind.CHECKED}:
            current = {"started_at": event.at, **current, "ended_at": event.at}
            if event.kind is EventKind.RESTORED:
                current |= {"restored_at": event.at, "outcome": "restored", "problem": ""}
            elif event.passed:
                current["outcome"] = "back" if "restored_at" in current else "open"
            else:
                current |= {"outcome": "failed", "problem": _text(event, "problem")}
    if current:
        yield Attempt(**current)


def _objective(name: str, reading: Reading, *, now: datetime) -> ObjectiveReport:
    found = clock.progress(reading.declared, reading.events, objective=name, now=now)
    ours = [one for one in reading.events if one.subject == name]
    gone = found.state is State.RUNNING and found.ended
    return ObjectiveReport(
        objective=name,
        state=NOT_MET if gone else found.state.value,
        limit_seconds=found.limit,
        used_seconds=round(found.used, 3),
        forecast_seconds=None if not found.open or found.ended else found.forecast_end,
        open=found.open,
        failed=found.failed,
        warned=tuple(
            Warned(at=one.at, percent=int(number(one, "percent") or 0))
            for one in ours
            if one.kind is EventKind.WARNED
        ),
        breached_at=next((one.at for one in ours if one.kind is EventKind.BREACHED), None),
    )


def _checks(declared: Declared, events: Iterable[Event]) -> tuple[Check, ...]:
    """Return the checks of the whole system, those that never ran, too."""
    newest: dict[str, Event] = {}
    for event in events:
        if event.kind is EventKind.CHECKED and event.subject not in declared.sources:
            newest[event.subject] = event
    wanted = [check for one in declared.objectives.values() for check in one.checks]
    return tuple(
        Check(check=name, passed=None)
        if name not in newest
        else Check(
            check=name,
            passed=newest[name].passed,
            at=newest[name].at,
            problem=_text(newest[name], "problem"),
        )
        for name in dict.fromkeys([*wanted, *newest])
    )


def _decisions(events: Iterable[Event]) -> Iterator[Decision]:
    for one in events:
        if one.kind in _DECISIONS:
            yield Decision(
                at=one.at,
                kind=one.kind.value,
                actor=one.actor,
                plan=_text(one, "plan"),
                comment=_text(one, "comment"),
            )


def _failures(events: Iterable[Event]) -> Iterator[Failure]:
    for one in events:
        if one.kind is EventKind.FAILED or (one.kind is EventKind.CHECKED and not one.passed):
            yield Failure(
                at=one.at,
                subject=one.subject,
                problem=_text(one, "problem") or "no reason was told",
                remedy=_text(one, "remedy"),
            )


def _text(event: Event, detail: str) -> str:
    found = event.details.get(detail)
    return "" if found is None else str(found)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return None if found.tzinfo is None else found
