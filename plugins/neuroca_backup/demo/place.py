"""Where the demo keeps everything: `.demo` in the repository, private to its user."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from neuroca_backup.errors import AlreadyExistsError, ConfigurationError

_REPOSITORY = Path(__file__).resolve().parents[3]
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True)
class Place:
    """The demo's folder, `root`, and the checkout whose DAGs it runs."""

    root: Path
    repository: Path

    @classmethod
    def of_checkout(cls, repository: Path = _REPOSITORY) -> Place:
        """Return the place of a checkout.

        Raises:
            ConfigurationError: The package was installed without one.
        """
        if not (repository / "dags" / "backup.py").is_file():
            raise ConfigurationError(
                f"{repository} is not a checkout of this project: it has no dags/backup.py",
                remedy="Clone the repository, and run `make demo` in it.",
                value=str(repository),
            )
        return cls(root=repository / ".demo", repository=repository)

    @property
    def servers(self) -> Path:
        """The sandbox of the data stores and the two regions."""
        return self.root / "servers"

    @property
    def metadata(self) -> Path:
        """The sandbox of the server for Airflow's metadata and the catalog."""
        return self.root / "metadata"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / "airflow"

    @property
    def logs(self) -> Path:
        """What Airflow's processes print; the logs of tasks are in `airflow/logs`."""
        return self.root / "logs"

    @property
    def task_logs(self) -> Path:
        """The logs of tasks, by DAG, run and task."""
        return self.airflow / "logs"

    @property
    def spool(self) -> Path:
        """The spool of the pipeline."""
        return self.root / "spool"

    @property
    def files(self) -> Path:
        """What is backed up as files: a configuration, models, logs."""
        return self.root / "files"

    @property
    def recovery(self) -> Path:
        """The recovery key pair; in production its private half is kept offline."""
        return self.root / "recovery"

    @property
    def settings(self) -> Path:
        """The demo's backup.yaml."""
        return self.root / "backup.yaml"

    @property
    def environment(self) -> Path:
        """Airflow's environment, to be sourced by a shell."""
        return self.root / "environment"

    @property
    def passwords(self) -> Path:
        """The users of Airflow's simple login, by name, with their passwords."""
        return self.airflow / "passwords.json"

    def create(self) -> None:
        """Make the folders, as private ones."""
        for folder in (self.root, self.airflow, self.logs, self.recovery):
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
        # Masking and preloading are the same here as in production.
        link = self.airflow / "config"
        if not link.is_symlink():
            link.symlink_to(self.repository / "config", target_is_directory=True)

    def remove(self) -> None:
        """Remove everything; the servers must have been stopped."""
        shutil.rmtree(self.root)

    def secrets(self) -> dict[str, str]:
        """Return the demo's passwords by name, made at the first call and kept until `remove`."""
        path = self.root / "secrets.json"
        made = {
            "admin": secrets.token_urlsafe(12),
            "approver": secrets.token_urlsafe(12),
            "api": secrets.token_hex(32),
            "fernet": _fernet_key(),
            "jwt": secrets.token_hex(32),
            "recovery": secrets.token_urlsafe(24),
        }
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        if kept.keys() < made.keys():  # an older demo had fewer
            kept = {**made, **kept}
            write_private(path, json.dumps(kept))
        return kept

    @contextmanager
    def exclusive(self, *, create: bool) -> Iterator[bool]:
        """Keep every other `make demo` and `make down` away; the holder's end frees it.

        Yields whether there is anything: without `create` the folder may be missing.

        Raises:
            AlreadyExistsError: Another one is at work.
        """
        if create:
            self.root.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield False
            return
        try:
            if not _locked(descriptor, self.root):
                raise AlreadyExistsError(
                    f"Another `make demo` or `make down` is at work in {self.root}",
                    remedy="Wait for it, or interrupt it with Ctrl-C, then try again.",
                    path=str(self.root),
                )
            yield True
        finally:
            os.close(descriptor)


def _locked(descriptor: int, root: Path) -> bool:
    """Lock the open directory; False if another has the lock, or has since removed `root`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), root.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)


def _fernet_key() -> str:
    from cryptography.fernet import Fernet  # noqa: PLC0415 - only for the first `up`

    return Fernet.generate_key().decode()
