"""What a task tells whoever watches: how long its work took and how many bytes it gave."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from neuroca_backup.errors import UnreachableError
from neuroca_backup.operators import backup as module
from neuroca_backup.operators.backup import SourceOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = SimpleNamespace(
    run_after=datetime(2026, 11, 23, 2, tzinfo=UTC), dag_id="backup_database", run_id="r1"
)
CONTEXT: Any = {"dag_run": RUN}
TAGS = {"component": "database", "source": "postgres", "stage": "dump"}


class Giving(SourceOperator):
    result: dict[str, Any] | Exception = {"size": 42}  # noqa: RUF012 - replaced, never changed

    def run(self, *_: Any) -> dict[str, Any]:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []

    @contextmanager
    def timer(name: str, *, tags: dict[str, str]) -> Iterator[None]:
        yield
        found.append((name, tags))

    monkeypatch.setattr(module, "NeurocaHook", lambda: SimpleNamespace(runtime=None))
    monkeypatch.setattr(module.stats, "timer", timer)
    monkeypatch.setattr(
        module.stats, "gauge", lambda name, value, *, tags: found.append((name, value, tags))
    )
    return found


def task(result: dict[str, Any] | Exception) -> Giving:
    made = Giving(task_id="postgres.dump", source="postgres", component="database")
    made.result = result
    return made


def test_a_stage_sends_its_time_and_its_bytes(sent: list[tuple[Any, ...]]) -> None:
    assert task({"size": 42}).execute(CONTEXT) == {"size": 42}
    assert sent == [("neuroca_backup.stage", TAGS), ("neuroca_backup.bytes", 42, TAGS)]


def test_a_task_without_bytes_sends_its_time_alone(sent: list[tuple[Any, ...]]) -> None:
    task({"levels": {}}).execute(CONTEXT)
    assert sent == [("neuroca_backup.stage", TAGS)]


def test_a_stage_that_failed_sends_no_bytes(sent: list[tuple[Any, ...]]) -> None:
    with pytest.raises(Exception, match="gone"):
        task(UnreachableError("gone", remedy="Wait.")).execute(CONTEXT)
    assert sent == []
