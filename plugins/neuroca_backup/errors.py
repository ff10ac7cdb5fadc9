"""Every error this project raises, on one screen.

Two roots decide what a scheduler does: a `TransientError` may pass when the same call is made
again, a `PermanentError` will not until a person changes something. Each error states the
problem, then the remedy, and keeps its facts as fields. No error may carry a secret.
"""

from __future__ import annotations

from typing import Any


class BackupError(Exception):
    """An error with a problem, a remedy and named facts; it survives pickling."""

    def __init__(self, problem: str, *, remedy: str, **facts: Any) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.problem.rstrip('.')}. {self.remedy}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.problem, self.remedy, self.facts)


def _rebuild(
    kind: type[BackupError], problem: str, remedy: str, facts: dict[str, Any]
) -> BackupError:
    return kind(problem, remedy=remedy, **facts)


class TransientError(BackupError):
    """The same call may succeed later: schedulers retry it."""


class UnreachableError(TransientError):
    """A server or an endpoint did not answer."""


class StoreUnavailableError(TransientError):
    """A store answered with a fault of its own, or cut a transfer short."""


class InterruptedToolError(TransientError):
    """A vendor tool was killed or lost its connection half way."""


class PermanentError(BackupError):
    """A person has to change something before the same call can succeed."""


class ConfigurationError(PermanentError):
    """A setting is missing, unknown or contradicts another; names file, path and value."""


class AccessDeniedError(PermanentError):
    """Credentials are wrong, or lack a permission."""


class NotFoundError(PermanentError):
    """The named object, backup, database or bucket does not exist."""


class ArchivedError(PermanentError):
    """An object lies in an archive that gives nothing back before it was asked hours ahead."""


class AlreadyExistsError(PermanentError):
    """A create-only write found something in its place."""


class ToolMissingError(PermanentError):
    """A vendor tool is not installed where it was looked for."""


class ToolFailedError(PermanentError):
    """A vendor tool exited non-zero; carries its exit code and the tail of its stderr."""


class IncompatibleVersionError(PermanentError):
    """Client, server or backup versions cannot work together; names both."""


class EmptySourceError(PermanentError):
    """A source gave nothing, and nothing says that it should be empty."""


class ChainBrokenError(PermanentError):
    """An incremental backup cannot continue its parent, or a link of a chain is missing."""


class SpoolError(PermanentError):
    """The spool is full, not private, or lacks the previous stage's files."""


class DamagedError(PermanentError):
    """Stored bytes are not the bytes that were written; names the object and the store."""


class KeyUnavailableError(PermanentError):
    """No recipient could unwrap the keyset; lists what each one answered."""


class TargetRefusedError(PermanentError):
    """A restore target may not be written to: not empty, a production endpoint, not confirmed."""


class ComparisonError(PermanentError):
    """What was restored differs from what the manifest says was backed up."""
