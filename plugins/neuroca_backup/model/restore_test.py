"""A restore test: what was restored to see that it can be, what came of it, how long it took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component
from neuroca_backup.model.quantity import size

VERSION = 1
PREFIX = "restore-tests"
REPORT, MARKDOWN = "report.json", "report.md"
# The steps that a real restore has, too: only these say how long one takes.
RESTORING = ("fetch", "load", "compare", "publish", "examine")
STEPS = ("sandbox", "preflight", *RESTORING, "sample", "sanitise", "tear_down")
PASSED = "passed"

Sanitised = Literal["yes", "nothing personal", "no rules", "not asked", "not reached"]


class SourceTest(BaseModel):
    """One source's part of a test.

    `outcome` is `passed`, `failed in STEP`, or `not tested`; `problem` says why it is not passed.
    `seconds` is by step, `size` the original bytes restored, `records` how many were read as a
    sample. `source_version` is the server's that was backed up, `server_version` the sandbox's.
    `stores` are those that gave bytes. `removed` says that nothing of the sandbox is left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    restore_id: str
    component: Component
    source: str
    backup_id: str = ""
    taken_at: AwareDatetime | None = None
    engine: str = ""
    source_version: str = ""
    server_version: str = ""
    stores: tuple[str, ...] = ()
    outcome: str
    problem: str = ""
    started_at: AwareDatetime
    finished_at: AwareDatetime
    seconds: Mapping[str, float] = {}
    size: int = 0
    records: int = 0
    sanitised: Sanitised = "not reached"
    removed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every step was done."""
        return self.outcome == PASSED

    @property
    def restoring(self) -> dict[str, float]:
        """The seconds of the steps that a real restore has."""
        return {step: self.seconds[step] for step in RESTORING if step in self.seconds}

    @property
    def rate(self) -> float | None:
        """Original bytes a second, from the first byte fetched to the last question answered."""
        total = sum(self.restoring.values())
        return self.size / total if self.passed and self.size and total else None


class RestoreTest(BaseModel):
    """One test of several sources; the same object lies in every store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    test_id: str
    actor: str
    sandbox: Literal["process", "connection"]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    keep_hours: float = 0
    sources: tuple[SourceTest, ...]

    @property
    def passed(self) -> bool:
        """Whether there is a source, and every one has passed."""
        return bool(self.sources) and all(one.passed for one in self.sources)

    @property
    def success_rate(self) -> float:
        """The share of sources that have passed, from 0 to 1."""
        done = sum(one.passed for one in self.sources)
        return done / len(self.sources) if self.sources else 0.0

    @property
    def seconds(self) -> float:
        """How long it took as a whole."""
        return (self.finished_at - self.started_at).total_seconds()

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> RestoreTest:
        """Return the test in `data`.

        Raises:
            DamagedError: It is not what was written, or of another version; names the object.
        """
        body: dict[str, Any] = document.decode(data, name=name)
        try:
            found = cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a restore test: {first['loc']}: {first['msg']}",
                remedy="Delete it if no newer program wrote it; the next test writes its own.",
                key=name,
            ) from None
        if found.version != VERSION or name.rpartition(":")[2] != key_of(found.test_id, REPORT):
            raise DamagedError(
                f"{name} is the restore test {found.test_id} of version {found.version}",
                remedy="Use the program that wrote it, or delete the object.",
                key=name,
            )
        return found

    def summary(self) -> dict[str, Any]:
        """Return the test as plain data, with the figures that are worked out."""
        body = self.model_dump(mode="json")
        for said, one in zip(body["sources"], self.sources, strict=True):
            said["megabytes_per_second"] = None if one.rate is None else round(one.rate / 1e6, 3)
        return {
            **body,
            "passed": self.passed,
            "success_rate": round(self.success_rate, 4),
            "seconds": round(self.seconds, 3),
        }

    def markdown(self) -> str:
        """Return the report for people."""
        return "\n".join(_lines(self)) + "\n"


def key_of(test_id: str, name: str) -> str:
    """Return where an object of the test is in every store."""
    return f"{PREFIX}/{test_id}/{name}"


def is_restore_test_key(key: str) -> bool:
    """Return whether `key` is one that `key_of` makes."""
    prefix, _, rest = key.partition("/")
    return prefix == PREFIX and rest.partition("/")[2] in {REPORT, MARKDOWN}


def _lines(test: RestoreTest) -> Iterator[str]:
    done = sum(one.passed for one in test.sources)
    yield f"# Restore test {test.test_id}: {'passed' if test.passed else 'FAILED'}"
    yield ""
    yield (
        f"{done} of {len(test.sources)} sources passed ({test.success_rate:.0%}), in "
        f"{test.seconds:.0f} s, from {test.started_at:%Y-%m-%d %H:%M:%S} UTC on. Started by "
        f"{test.actor}; the sandbox was a {test.sandbox}."
    )
    yield ""
    yield "| component | source | backup | result | size | restore | MB/s | read | sanitised |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in test.sources:
        rate = "-" if one.rate is None else f"{one.rate / 1e6:.1f}"
        yield (
            f"| {one.component} | {one.source} | {one.backup_id or '-'} | {one.outcome} | "
            f"{size(one.size)} | {sum(one.restoring.values()):.1f} s | {rate} | "
            f"{one.records} records | {one.sanitised} |"
        )
    for one in test.sources:
        yield ""
        yield f"## {one.source}"
        yield ""
        yield from _details(one)


def _details(one: SourceTest) -> Iterator[str]:
    if one.problem:
        yield f"**{one.outcome}**: {one.problem}"
        yield ""
    if one.taken_at is not None:
        yield f"- the backup is of {one.taken_at:%Y-%m-%d %H:%M:%S} UTC, engine {one.engine}"
    if one.source_version:
        yield f"- version: {one.source_version} backed up, {one.server_version or '-'} restored to"
    if one.stores:
        yield f"- read from {' and '.join(one.stores)}"
    if one.seconds:
        steps = ", ".join(
            f"{step} {one.seconds[step]:.1f}" for step in STEPS if step in one.seconds
        )
        yield f"- seconds: {steps}"
    yield f"- sandbox: {'nothing of it is left' if one.removed else 'NOT removed'}"
    for note in one.notes:
        yield f"- {note}"
