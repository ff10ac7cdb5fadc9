"""`objectives`: whether the recovery objectives are kept right now."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the command needs

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroca_backup.cli import render
from neuroca_backup.cli.reporting import ExitCode
from neuroca_backup.cli.session import Keys, Session
from neuroca_backup.model.identity import Component
from neuroca_backup.model.quantity import duration, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuroca_backup.services.forecast import Outlook, Range
    from neuroca_backup.services.history import History
    from neuroca_backup.services.objectives.watching import Report
    from neuroca_backup.settings import Settings

_SCHEDULES = (
    "Whether the schedules run is not looked at here: Airflow knows that, and the DAG "
    "monitor_objectives asks it."
)


def objectives(
    context: typer.Context,
    *,
    component: Annotated[
        Component | None, typer.Option(help="Only this component.", case_sensitive=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how old the newest verified backups are, and how long a restore would take.

    Exits with 1 where an objective is missed, or where it is not known whether it is kept.
    """
    from neuroca_backup.services.objectives.findings import Level, worst

    session = Session.of(context)
    found = session.runtime(Keys.NONE).objectives.report(component)
    level = worst(found.findings)
    if as_json:
        render.print_json(_json(found, level.word))
    else:
        _show(found, session.settings)
    if level is Level.BREACH:
        raise typer.Exit(ExitCode.FAILED)


def _show(found: Report, settings: Settings) -> None:
    from neuroca_backup.services.objectives.findings import Kind

    _ages(found)
    _forecasts(found.outlook, settings)
    _histories(found.histories)
    ages = {Kind.RPO}
    for one in sorted(found.findings, key=lambda one: (-one.level, one.key)):
        if one.level and (one.kind not in ages or one.subject):
            render.say(f"{one.level.name}: {one.sentence}")
    if not any(one.level for one in found.findings):
        render.say("Every objective is kept.")
    render.say(_SCHEDULES)


def _ages(found: Report) -> None:
    """Print a line for each component and, below it, for each of its sources."""
    from neuroca_backup.services.objectives.findings import Kind

    proofs = {(one.component.value, one.source): one.proof for one in found.facts.sources}
    ages = [one for one in found.findings if one.kind is Kind.RPO and one.component]
    shown = render.table(
        *("component", "source", "last verified (UTC)", "age", "RPO", "state", "verified in")
    )
    for one in sorted(
        ages, key=lambda one: (list(Component).index(Component(one.component)), one.subject)
    ):
        proof = proofs.get((one.component, one.subject))
        at = "" if proof is None else proof.current_at.strftime("%Y-%m-%d %H:%M")
        shown.add_row(
            one.component,
            one.subject or "all",
            at or ("-" if one.subject else ""),
            _hours(one.age),
            _hours(one.limit),
            one.level.word,
            ", ".join(sorted(proof.stores)) if proof else "",
        )
    if ages:
        render.show(shown)
    render.say("")


def _forecasts(seen: Outlook, settings: Settings) -> None:
    from neuroca_backup.services.objectives.recovery import FULL_SYSTEM

    rto = settings.objectives.rto
    limits = {Component.DATABASE: rto.database, Component.MEMORY_TIERS: rto.memory_tiers}
    shown = render.table("restore of", "alone", "after what goes before it", "RTO", "measured")
    for component, alone in seen.alone.items():
        reached = seen.reached.get(component)
        shown.add_row(
            component.value,
            _range(alone),
            _range(reached),
            _limit(limits.get(component)),
            "yes" if alone.measured else "no",
        )
    full = seen.full_system
    shown.add_row(
        FULL_SYSTEM,
        "",
        _range(full),
        _limit(rto.full_system),
        "yes" if full is not None and full.measured else "no",
    )
    render.show(shown)
    render.say(
        "A full recovery: the configuration, then the databases side by side, then the memory "
        "tiers, the models and the logs; each step as long as its longest source."
    )
    render.say("")


def _histories(histories: Mapping[tuple[Component, str], History]) -> None:
    shown = render.table(
        *("source", "restores", "restore tests", "last test (UTC)", "p50", "p95", "trend")
    )
    for (_, source), one in histories.items():
        shown.add_row(
            source,
            str(one.restores),
            str(one.tests),
            "never" if one.last_test is None else one.last_test.strftime("%Y-%m-%d %H:%M"),
            _rate(one.p50),
            _rate(one.p95),
            str(one.trend),
        )
    if histories:
        render.show(shown)
    render.say("")


def _json(found: Report, level: str) -> dict[str, Any]:
    seen = found.outlook
    return {
        "at": found.at.isoformat(),
        "level": level,
        "findings": [one.to_json() for one in found.findings],
        "sources": [
            {
                "component": one.component.value,
                "source": one.source,
                "backup_id": one.proof.backup_id if one.proof else None,
                "current_at": one.proof.current_at.isoformat() if one.proof else None,
                "verified_in": sorted(one.proof.stores) if one.proof else [],
                "plain_size": one.proof.plain_size if one.proof else None,
                "unchanged": one.proof.unchanged if one.proof else False,
            }
            for one in found.facts.sources
        ],
        "forecast": {
            "alone": {c.value: _range_json(one) for c, one in seen.alone.items()},
            "reached": {c.value: _range_json(one) for c, one in seen.reached.items()},
            "full_system": _range_json(seen.full_system),
            "unknown": [source for _, source in seen.unknown],
        },
        "history": {source: one.to_json() for (_, source), one in found.histories.items()},
    }


def _range_json(one: Range | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "low_seconds": one.low,
        "seconds": one.seconds,
        "high_seconds": one.high,
        "measured": one.measured,
        "basis": one.basis,
    }


def _range(one: Range | None) -> str:
    return "not known" if one is None else f"{duration(one.low)} to {duration(one.high)}"


def _hours(period: float | None) -> str:
    from neuroca_backup.services.objectives.findings import hours

    return "-" if period is None else hours(period)


def _limit(period: timedelta | None) -> str:
    return "-" if period is None else _hours(period.total_seconds())


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{size(round(rate))}/s"
