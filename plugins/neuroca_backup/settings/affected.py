"""The section `services` of `backup.yaml`: what uses a component's data, and how it is stopped."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from neuroca_backup.settings.strict import Strict, disagreement
from neuroca_backup.settings.values import Duration, refused

_WORKLOAD = re.compile(r"(deployment|statefulset)/[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_UNIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@\\-]{0,249}\.(service|target|socket|timer)")
_KINDS = ("systemd", "kubernetes", "command")
_WORDS = ("status", "stop", "start")


class AffectedSettings(Strict):
    """One service: a systemd unit, a Kubernetes workload, or commands of your own.

    `kubernetes` is `deployment/NAME` or `statefulset/NAME` in `namespace`. `command` is the name
    under which the commands `status`, `stop` and `start` (each a list of words) are spoken of;
    `status` exits with 0 where the service runs, and with 3 where it is stopped, as systemctl
    does. `timeout` is how long stopping or starting may take.
    """

    systemd: str | None = None
    kubernetes: str | None = None
    namespace: str | None = Field(default=None, min_length=1)
    command: str | None = Field(default=None, min_length=1)
    status: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    timeout: Duration = timedelta(minutes=5)

    @property
    def name(self) -> str:
        """What the service is called in messages and records."""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.systemd or self.kubernetes or self.command}{where}"

    @model_validator(mode="after")
    def _is_one_of_three(self) -> AffectedSettings:
        found = self._refusals()
        if found:
            raise disagreement("services", found)
        return self

    def _refusals(self) -> list[tuple[tuple[str, ...], Any, PydanticCustomError]]:
        given = [word for word in _KINDS if getattr(self, word) is not None]
        if len(given) != 1:
            problem = "has no kind" if not given else f"is {' and '.join(given)} at once"
            error = refused(problem, f"Write one of {', '.join(_KINDS)}.")
            return [((), given, error)]
        found: list[tuple[tuple[str, ...], Any, PydanticCustomError]] = []
        if self.systemd is not None and _UNIT.fullmatch(self.systemd) is None:
            error = refused(
                "is not the name of a unit", "Write it with its kind, such as neuroca-api.service."
            )
            found.append((("systemd",), self.systemd, error))
        if self.kubernetes is not None and _WORKLOAD.fullmatch(self.kubernetes) is None:
            error = refused("is not a workload", "Write deployment/NAME or statefulset/NAME.")
            found.append((("kubernetes",), self.kubernetes, error))
        if self.namespace is not None and self.kubernetes is None:
            error = refused("is a word for kubernetes", "Remove it.")
            found.append((("namespace",), self.namespace, error))
        for word in _WORDS:
            words = getattr(self, word)
            if self.command is not None and not words:
                error = refused("is missing", "Write the words of the command as a list.")
                found.append(((word,), words, error))
            if self.command is None and words:
                error = refused("needs `command`", "Remove it, or give the service a name.")
                found.append(((word,), words, error))
            if words and not words[0].startswith("/"):
                error = refused(
                    "does not begin with an absolute path", "Write the whole path of the program."
                )
                found.append(((word,), words, error))
        return found
