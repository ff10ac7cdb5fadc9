"""Backup sets as the command prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from neuroca_backup.cli import render

if TYPE_CHECKING:
    from neuroca_backup.model.backup_set import BackupSet
    from neuroca_backup.services.sets import ListedSet

_ID_TIME = "%Y%m%dT%H%M%SZ"


def recorded(one: BackupSet) -> None:
    """Say that a set was recorded."""
    render.say(
        f"The set {one.set_id} of {one.component} is complete: {', '.join(one.members)}, "
        f"skew {skew(one.skew_seconds)}."
    )


def listed(
    found: Iterable[ListedSet],
    *,
    stores: Sequence[str],
    unreachable: Mapping[str, str],
    now: datetime,
) -> int:
    """Print a table of sets and return how many; a store that does not answer is named below."""
    table = render.table("set", "component", "age", "state", "skew", "sources", "not verified")
    problems: list[str] = []
    for one in found:
        told = one.found
        table.add_row(
            one.set_id,
            one.component.value,
            render.age(now - _time(one.set_id)),
            state(one),
            "?" if told is None else skew(told.skew_seconds),
            "?" if told is None else ", ".join(told.sources),
            "?" if told is None else ", ".join(told.unverified) or "-",
        )
        problems += [
            f"The set {one.set_id} in {store}: {problem}" for store, problem in one.problems.items()
        ]
    if table.row_count:
        render.show(table)
    else:
        answered = ", ".join(store for store in stores if store not in unreachable)
        render.say(f"No backup sets were found in {answered}.")
    for problem in problems:
        render.say(problem)
    for store, problem in unreachable.items():
        render.say(f"{store} did not answer: {problem}")
    return table.row_count


def listed_json(
    found: Iterable[ListedSet],
    *,
    stores: Sequence[str],  # noqa: ARG001 - the same call as for people
    unreachable: Mapping[str, str],
    now: datetime,
) -> int:
    """Print sets as JSON and return how many; docs/reference/command.md describes the keys."""
    sets = [
        {
            "set_id": one.set_id,
            "component": one.component.value,
            "state": state(one),
            "age_seconds": int((now - _time(one.set_id)).total_seconds()),
            "skew_seconds": one.found.skew_seconds if one.found else None,
            "members": {
                source: member.model_dump(mode="json")
                for source, member in (one.found.members if one.found else {}).items()
            },
            "missing": list(one.found.missing) if one.found else [],
            "problems": dict(one.problems),
        }
        for one in found
    ]
    render.print_json({"sets": sets, "unreachable": dict(unreachable)})
    return len(sets)


def state(one: ListedSet) -> str:
    """Return `complete`, `incomplete`, or `damaged` where no store has a readable copy."""
    if one.found is None:
        return "damaged"
    return "complete" if one.found.complete else "incomplete"


def skew(seconds: float | None) -> str:
    """Return a skew for people: `-` where there is nothing that could be apart."""
    if seconds is None:
        return "-"
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _time(set_id: str) -> datetime:
    return datetime.strptime(set_id.partition("-")[0], _ID_TIME).replace(tzinfo=UTC)
