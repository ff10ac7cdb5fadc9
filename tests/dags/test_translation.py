"""Our errors in Airflow's terms: what a person must mend is not tried again, the rest is."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from neuroca_backup import errors
from neuroca_backup.hooks.neuroca import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from dags.stand import Airflow


def leaves(kind: type[errors.BackupError]) -> list[type[errors.BackupError]]:
    return [leaf for sub in kind.__subclasses__() for leaf in (sub, *leaves(sub))]


def raised(error: errors.BackupError) -> AirflowException:
    with pytest.raises(AirflowException) as caught, translated():
        raise error
    return caught.value


@pytest.mark.parametrize("kind", leaves(errors.PermanentError))
def test_a_permanent_error_fails_the_task_without_a_retry(kind: type[errors.BackupError]) -> None:
    error = kind("The thing is broken", remedy="Mend it.")

    failure = raised(error)

    assert isinstance(failure, AirflowFailException)
    assert str(failure) == "The thing is broken. Mend it."


@pytest.mark.parametrize("kind", leaves(errors.TransientError))
def test_a_transient_error_leaves_the_task_to_its_retries(kind: type[errors.BackupError]) -> None:
    error = kind("The thing is away", remedy="It comes back.")

    failure = raised(error)

    assert not isinstance(failure, AirflowFailException)
    assert str(failure) == "The thing is away. It comes back."


def test_a_time_limit_of_airflow_stays_one_and_says_what_may_be_done() -> None:
    with pytest.raises(AirflowTaskTimeout) as caught, timeout(0.1), translated():
        time.sleep(60)

    assert "RPO of its component" in str(caught.value)
    assert "incremental" in str(caught.value)


def test_the_traceback_names_our_code_but_never_the_vendor_error_that_may_hold_a_secret() -> None:
    def connect() -> None:
        try:
            int("hunter2")
        except ValueError as error:
            raise errors.UnreachableError("db is away", remedy="Start it.") from error

    with pytest.raises(AirflowException) as caught, translated():
        connect()

    text = "".join(traceback.format_exception(caught.value))
    assert "in connect" in text
    assert "invalid literal" not in text, "the vendor's words"


def test_airflow_tries_a_transient_error_again_and_a_permanent_one_not(
    airflow: Callable[[Mapping[str, str]], Airflow], tmp_path: Path
) -> None:
    (tmp_path / "two_errors.py").write_text(
        "from datetime import timedelta\n"
        "from airflow.sdk import DAG, task\n"
        "from neuroca_backup import errors\n"
        "from neuroca_backup.hooks.neuroca import translated\n"
        "retry = {'retries': 2, 'retry_delay': timedelta(0)}\n"
        "with DAG('two_errors', schedule=None, default_args=retry):\n"
        "    for kind in (errors.UnreachableError, errors.AccessDeniedError):\n"
        "        @task(task_id=kind.__name__)\n"
        "        def fail(kind=kind):\n"
        "            with translated():\n"
        "                raise kind('No', remedy='Wait.')\n"
        "        fail()\n"
    )

    run = airflow({}).run("two_errors", dags=tmp_path)

    assert run.state == "failed"
    assert run.tries == {"UnreachableError": 3, "AccessDeniedError": 1}
