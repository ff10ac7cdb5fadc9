from __future__ import annotations

import inspect
import pickle

import pytest

from neuroca_backup import errors
from neuroca_backup.errors import BackupError, PermanentError, TransientError

KINDS = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, BackupError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_problem_remedy_and_facts_through_pickling(
    kind: type[BackupError],
) -> None:
    error = kind("The disk is full", remedy="Free space.", store="primary", size=3)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(again) is kind
    assert (again.problem, again.remedy, again.facts) == (
        "The disk is full",
        "Free space.",
        {"store": "primary", "size": 3},
    )
    assert str(again) == str(error) == "The disk is full. Free space."


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_either_retried_or_not(kind: type[BackupError]) -> None:
    if kind is not BackupError:
        assert issubclass(kind, TransientError) != issubclass(kind, PermanentError)


def test_a_problem_that_ends_in_a_full_stop_gets_no_second_one() -> None:
    assert str(BackupError("It broke.", remedy="Mend it.")) == "It broke. Mend it."
