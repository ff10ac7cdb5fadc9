"""The report as Markdown: to be read, and its last part to be filled in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from neuroca_backup.model.recovery_report import Report
from neuroca_backup.services.recovery import wording

# What Markdown, or HTML within it, would take for more than text.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~$]|(?<![^\W_])_|_(?![^\W_]))")


def markdown(report: Report) -> str:
    """Return the whole report."""
    return "\n".join(line for part in _parts(report) for line in part).rstrip() + "\n"


def _parts(report: Report) -> Iterator[Iterable[str]]:
    good, told = wording.verdict(report)
    yield [f"# {wording.title(report)} {_text(report.recovery_id)}", ""]
    yield [f"**{'Good.' if good else 'Not good.'} {_text(told)}**", ""]
    yield _pairs([*wording.facts(report), *wording.figures(report)])
    yield from (_table(*one) for one in wording.tables(report))
    yield _lessons(report)
    yield _table(*wording.events(report))


def _pairs(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [*(f"- {name}: {_text(value)}" for name, value in pairs), ""]


def _table(head: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["None."] if not rows else [_row(names), _row(["---"] * len(names))]
    lines += [_row([_text(cell) for cell in row]) for row in rows]
    return [f"## {head}", "", *lines, ""]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _lessons(report: Report) -> Iterator[str]:
    yield from ("## Lessons learned", "")
    if report.questions:
        yield from ("This recovery asks:", "")
        yield from (f"- [ ] {_text(one)}" for one in report.questions)
        yield ""
    for head, prompt in wording.LESSONS:
        yield from (f"### {head}", "", f"_{prompt}_", "", "-", "")


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
