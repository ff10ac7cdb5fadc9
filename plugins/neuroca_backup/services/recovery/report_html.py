"""The report as one HTML file: no script, no address, nothing to be loaded; it can be printed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from neuroca_backup.model.recovery_report import Report
from neuroca_backup.services.recovery import wording
from neuroca_backup.services.recovery.timeline import timeline

# Whatever an event holds, no browser runs or loads it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light; --ink: #1d2733; --faint: #5b6875; --line: #e3e8ee; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #f6f8fa; margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0; } h1 small { color: var(--faint); font-weight: 400; }
h2 { font-size: 18px; margin: 36px 0 10px; } h3 { font-size: 15px; margin: 18px 0 2px; }
.verdict { margin: 14px 0; padding: 12px 16px; border-radius: 6px; border-left: 6px solid;
  font-weight: 600; }
.good { background: #e7f5ed; border-color: #1b7f4b; }
.bad { background: #fdecea; border-color: #b3261e; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; }
.figures div, .card { background: #fff; border: 1px solid var(--line); border-radius: 6px;
  padding: 12px 16px; }
.figures b { display: block; font-size: 22px; } .figures span { color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 16px 0 0; }
dt { color: var(--faint); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: #fff; font-size: 13.5px; }
th, td { text-align: left; vertical-align: top; padding: 6px 10px; border: 1px solid var(--line);
  overflow-wrap: break-word; }
td:first-child { min-width: 110px; }
th { background: #eef2f6; font-weight: 600; white-space: nowrap; }
svg { display: block; width: 100%; height: auto; }
.short { white-space: nowrap; }
.warn { color: #b3261e; font-weight: 600; } .ok { color: #1b7f4b; font-weight: 600; }
.prompt { color: var(--faint); margin: 0; }
.room { border-bottom: 1px solid var(--line); height: 30px; }
ul { margin: 6px 0; padding-left: 22px; }
@media print { body { background: #fff; font-size: 12px; } main { max-width: none; padding: 0; }
  tr, .card, .verdict { break-inside: avoid; } }
"""
_KEPT_TOGETHER = len("2026-11-23 02:00:00 UTC")
_WARNING = {
    "breached",
    "met late",
    "not met",
    "failed",
    "FAILED",
    "MISSED",
    "never ran",
    "rejected",
}
_PLEASING = {"met", "back", "passed", "within", "approved", "confirmed"}


def html(report: Report) -> str:
    """Return the whole page."""
    name = f"{wording.title(report)} {report.recovery_id}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(_parts(report))
        + "\n</main>\n</body>\n</html>\n"
    )


def _parts(report: Report) -> Iterator[str]:
    good, told = wording.verdict(report)
    yield f"<h1>{wording.title(report)} <small>{escape(report.recovery_id)}</small></h1>"
    yield f'<p class="verdict {"good" if good else "bad"}">{escape(told)}</p>'
    shown = (
        f"<div><span>{escape(name)}</span><b>{escape(value)}</b></div>"
        for name, value in wording.figures(report)
    )
    yield f'<div class="figures">{"".join(shown)}</div>'
    facts = (
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in wording.facts(report)
    )
    yield f"<dl>{''.join(facts)}</dl>"
    yield f'<h2>Timeline</h2>\n<div class="card">\n{timeline(report)}\n</div>'
    yield from (_table(*one) for one in wording.tables(report))
    yield _lessons(report)
    yield _table(*wording.events(report))


def _table(head: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    title = f"<h2>{escape(head)}</h2>\n"
    if not rows:
        return f"{title}<p>None.</p>"
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f'{title}<div class="wide"><table>\n<tr>{heads}</tr>\n{lines}\n</table></div>'


def _cell(text: str) -> str:
    tone = "warn" if text in _WARNING else "ok" if text in _PLEASING else ""
    short = "short" if len(text) <= _KEPT_TOGETHER else ""
    name = f"{tone} {short}".strip()
    shown = escape(text).replace("_", "_<wbr>")  # long names may break where words would
    return f'<td class="{name}">{shown}</td>' if name else f"<td>{shown}</td>"


def _lessons(report: Report) -> str:
    parts = ['<h2>Lessons learned</h2>\n<div class="card">']
    if report.questions:
        asked = "".join(f"<li>{escape(one)}</li>" for one in report.questions)
        parts.append(f"<h3>This recovery asks</h3><ul>{asked}</ul>")
    for head, prompt in wording.LESSONS:
        room = '<div class="room"></div>' * 2
        parts.append(f'<h3>{escape(head)}</h3><p class="prompt">{escape(prompt)}</p>{room}')
    return "\n".join([*parts, "</div>"])
