"""The report of a recovery: what it says, that nothing in it is obeyed, and where it is kept."""

from __future__ import annotations

import html as html_escapes
import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from neuroca_backup.errors import StoreUnavailableError
from neuroca_backup.model.recovery import EventKind
from neuroca_backup.model.recovery_report import Report
from neuroca_backup.services.recovery.journal import Reading
from neuroca_backup.services.recovery.report import FORMATS, build, render, rpo_of, write
from neuroca_backup.services.recovery.timeline import timeline
from neuroca_backup.settings import Settings
from support.recovering import Recovering
from support.recovery_story import AT, RPO, Story, bad_day, crowd, head, short_drill

GOLDEN = Path(__file__).with_name("golden") / "recovery"
K = EventKind
# The headings, by which a person knows what the page is about.
SECTIONS = [
    "Recovery time objectives",
    "What was restored",
    "Fallbacks",
    "Failures",
    "Approvals",
    "Checks of the system",
    "The journal when this was written",
    "Lessons learned",
    "Everything that happened",
]


def report(reading: Reading, *, minute: float = 441, rpo: Any = RPO) -> Report:
    return build(reading, now=AT + timedelta(minutes=minute), rpo=rpo)


def of(found: Report, source: str) -> Any:
    (one,) = [one for one in found.sources if one.source == source]
    return one


@pytest.mark.parametrize("form", FORMATS)
def test_the_report_of_a_bad_day_is_the_one_that_was_looked_at(form: str) -> None:
    text = render(report(bad_day()), form=form)
    golden = GOLDEN / f"bad_day.{form}"
    if os.environ.get("NEUROCA_WRITE_GOLDEN"):  # once somebody has looked at the new one
        golden.write_text(text)
    assert text == golden.read_text()


def test_json_is_the_whole_report() -> None:
    found = report(bad_day())
    assert Report.model_validate(json.loads(render(found, form="json"))) == found


def test_the_recovery_point_is_what_each_source_lost() -> None:
    found = report(bad_day())
    assert of(found, "postgres").lost_seconds == 300 * 60
    assert of(found, "postgres").within_rpo is True
    assert of(found, "vector").within_rpo is False
    assert found.lost_seconds == 1740 * 60
    assert found.skew_seconds == (1740 - 300) * 60


def test_a_source_that_another_brought_back_has_that_ones_point() -> None:
    working = of(report(bad_day()), "working")
    assert (working.covered_by, working.lost_seconds) == ("redis", 300 * 60)
    assert working.back_at == of(report(bad_day()), "redis").back_at


def test_what_one_source_lost_is_unknown_so_is_what_all_lost() -> None:
    told = Story()
    for source in ("a", "b"):
        told.restore(source, 1, 2, **({"consistent_at": "no time"} if source == "b" else {}))
    found = report(told.reading(head((("a",), ("b",), ("b",)))))
    assert (of(found, "a").lost_seconds, of(found, "b").lost_seconds) == (300 * 60, None)
    assert (found.lost_seconds, found.skew_seconds) == (None, None)
    assert (of(found, "b").within_rpo, found.complete) == (None, False)


def test_a_backup_of_after_the_disaster_has_lost_nothing() -> None:
    told = Story()
    told.restore("a", 1, 2, lost=-5)
    found = report(told.reading(head((("a",), ("a",), ("a",)))))
    assert found.lost_seconds == 0


def test_recovery_times_are_told_by_objective() -> None:
    found = {one.objective: one for one in report(bad_day()).objectives}
    assert [(name, one.state, one.used_seconds / 60) for name, one in found.items()] == [
        ("database", "met late", 264),
        ("memory_tiers", "met", 303),
        ("full_system", "met", 372),
    ]
    assert [one.percent for one in found["database"].warned] == [50, 75, 90]
    assert found["database"].breached_at == AT + timedelta(minutes=240.3)


def test_an_objective_without_which_the_recovery_ended_was_not_met() -> None:
    told = Story()
    told.add(5, K.REJECTED, actor="ann@nca.example", comment="not now")
    told.add(6, K.ENDED, outcome="rejected")
    found = report(told.reading(head()), minute=9999)
    assert {one.state for one in found.objectives} == {"not met"}
    assert {one.used_seconds for one in found.objectives} == {360}
    assert found.decisions[0].comment == "not now"


def test_while_it_goes_on_the_forecast_is_there_and_afterwards_it_is_not() -> None:
    told = Story()
    told.add(10, K.STARTED, "configuration", forecast_seconds=600)
    for source in ("postgres", "mongodb", "redis", "vector"):
        told.add(5, K.ASSESSED, source, forecast_seconds=3600)
    found = {one.objective: one for one in report(told.reading(head()), minute=15).objectives}
    assert found["database"].forecast_seconds == (15 + 5 + 60) * 60
    assert found["full_system"].forecast_seconds is None
    assert "forecast: all back after 80 min" in render(
        report(told.reading(head()), minute=15), form="md"
    )
    assert {one.forecast_seconds for one in report(bad_day()).objectives} == {None}


def test_every_attempt_is_there_with_how_it_ended() -> None:
    attempts = of(report(bad_day()), "mongodb").attempts
    assert [one.outcome for one in attempts] == ["failed", "back"]
    assert attempts[0].problem == "The store cut the transfer"
    begun = Story()
    begun.add(5, K.STARTED, "redis")
    assert [one.outcome for one in of(report(begun.reading(head())), "redis").attempts] == ["open"]


def test_a_check_that_never_ran_did_not_pass() -> None:
    told = Story()
    told.restore("a", 1, 2)
    found = report(told.reading(head((("a",), ("a",), ("a",)))))
    assert [(one.check, one.passed) for one in found.checks] == [
        ("tls", None),
        ("default passwords", None),
    ]
    assert not found.complete
    assert "never ran" in render(found, form="md")


def test_a_drill_in_which_all_went_well_is_good_and_asks_nothing() -> None:
    found = report(short_drill())
    assert found.complete
    assert found.questions == ()
    assert "Everything is back and checked. Every recovery time objective was met." in render(
        found, form="html"
    )


def test_what_was_not_as_it_should_be_becomes_a_question() -> None:
    asked = "\n".join(report(bad_day()).questions)
    for words in (
        "database was missed by 24 min",
        "vector lost 26 h 40 min",
        "mongodb did not come from the nearest",
        "postgres took 88 min, and 40 min were forecast",
        "tls failed at least once",
        "first answer took 19 min",
    ):
        assert words in asked


def test_damage_in_the_journal_is_never_a_good_report() -> None:
    reading = short_drill()
    damaged = Reading(reading.declared, reading.events, {}, ("primary: x is damaged",))
    found = report(damaged)
    assert not found.complete
    assert '<p class="verdict bad">' in render(found, form="html")
    assert "x is damaged" in render(found, form="md")


@pytest.mark.parametrize("form", ["md", "html"])
def test_every_section_is_there_in_one_order(form: str) -> None:
    text = render(report(bad_day()), form=form)
    places = [text.index(f"{'## ' if form == 'md' else '<h2>'}{one}") for one in SECTIONS]
    assert places == sorted(places)


# What comes from outside is shown, never obeyed.


def test_hostile_names_are_text_in_html() -> None:
    page = render(report(crowd()), form="html")
    assert "<script" not in page.lower()
    assert "alert(&#x27;x&#x27;)" in page
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import""", page)


def test_hostile_names_are_text_in_markdown() -> None:
    text = render(report(crowd()), form="md")
    assert not re.search(r"(?<!\\)<script", text)
    told = Story()
    told.add(1, K.FAILED, "a", problem="one | two\n# three <b> [x](y) `z` **w**")
    line = next(
        one
        for one in render(report(told.reading(head())), form="md").splitlines()
        if "three" in one
    )
    assert line.count(" | ") == 3
    assert r"one \| two # three \<b\> \[x\](y) \`z\` \*\*w\*\*" in line


@pytest.mark.parametrize("story", [bad_day, short_drill, crowd], ids=lambda one: one.__name__)
def test_the_picture_is_whole_and_nothing_is_drawn_outside(story: Any) -> None:
    root = ET.fromstring(timeline(report(story())))  # noqa: S314 - our own
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    bars = [one for one in root.iter() if one.tag.endswith("rect")]
    assert len(bars) > 6
    for bar in bars:
        x, y, wide, high = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        assert wide >= 3
        assert x >= 0
        assert x + wide <= width
        assert y + high <= height
    texts = [one for one in root.iter() if one.tag.endswith("text")]
    assert all(0 <= float(one.attrib["y"]) <= height for one in texts)
    assert all(len("".join(one.itertext()).strip()) > 0 for one in texts)


def test_every_source_has_a_row_with_its_name() -> None:
    found = report(crowd())
    picture = html_escapes.unescape(timeline(found))
    for one in found.sources:
        assert one.source in picture


def test_a_recovery_of_which_nothing_was_told_has_a_report_too() -> None:
    found = report(Story().reading(head()), minute=0)
    for form in FORMATS:
        assert render(found, form=form)
    assert "Still open" in render(found, form="md")


# Keeping it.


def test_it_is_kept_in_every_store_that_answers_and_copies_what_they_lack() -> None:
    recovering = Recovering()
    recovering.stores["secondary"].answers = False
    recovering.minute(10).back("redis")
    recovering.stores["secondary"].answers = True
    found = write(recovering.journal(), now=recovering.minute(20).now)
    assert found.findings == ()
    for store in recovering.stores.values():
        names = {key.rpartition("/")[2] for key in store.objects if "/events/" not in key}
        assert names == {"declared.json", "report.json", "report.md", "report.html"}
    kept = Report.model_validate_json(recovering.journal().attachment("report.json"))
    assert kept == found


def test_without_any_store_it_is_an_error() -> None:
    recovering = Recovering()
    for store in recovering.stores.values():
        store.answers = False
    with pytest.raises(StoreUnavailableError):
        write(recovering.journal(), now=AT)


def test_recovery_points_come_from_the_components_of_the_sources() -> None:
    places = {name: {"type": "local", "path": f"/{name}"} for name in ("primary", "secondary")}
    settings = Settings.model_validate(
        {
            "schedule": {},
            "storage": places,
            "retention": {},
            "encryption": {"key_management": "local", "local_key_file": "/k"},
        }
    )
    assert rpo_of(settings, ["postgres", "models__a", "configuration", "gone"]) == {
        "postgres": 86400,
        "configuration": 7 * 86400,
    }
