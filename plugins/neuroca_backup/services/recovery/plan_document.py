"""The plan in words for the people who decide, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from neuroca_backup.model.quantity import duration
from neuroca_backup.services.recovery.plan import (
    Estimate,
    PlannedComponent,
    PlannedSource,
    Reached,
    RecoveryPlan,
)

_TARGETS = {
    "drill": "a drill: throwaway servers of this run, nothing else is written to",
    "new_environment": "a new environment, by its connections",
    "in_place": "IN PLACE: the data of every source at its own address are replaced",
}


def markdown(plan: RecoveryPlan) -> str:
    """Return the whole plan; what cannot be restored stands first, for it decides."""
    return "\n".join(line for part in _parts(plan) for line in part).rstrip() + "\n"


def _parts(plan: RecoveryPlan) -> Iterator[list[str]]:
    yield _head(plan)
    yield _problems(plan)
    yield ["## What comes back", "", *_components(plan.components), ""]
    yield ["## How long it will take", "", *_estimates(plan.estimates), ""]
    yield ["## In this order", "", *_order(plan)]
    yield ["## Who answers", "", *_reached(plan.reached), ""]
    yield _people(plan)
    yield [f"SHA-256 of what will be done: `{plan.sha256}`"]


def _head(plan: RecoveryPlan) -> list[str]:
    wanted = {0: "nobody", 1: "one other person", 2: "two other people"}[plan.approvals]
    return [
        f"# Recovery {plan.recovery_id}",
        "",
        f"- What happened: {_one_line(plan.what_happened)}",
        f"- Declared at {_time(plan.declared_at)}, planned at {_time(plan.made_at)} by "
        f"{plan.actor}",
        f"- Recover to: {plan.recover_to}",
        f"- Target: {_TARGETS[plan.target]}",
        f"- Read from: {plan.prefer_store}; an older verified backup "
        + ("is taken" if plan.allow_older else "is NOT taken")
        + " where no store has one whole",
        f"- To be approved by {wanted}",
        "",
    ]


def _problems(plan: RecoveryPlan) -> list[str]:
    if not plan.problems:
        return []
    lines = [f"- **{source}**: {_one_line(why)}" for source, why in plan.problems.items()]
    return ["## What CANNOT be restored", "", *lines, ""]


def _components(components: Sequence[PlannedComponent]) -> list[str]:
    rows = [
        [
            one.component.value,
            one.set_id or "no set",
            "-" if one.skew_seconds is None else duration(one.skew_seconds),
            "unknown" if one.loss_seconds is None else duration(one.loss_seconds),
            "none" if one.rpo is None else duration(one.rpo.total_seconds()),
            {True: "within", False: "MISSED", None: "not known"}[one.within_rpo],
        ]
        for one in components
    ]
    notes = [
        f"- {one.component.value}: {_one_line(note)}" for one in components for note in one.notes
    ]
    heads = ["Component", "Set", "Skew", "Data lost", "RPO", "Outcome"]
    return [*_table(heads, rows), *([""] if notes else []), *notes]


def _estimates(estimates: Sequence[Estimate]) -> list[str]:
    rows = [
        [
            one.objective,
            duration(one.limit_seconds),
            duration(one.used_seconds),
            duration(max(0.0, one.limit_seconds - one.used_seconds)),
            f"{duration(one.best_seconds)} to {duration(one.worst_seconds)}",
            one.outlook,
        ]
        for one in estimates
    ]
    heads = ["RTO", "Limit", "Gone", "Left", "Restores take", "Outlook"]
    told = "Approvals and new servers come on top. Restores of one priority run side by side."
    return [*_table(heads, rows), "", told]


def _order(plan: RecoveryPlan) -> Iterator[str]:
    for number, (name, _) in enumerate(plan.priorities, 1):
        here = [one for _, one in plan.of(name)]
        if not here:
            continue
        yield f"{number}. **{name}**"
        for one in here:
            yield from (f"   {line}" for line in _source(one))
    yield ""


def _source(one: PlannedSource) -> Iterator[str]:
    if one.plan is None and one.covered_by:
        yield f"- {one.source}: stays as it is in {one.covered_by}, for {one.problem}"
        return
    first, *others = one.item.lines()
    yield f"- {_one_line(first)}"
    yield from (f"  - {_one_line(line)}" for line in others)
    if one.brings_back is not None:
        yield f"  - brings back the state of {_time(one.brings_back)}"
    if one.levels:
        levels = ", ".join(f"{store} {level}" for store, level in one.levels.items())
        yield f"  - proven: {levels}"
    if one.covered_by:
        why = (
            "its backup is newer than that, so it is restored after it"
            if one.newer
            else "so it is restored only if that restore fails"
        )
        yield f"  - {one.covered_by} brings the same data back; {why}"


def _reached(reached: Sequence[Reached]) -> list[str]:
    words = {True: "answers", False: "DOES NOT ANSWER", None: "not asked"}
    rows = [
        [one.kind, one.name, words[one.answers], _one_line(one.detail)[:200]] for one in reached
    ]
    return _table(["What", "Name", "", "Answer"], rows)


def _people(plan: RecoveryPlan) -> list[str]:
    lines = [f"- {role}: {who}" for role, who in plan.team.items()]
    if plan.channel:
        lines.append(f"- Talk in {plan.channel}")
    if plan.provision:
        lines.append(f"- New servers are made by `{' '.join(plan.provision)}`")
    if plan.redirect:
        lines.append(f"- Traffic is led back by `{' '.join(plan.redirect)}`, once confirmed")
    if plan.services:
        lines.append(f"- Stopped meanwhile: {', '.join(plan.services)}")
    return ["## Who and how", "", *lines, ""] if lines else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(heads), ["---"] * len(heads), *escaped]]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _one_line(text: str) -> str:
    return " ".join(text.split())
