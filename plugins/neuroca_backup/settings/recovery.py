"""The section `recovery` of `backup.yaml`: how a whole system comes back, and who decides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from neuroca_backup.model.identity import RESTORE_ORDER, Component
from neuroca_backup.settings.sources import SourceSettings
from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import Cron, Duration, refused

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
# The tasks of the step `verify` that are always there; a check of one's own needs another name.
POINTS = (
    "databases",
    "memory_tiers",
    "configuration",
    "functionality",
    "performance",
    "security",
)
_TAKEN = (*POINTS, "start_services")


class CommandSettings(Strict):
    """A command as a list of words, run without a shell; the first is the program's whole path."""

    command: tuple[str, ...] = Field(min_length=1)
    timeout: Duration = timedelta(minutes=30)

    @model_validator(mode="after")
    def _names_its_program(self) -> CommandSettings:
        if not self.command[0].startswith("/"):
            error = refused(
                "does not begin with an absolute path", "Write the whole path of the program."
            )
            raise disagreement("command", [(("command",), self.command[0], error)])
        return self


class CheckSettings(CommandSettings):
    """A check of the recovered system: a command that exits with 0 where all is well."""

    name: str
    timeout: Duration = timedelta(minutes=5)

    @field_validator("name")
    @classmethod
    def _becomes_a_task(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None or name in _TAKEN:
            raise refused(
                "cannot be the name of a check",
                f"Use lower-case letters, digits and underscores, and none of {', '.join(_TAKEN)}.",
            )
        return name


def _default_priorities() -> dict[str, tuple[str, ...]]:
    return {component.value: (component.value,) for component in RESTORE_ORDER}


class RecoverySettings(Strict):
    """How a disaster recovery goes.

    `priorities` are what is restored side by side, by a name of your own, the first first: words
    are components, or sources. `approvals` is how many people other than the one who triggered it
    must agree before anything but a drill; the form can ask for more, never for fewer. `provision`
    makes the new servers, `redirect` leads the traffic to them. `answer_within` is how long a
    target may take to answer, `monitor` how long the recovered system is watched. `team` are roles
    and who has them, `channel` is where they talk.
    """

    priorities: dict[str, tuple[str, ...]] = Field(
        default_factory=_default_priorities, min_length=1
    )
    approvals: Literal[0, 1, 2] = 1
    response_timeout: Duration = timedelta(hours=1)
    provision: CommandSettings | None = None
    answer_within: Duration = timedelta(hours=1)
    checks: tuple[CheckSettings, ...] = ()
    redirect: CommandSettings | None = None
    monitor: Duration = timedelta(minutes=15)
    team: dict[str, str] = Field(default_factory=dict)
    channel: str | None = Field(default=None, min_length=1)
    drill_schedule: Cron | None = "0 9 2 1,4,7,10 *"

    @model_validator(mode="after")
    def _named_well(self) -> RecoverySettings:
        found: list[tuple[tuple[str, ...], Any, PydanticCustomError]] = []
        for name in self.priorities:
            if _NAME.fullmatch(name) is None:
                error = refused(
                    "is not the name of a priority",
                    "Use lower-case letters, digits and underscores, beginning with a letter.",
                )
                found.append((("priorities", name), name, error))
        names = [check.name for check in self.checks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            error = refused("has two checks of one name", "Give one of them another name.")
            found.append((("checks",), ", ".join(twice), error))
        if found:
            raise disagreement("recovery", found)
        return self

    def order(self, sources: Mapping[str, SourceSettings]) -> dict[str, tuple[str, ...]]:
        """Return the sources of every priority that has some, the first priority first.

        A source that is named goes where it is named; a component's word stands for the others.
        """
        named = {word for words in self.priorities.values() for word in words} - set(Component)
        found = {
            name: tuple(
                source
                for source, one in sources.items()
                if (source in words and source in named)
                or (source not in named and one.component.value in words)
            )
            for name, words in self.priorities.items()
        }
        return {name: chosen for name, chosen in found.items() if chosen}


def mistaken(
    recovery: RecoverySettings, sources: Mapping[str, SourceSettings]
) -> Iterator[tuple[tuple[str, ...], Any, PydanticCustomError]]:
    """Yield what is wrong with the priorities once the sources are known."""
    known = {*sources, *Component}
    words = [word for chosen in recovery.priorities.values() for word in chosen]
    for word in dict.fromkeys(words):
        if word not in known:
            error = refused(
                "is neither a component nor a source",
                f"Use some of: {', '.join([*Component, *sources])}.",
            )
            yield ("recovery", "priorities"), word, error
        elif words.count(word) > 1:
            error = refused("has two priorities", "Name it once.")
            yield ("recovery", "priorities"), word, error
    placed = {source for chosen in recovery.order(sources).values() for source in chosen}
    for source in sources:
        if source not in placed:
            error = refused(
                "has no priority, so it would not be recovered",
                "Name it, or its component, in one of them.",
            )
            yield ("recovery", "priorities"), source, error
