"""What is shown in clear is approved where its classification asks for it, and always recorded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from neuroca_backup.catalog.memory import MemoryCatalog
from neuroca_backup.errors import AccessDeniedError, ConfigurationError, StoreUnavailableError
from neuroca_backup.model.identity import Classification
from neuroca_backup.services.audit import Audit
from neuroca_backup.services.classification import Act
from neuroca_backup.services.disclosure import Approval, require
from support.memory_store import MemoryStore

RESTRICTED, CONFIDENTIAL = Classification.RESTRICTED, Classification.CONFIDENTIAL
APPROVAL = Approval.given("the owner", "an audit")


def ask(
    catalog: MemoryCatalog,
    shown: dict[str, Classification],
    *,
    approval: Approval,
    act: Act = Act.EXPORT_IN_CLEAR,
) -> None:
    audit = Audit(
        stores={"primary": MemoryStore("primary", lambda: datetime.now(UTC))},
        catalog=catalog,
        actor="op@host",
    )
    require(shown, act, approval=approval, audit=audit)


def test_what_was_agreed_to_is_not_shown_where_no_store_takes_the_record() -> None:
    audit = Audit(stores={}, catalog=MemoryCatalog(), actor="op@host")
    with pytest.raises(StoreUnavailableError, match="no line of export_in_clear airflow"):
        require({"airflow": RESTRICTED}, Act.EXPORT_IN_CLEAR, approval=APPROVAL, audit=audit)


def test_restricted_data_is_not_shown_without_an_approval_and_nothing_is_recorded() -> None:
    catalog = MemoryCatalog()

    with pytest.raises(AccessDeniedError) as caught:
        ask(catalog, {"redis": CONFIDENTIAL, "airflow": RESTRICTED}, approval=Approval())

    assert caught.value.problem.startswith("airflow: It is restricted")
    assert "--approved-by" in caught.value.remedy
    assert catalog.events() == []


def test_with_an_approval_it_is_shown_and_recorded_with_both_names() -> None:
    catalog = MemoryCatalog()

    ask(catalog, {"airflow": RESTRICTED}, approval=APPROVAL)

    (event,) = catalog.events()
    assert (event.actor, event.action, event.subject) == ("op@host", "export_in_clear", "airflow")
    assert (
        event.details.items()
        >= {
            "classification": "restricted",
            "approved_by": "the owner",
            "reason": "an audit",
            "result": "intended",
        }.items()
    )


def test_what_needs_no_approval_is_recorded_too() -> None:
    catalog = MemoryCatalog()

    ask(catalog, {"vector": CONFIDENTIAL}, approval=Approval())

    assert catalog.events()[0].details["approved_by"] is None


def test_an_approval_allows_nothing_that_nobody_can_approve() -> None:
    catalog = MemoryCatalog()

    with pytest.raises(AccessDeniedError):
        ask(
            catalog,
            {"postgres": RESTRICTED},
            approval=APPROVAL,
            act=Act.TEST_RESTORE_UNSANITISED,
        )
    assert catalog.events() == []


@pytest.mark.parametrize(
    ("approved_by", "reason", "lacking"),
    [("me", None, "--reason"), (None, "why", "--approved-by"), (" ", "why", "--approved-by")],
)
def test_half_an_approval_is_none(
    approved_by: str | None, reason: str | None, lacking: str
) -> None:
    with pytest.raises(ConfigurationError, match=lacking):
        Approval.given(approved_by, reason)


def test_no_approval_is_asked_for_by_itself() -> None:
    assert Approval.given(None, None) == Approval()
