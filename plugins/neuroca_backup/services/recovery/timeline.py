"""The timeline of a recovery as an SVG picture: what ran when, against the limits.

Pure text without scripts, fonts or addresses, so it can stand in any page. Everything that comes
from outside is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape

from neuroca_backup.model.recovery_report import Attempt, ObjectiveReport, Report, SourceReport
from neuroca_backup.services.recovery import wording

# Pixels of the picture's own space; the page scales it.
_WIDTH = 1000
_LEFT, _RIGHT = 215, 820
_ROW, _BAR, _LANE = 24, 12, 14
_LANES = 3  # of labels of milestones
_LETTER = 6.6  # how wide a letter is, at most of them
_LONGEST_NAME = 28  # letters
_THINNEST = 3.0  # so that what took no time is still seen

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (
    *(1, 2, 5, 10, 30),
    *(one * _MINUTE for one in (1, 2, 5, 10, 15, 30)),
    *(one * _HOUR for one in (1, 2, 3, 6, 12)),
    *(one * _DAY for one in (1, 2, 7, 14, 30)),
)
_MOST_TICKS = 10
# A limit that is further away than this share of what happened would make everything else tiny.
_IN_SIGHT = 1.6

_BLUE, _TEAL, _RED, _AMBER, _GREEN = "#2b6cb0", "#38a3a5", "#b3261e", "#b26a00", "#1b7f4b"
_INK, _FAINT, _GRID, _GREY = "#1d2733", "#5b6875", "#e3e8ee", "#9aa5b1"
_MILESTONES = {
    "declared": _INK,
    "assessed": _INK,
    "notified": _INK,
    "approved": _GREEN,
    "rejected": _RED,
    "provisioned": _INK,
    "confirmed": _GREEN,
    "redirected": _GREEN,
    "ended": _INK,
}
_STATES = {"met": _GREEN, "running": _BLUE}


def timeline(report: Report) -> str:
    """Return the picture; its width is that of the page, its height as many rows as there are."""
    return _Picture(report).draw()


@dataclass(slots=True)
class _Picture:
    """The picture while it is drawn: `y` is where the next row begins."""

    report: Report
    y: float = 0.0
    parts: list[str] = field(default_factory=list)

    def draw(self) -> str:
        report = self.report
        limits = [
            one for one in report.objectives if one.limit_seconds <= self._happened * _IN_SIGHT
        ]
        self._limit_names(limits)
        top = self.y
        self._axis()
        self._milestones()
        for goal in report.objectives:
            self._objective(goal)
        self.y += 8
        self._line(0, self.y, _WIDTH, self.y, _GRID)
        self.y += 4
        for source in report.sources:
            self._source(source)
        grid = [*self._grid(top), *self._limit_lines(limits, top)]
        self._legend()
        label = f"Timeline of {report.recovery_id}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {self.y:.0f}" '
            f'role="img" aria-label="{escape(label)}" '
            'font-family="system-ui, sans-serif" font-size="11">\n'
            + "\n".join([*grid, *self.parts])
            + "\n</svg>"
        )

    @property
    def _happened(self) -> float:
        """Seconds until the last thing happened; a minute at least."""
        moments = [one.seconds for one in self.report.events]
        used = [one.used_seconds for one in self.report.objectives]
        return max([_MINUTE, *moments, *used])

    @property
    def _end(self) -> float:
        """Seconds at the right end."""
        limits = [one.limit_seconds for one in self.report.objectives]
        return max([self._happened, *(one for one in limits if one <= self._happened * _IN_SIGHT)])

    def _x(self, seconds: float) -> float:
        share = min(max(seconds, 0.0) / self._end, 1.0)
        return _LEFT + share * (_RIGHT - _LEFT)

    def _at(self, moment: datetime) -> float:
        return (moment - self.report.declared_at).total_seconds()

    def _limit_names(self, limits: Sequence[ObjectiveReport]) -> None:
        lanes = _Lanes(count=6)
        lowest = 0
        for one in sorted(limits, key=lambda limit: limit.limit_seconds):
            text = f"{_short(one.objective)} {_offset(one.limit_seconds)}"
            x, width = self._x(one.limit_seconds), len(text) * _LETTER
            begin = min(x - width / 2, _WIDTH - width)
            lane = lanes.place(begin, width)
            if lane is not None:
                lowest = max(lowest, lane + 1)
                self._text(begin, 11 + lane * _LANE, text, color=_RED, title=one.objective)
        self.y = lowest * _LANE + 4

    def _axis(self) -> None:
        self.y += 12
        for tick in self._ticks():
            self._text(self._x(tick), self.y, _offset(tick), anchor="middle", color=_FAINT)
        self.y += 6

    def _ticks(self) -> list[float]:
        step = next((one for one in _STEPS if self._end / one <= _MOST_TICKS), self._end)
        return [float(step * count) for count in range(int(self._end / step) + 1)]

    def _grid(self, top: float) -> Iterator[str]:
        for tick in self._ticks():
            yield _line(self._x(tick), top + 18, self._x(tick), self.y, _GRID)

    def _limit_lines(self, limits: Iterable[ObjectiveReport], top: float) -> Iterator[str]:
        for one in limits:
            x = self._x(one.limit_seconds)
            yield _line(x, top + 18, x, self.y, _RED, more=' stroke-dasharray="4 3"')

    def _milestones(self) -> None:
        lanes = _Lanes(count=_LANES)
        row = self.y
        self._name("Milestones", row)
        shown = [
            one
            for one in self.report.events
            if one.kind in _MILESTONES and not (one.kind == "assessed" and one.subject)
        ]
        # Where there is no room for all labels, those of what people decided come first.
        for one in sorted(shown, key=lambda event: _MILESTONES[event.kind] == _INK):
            color = _MILESTONES[one.kind]
            x, width = self._x(one.seconds), len(one.kind) * _LETTER
            right = x + 7 + width > _WIDTH
            lane = lanes.place(x - 7 - width if right else x - 5, width + 14)
            # Below the lanes there are only marks.
            y = row + 12 + (_LANES if lane is None else lane) * _LANE
            told = f"{one.kind} at {wording.moment(one.at)} by {one.actor}"
            self.parts.append(
                f'<path d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" fill="{color}">'
                f"<title>{escape(told)}</title></path>"
            )
            if lane is not None:
                anchor = "end" if right else "start"
                self._text(x - 7 if right else x + 7, y + 4, one.kind, anchor=anchor, color=color)
        self.y += (_LANES + 1) * _LANE + 8

    def _objective(self, one: ObjectiveReport) -> None:
        color = _STATES.get(one.state, _RED)
        self._name(one.objective, self.y)
        self._bar(0, min(one.limit_seconds, self._end), _GRID, f"limit of {one.objective}")
        share = one.used_seconds / one.limit_seconds
        told = f"{one.state}, {share:.0%} of {_offset(one.limit_seconds)}"
        title = f"{one.objective}: {told}, {wording.span(one.used_seconds)}"
        self._bar(0, one.used_seconds, color, title)
        for warned in one.warned:
            x, y = self._x(self._at(warned.at)), self.y + 6
            self.parts.append(
                f'<path d="M{x:.1f} {y:.1f}l5 10l-10 0z" fill="{_AMBER}" stroke="#fff">'
                f"<title>{warned.percent} % at {escape(wording.moment(warned.at))}</title></path>"
            )
        self._note(told, color=color)
        self.y += _ROW

    def _source(self, one: SourceReport) -> None:
        self._name(one.source, self.y)
        for attempt in one.attempts:
            self._attempt(one.source, attempt)
        if one.covered_by:
            told = f"with {one.covered_by}" if one.back_at else f"left to {one.covered_by}"
        elif one.back_seconds is not None:
            told = f"back after {wording.span(one.back_seconds)}"
        else:
            told = {
                "waiting": "never begun",
                "restored": "not checked",
                "skipped": "left out",
            }.get(one.stage, one.stage)
        self._note(told, color=_INK if one.back_at is not None else _RED)
        self.y += _ROW

    def _attempt(self, source: str, one: Attempt) -> None:
        begin = self._at(one.started_at)
        end = self._end if one.ended_at is None else self._at(one.ended_at)
        took = wording.span(end - begin)
        if one.outcome == "failed":
            self._bar(begin, end, _RED, f"{source}: failed after {took}: {one.problem}")
        elif one.restored_at is None:
            until = self._at(self.report.ended_at or self.report.written_at)
            self._bar(begin, max(until, begin), _GREY, f"{source}: begun, and no end was told")
        else:
            restored = self._at(one.restored_at)
            self._bar(begin, restored, _BLUE, f"{source}: restored in {took}")
            if end > restored:
                self._bar(restored, end, _TEAL, f"{source}: checked")

    def _bar(self, begin: float, end: float, color: str, title: str) -> None:
        x = self._x(begin)
        width = max(self._x(end) - x, _THINNEST)
        x = min(x, _RIGHT - _THINNEST)
        y = self.y + (_ROW - _BAR) / 2
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BAR}" rx="2" '
            f'fill="{color}"><title>{escape(title)}</title></rect>'
        )

    def _legend(self) -> None:
        self.y += 14
        x = float(_LEFT)
        for color, word in (
            (_BLUE, "restoring"),
            (_TEAL, "checking"),
            (_RED, "failed, or over the limit"),
            (_GREY, "running, or no end told"),
            (_GREEN, "met"),
            (_AMBER, "warning"),
        ):
            self.parts.append(
                f'<rect x="{x:.1f}" y="{self.y}" width="10" height="10" rx="2" fill="{color}"/>'
            )
            self._text(x + 14, self.y + 9, word, color=_FAINT)
            x += 30 + len(word) * _LETTER
        self.y += 18

    def _name(self, name: str, y: float) -> None:
        self._text(
            _LEFT - 10,
            y + 16,
            _short(name),
            anchor="end",
            title=name if _short(name) != name else "",
        )

    def _note(self, text: str, *, color: str) -> None:
        self._text(_RIGHT + 8, self.y + 16, _short(text), color=color, title=text)

    def _line(self, x1: float, y1: float, x2: float, y2: float, color: str) -> None:
        self.parts.append(_line(x1, y1, x2, y2, color))

    def _text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        color: str = _INK,
        title: str = "",
    ) -> None:
        told = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">'
            f"{told}{escape(text)}</text>"
        )


class _Lanes:
    """Rows of labels that do not touch; what fits nowhere gets no label."""

    def __init__(self, *, count: int) -> None:
        self._taken: list[list[tuple[float, float]]] = [[] for _ in range(count)]

    def place(self, begin: float, width: float) -> int | None:
        for lane, taken in enumerate(self._taken):
            if all(begin > end + 4 or begin + width < start - 4 for start, end in taken):
                taken.append((begin, begin + width))
                return lane
        return None


def _line(x1: float, y1: float, x2: float, y2: float, color: str, *, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}"{more}/>'


def _short(name: str) -> str:
    """Return a name that fits: its beginning and its end, which tell parts of a source apart."""
    if len(name) <= _LONGEST_NAME:
        return name
    end = _LONGEST_NAME // 2
    return f"{name[: _LONGEST_NAME - end - 1]}…{name[-end:]}"


def _offset(seconds: float) -> str:
    """Return a mark of the axis."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s" if seconds else "0"
    for unit, word in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:.0f} {word}"
    hours, rest = divmod(seconds, _HOUR)
    minutes = f"{rest / _MINUTE:.0f} min" if rest else ""
    return f"{hours:.0f} h {minutes}".strip() if hours else minutes
