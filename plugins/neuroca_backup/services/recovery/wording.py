"""What the report says in words, whether as Markdown or as HTML: the same words in both."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from neuroca_backup.model import quantity
from neuroca_backup.model.recovery_report import Check, ObjectiveReport, Report, SourceReport

SHOWN_DIGITS = 12
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
LESSONS = (
    ("What went well", "What helped, and should stay as it is?"),
    ("What went badly", "What cost time, data or nerves?"),
    ("Where we were lucky", "What would have hurt on another day?"),
    ("What caused it", "Why did it happen, and why was it not noticed earlier?"),
    ("What we change", "Each with a name and a date."),
)


def title(report: Report) -> str:
    """Return the report's title."""
    return "Recovery drill" if report.drill else "Disaster recovery"


def verdict(report: Report) -> tuple[bool, str]:
    """Return whether all is well, and in a sentence what the report comes to."""
    missing = [one.source for one in report.sources if one.back_at is None]
    missing += [one.check for one in report.checks if not one.passed]
    missed = [one.objective for one in report.objectives if one.state not in {"met", "running"}]
    running = [one.objective for one in report.objectives if one.state == "running"]
    told = []
    if missing:
        told.append(f"{'Still open' if running else 'Not back'}: {', '.join(missing)}.")
    elif report.sources:
        told.append("Everything is back and checked.")
    if missed:
        told.append(f"Recovery time missed: {', '.join(missed)}.")
    elif report.objectives and not running:
        told.append("Every recovery time objective was met.")
    lost = [one.source for one in report.sources if one.within_rpo is False]
    if lost:
        told.append(f"More data lost than allowed: {', '.join(lost)}.")
    if report.findings:
        told.append("The journal was not whole when this was written.")
    if report.unreachable:
        silent = ", ".join(report.unreachable)
        told.append(f"{silent} did not answer: what only that store has is missing here.")
    good = bool(report.complete and report.sources) and not (missed or lost or running)
    return good, " ".join(told)


def figures(report: Report) -> list[tuple[str, str]]:
    """Return the numbers that everybody asks for first."""
    back = [one for one in report.sources if one.back_at is not None]
    total = max((one.used_seconds for one in report.objectives), default=0.0)
    return [
        ("Time so far" if report.ended_at is None else "Recovery time", span(total)),
        ("Data lost at most", seconds(report.lost_seconds)),
        ("Skew", seconds(report.skew_seconds)),
        ("Sources back", f"{len(back)} of {len(report.sources)}"),
    ]


def objective_row(one: ObjectiveReport) -> list[str]:
    """Return objective, outcome, time used, limit, share and what is open."""
    rest = ", ".join(one.open) or "-"
    share = f"{one.used_seconds / one.limit_seconds:.0%}"
    used, limit = span(one.used_seconds), span(one.limit_seconds)
    if one.forecast_seconds is not None:
        rest += f" (forecast: all back after {span(one.forecast_seconds)})"
    return [one.objective, one.state, used, limit, share, rest]


def source_row(one: SourceReport) -> list[str]:
    """Return source, outcome, when it was back, backup, stores, data lost and its objective."""
    if one.covered_by:
        outcome = f"back with {one.covered_by}" if one.back_at else f"left to {one.covered_by}"
    elif one.stage == "restored":
        outcome = "restored, not checked"
    else:
        outcome = one.stage
    within = {True: "within", False: "MISSED", None: "-"}[one.within_rpo]
    return [
        one.source,
        outcome,
        "-" if one.back_seconds is None else f"after {quantity.duration(one.back_seconds)}",
        one.backup_id or "-",
        one.stores or "-",
        "-" if one.size is None else quantity.size(one.size),
        seconds(one.lost_seconds),
        within,
    ]


def check_row(one: Check) -> list[str]:
    """Return check, outcome, time and problem."""
    passed = {True: "passed", False: "FAILED", None: "never ran"}[one.passed]
    return [one.check, passed, "-" if one.at is None else moment(one.at), one.problem or "-"]


def tables(report: Report) -> list[tuple[str, Sequence[str], Sequence[Sequence[str]]]]:
    """Return every table that comes before the lessons: its title, its heads, its rows."""
    return [
        (
            "Recovery time objectives",
            ["Objective", "Outcome", "Time used", "Limit", "Share", "Open"],
            [objective_row(one) for one in report.objectives],
        ),
        (
            "What was restored",
            ["Source", "Outcome", "Back", "Backup", "From", "Size", "Data lost", "RPO"],
            [source_row(one) for one in report.sources],
        ),
        ("Fallbacks", ["Source", "What and why"], fallbacks(report)),
        (
            "Failures",
            ["Time", "What", "Problem", "Remedy"],
            [
                [moment(one.at), one.subject or "-", one.problem, one.remedy or "-"]
                for one in report.failures
            ],
        ),
        (
            "Approvals",
            ["Time", "Decision", "By", "Plan", "Comment"],
            [
                [
                    moment(one.at),
                    one.kind,
                    one.actor,
                    one.plan[:SHOWN_DIGITS] or "-",
                    one.comment or "-",
                ]
                for one in report.decisions
            ],
        ),
        (
            "Checks of the system",
            ["Check", "Outcome", "Time", "Problem"],
            [check_row(one) for one in report.checks],
        ),
        ("The journal when this was written", ["Where", "What"], journal(report)),
    ]


def events(report: Report) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
    """Return the table of all events."""
    rows = [
        [
            moment(one.at),
            span(max(one.seconds, 0.0)),
            one.kind,
            one.subject or "-",
            one.actor,
            details(one.details) or "-",
        ]
        for one in report.events
    ]
    return "Everything that happened", ["Time", "After", "What", "Of", "By", "Details"], rows


def fallbacks(report: Report) -> list[tuple[str, str]]:
    """Return every source that did not come from its nearest, newest copy, with why."""
    return [
        (one.source, told)
        for one in report.sources
        for told in (one.passed_over, one.fallbacks)
        if told
    ]


def journal(report: Report) -> list[tuple[str, str]]:
    """Return what was wrong with the journal when the report was made."""
    silent = [(name, f"did not answer: {why}") for name, why in report.unreachable.items()]
    return [*silent, *(("journal", one) for one in report.findings)]


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what was declared, in words."""
    ended = "it goes on" if report.ended_at is None else moment(report.ended_at)
    outcome = f", {report.outcome}" if report.outcome else ""
    return [
        ("Recovery", report.recovery_id),
        ("What happened", report.what),
        ("Counts from", moment(report.declared_at)),
        ("Declared", f"{moment(report.recorded_at)} by {report.actor}"),
        ("Lost", ", ".join(report.components)),
        ("Restored to", report.target),
        ("Ended", f"{ended}{outcome}"),
        ("Written", moment(report.written_at)),
    ]


def seconds(value: float | None) -> str:
    """Return a time that may not be known."""
    return "not known" if value is None else span(value)


def span(value: float) -> str:
    """Return seconds as a person would say them, nothing as nothing."""
    return "0 s" if value < 0.5 else quantity.duration(value)


def moment(value: datetime) -> str:
    """Return a moment in UTC, to the second."""
    return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def details(values: Mapping[str, object]) -> str:
    """Return the details of an event in one line: digests cut, those that are empty left out."""
    shown = ((name, value) for name, value in values.items() if value is not None and value != "")
    return ", ".join(f"{name.replace('_', ' ')}: {_digest(value)}" for name, value in shown)


def _digest(value: object) -> str:
    return _SHA256.sub(lambda found: f"{found[0][:SHOWN_DIGITS]}…", str(value))
