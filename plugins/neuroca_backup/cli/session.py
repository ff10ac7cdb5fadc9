"""What the options before the command mean: settings, connections, and a runtime made of them."""

# ruff: noqa: PLC0415 - `--help` must not pay for what the commands need

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroca_backup.errors import AccessDeniedError, ConfigurationError

if TYPE_CHECKING:
    from neuroca_backup.connections import FileConnections
    from neuroca_backup.runtime import Runtime
    from neuroca_backup.settings import Settings

log = logging.getLogger(__name__)

_LONGEST_PASSPHRASE = 4096  # bytes; what follows is not a passphrase but a wrong file


AsOf = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Read versioned buckets as they were at this time, such as 2026-11-23T02:00Z: what "
        "was overwritten or deleted later does not count. Nothing is written to them.",
    ),
]


class Keys(Enum):
    """What a command does with keys; it asks for no key that it does not use."""

    NONE = auto()
    OPEN = auto()
    SEAL = auto()


@dataclass
class Session:
    """One run of the command."""

    config_path: Path | None = None
    connections_path: Path | None = None

    @classmethod
    def of(cls, context: typer.Context) -> Session:
        """Return the session of a command's context."""
        session: Session = context.obj
        return session

    @cached_property
    def path(self) -> Path:
        """Where backup.yaml is."""
        from neuroca_backup.settings import default_path

        return self.config_path or default_path()

    @cached_property
    def settings(self) -> Settings:
        """What backup.yaml says."""
        from neuroca_backup.settings import load

        return load(self.path)

    @cached_property
    def connections(self) -> FileConnections:
        """Connections from the environment and the file."""
        from neuroca_backup.connections import FileConnections

        return FileConnections(self.connections_path)

    def runtime(
        self,
        keys: Keys,
        *,
        recovery_key: Path | None = None,
        passphrase_file: Path | None = None,
        as_of: str | None = None,
    ) -> Runtime:
        """Return the services for a command that works on backups, now or `as_of` a time.

        What a rescue machine may lack and the command can do without is left out, and said: the
        catalog's connection, and with `Keys.OPEN` a local key file, as any one key is enough.
        """
        from neuroca_backup.keyring.recovery import RecoveryPrivateKey
        from neuroca_backup.runtime import Runtime
        from neuroca_backup.services import past

        moment = past.moment(as_of, field="--as-of") if as_of is not None else None
        settings = self.settings
        extra = []
        if recovery_key is not None:
            phrase = passphrase(passphrase_file, what=f"the recovery key {recovery_key}")
            extra.append(RecoveryPrivateKey(recovery_key, phrase))
        updates: dict[str, Any] = {}
        if keys is not Keys.SEAL:
            dropped = {"recovery_public_key": None}
            local = settings.encryption.local_key_file
            if keys is Keys.NONE:
                dropped |= {"local_key_file": None, "kms_key_id": None}
                dropped |= {"secondary_kms_key_id": None}
            elif local is not None and not local.exists():
                log.warning("The key file %s is not here; other keys are tried", local)
                dropped |= {"local_key_file": None}
            updates["encryption"] = settings.encryption.model_copy(update=dropped)
        catalog = settings.catalog.connection
        if catalog is not None:
            try:
                self.connections.endpoint(catalog)
            except ConfigurationError as error:
                log.warning("Going on without the catalog: %s", error.problem)
                updates["catalog"] = settings.catalog.model_copy(update={"connection": None})
        return Runtime.build(
            settings.model_copy(update=updates),
            self.connections,
            extra_recipients=extra,
            actor=actor(),
        ).at(moment)


def actor() -> str:
    """Return who runs this, for the records: `user@host`."""
    from neuroca_backup.services.audit import operating_user

    return operating_user()


def passphrase(file: Path | None, *, what: str, confirm: bool = False) -> Callable[[], bytes]:
    """Return what gives the passphrase of `what` when it is asked for: `file`, or the terminal.

    Raises:
        ConfigurationError: From the call: the file cannot be read, or there is no terminal.
    """

    def ask() -> bytes:
        if file is not None:
            return _first_line(file)
        if not sys.stdin.isatty():
            raise ConfigurationError(
                f"There is no terminal to ask for the passphrase of {what}",
                remedy="Write it into a file of mode 600 and name that with --passphrase-file.",
            )
        typed: str = typer.prompt(
            f"Passphrase of {what}", hide_input=True, confirmation_prompt=confirm, err=True
        )
        return typed.encode()

    return ask


def _first_line(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            line = opened.readline(_LONGEST_PASSPHRASE).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(
            f"The passphrase file {file} cannot be read: {error.strerror}",
            remedy="Name a file whose first line is the passphrase.",
            value=str(file),
        ) from None
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise AccessDeniedError(
            f"The passphrase file {file} may be used by others "
            f"(mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"Run `chmod 600 {file}`.",
            path=str(file),
        )
    return line
