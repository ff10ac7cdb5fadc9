"""What may be done with data of each classification, and when that is to be reviewed."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from neuroca_backup.errors import AccessDeniedError
from neuroca_backup.model.identity import Classification
from neuroca_backup.services.classification import Act, allows, read, review_due, strictest

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)

FREE = {
    Act.EXPORT_IN_CLEAR: {"public", "internal", "confidential"},
    Act.TEST_RESTORE_UNSANITISED: {"public", "internal", "confidential"},
    Act.RESTORE_ELSEWHERE_UNSANITISED: {"public", "internal", "confidential"},
    Act.SHOW_CONTENT: {"public", "internal"},
}


def test_each_act_is_free_up_to_its_classification() -> None:
    found = {act: {one.value for one in Classification if allows(one, act).allowed} for act in Act}

    assert found == FREE


@pytest.mark.parametrize("act", Act)
def test_what_is_refused_says_why_and_what_helps(act: Act) -> None:
    decision = allows(Classification.RESTRICTED, act)

    with pytest.raises(AccessDeniedError) as caught:
        decision.require()
    assert "restricted" in caught.value.problem
    assert act.value in caught.value.problem
    assert caught.value.remedy == decision.remedy != ""
    assert decision.approvable == ("--approved-by" in decision.remedy)


def test_nobody_can_approve_an_unsanitised_test_restore_of_restricted_data() -> None:
    assert not allows("restricted", Act.TEST_RESTORE_UNSANITISED).approvable


@pytest.mark.parametrize("act", Act)
def test_an_unknown_classification_allows_no_more_than_restricted(act: Act) -> None:
    assert allows("top secret", act) == allows("restricted", act)
    assert not allows("", act).allowed


def test_the_strictest_counts() -> None:
    assert strictest(["public", "confidential", Classification.INTERNAL]) == "confidential"
    assert strictest(["public", "something new"]) is Classification.RESTRICTED
    assert strictest([]) is Classification.RESTRICTED
    assert read("internal") is Classification.INTERNAL


@pytest.mark.parametrize(
    ("reviewed", "said"),
    [
        (None, "nobody has said"),
        (date(2025, 11, 24), "more than a year ago"),
        (date(2025, 11, 25), None),
        (date(2026, 11, 25), None),
        (date(2026, 11, 26), "still to come"),
    ],
)
def test_a_review_comes_due_after_a_year_and_where_there_was_none(
    reviewed: date | None, said: str | None
) -> None:
    sentence = review_due(reviewed, now=NOW)

    assert (sentence is None) == (said is None)
    assert said is None or said in str(sentence)
