"""Airflow's own encryption of secrets in its database: which key, and how it is used.

https://airflow.apache.org/docs/apache-airflow/stable/security/secrets/fernet.html
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from neuroca_backup.engines.airflow_metadata.tables import FERNET_KEY, FERNET_KEY_FILE
from neuroca_backup.errors import AccessDeniedError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint

VARIABLE = "AIRFLOW__CORE__FERNET_KEY"
_OTHER_WAYS = (f"{VARIABLE}_CMD", f"{VARIABLE}_SECRET")
_MOST_BYTES = 64 * 1024  # a longer file holds no keys
_LET_OTHERS_IN = 0o037  # a group may read: orchestrators mount secrets so


class Keys:
    """One or more Fernet keys; the first encrypts, all decrypt. Their repr shows none."""

    def __init__(self, text: str, *, where: str) -> None:
        try:
            keys = [Fernet(key.strip().encode()) for key in text.split(",") if key.strip()]
        except ValueError:
            keys = []
        if not keys:
            raise ConfigurationError(
                f"{where} holds no Fernet key",
                remedy="Write the `fernet_key` of that Airflow: 32 bytes in URL-safe base64, "
                "several with commas between, the newest first.",
                path=where,
            ) from None
        self._keys = MultiFernet(keys)
        self.where = where

    def decrypt(self, value: str, *, of: str) -> str:
        """Return what `value` encrypts; `of` names it in the error.

        Raises:
            ConfigurationError: None of the keys opens it.
        """
        try:
            return self._keys.decrypt(value.encode()).decode()
        except (InvalidToken, UnicodeError):
            raise ConfigurationError(
                f"The Fernet key of {self.where} does not open {of}",
                remedy="Give the key with which that Airflow encrypts, and older ones after it "
                "with commas between.",
                path=self.where,
            ) from None

    def encrypt(self, value: str) -> str:
        """Return `value` encrypted with the first key."""
        return self._keys.encrypt(value.encode()).decode()


def find(
    endpoint: Endpoint, file: Path | None = None, *, environ: Mapping[str, str] | None = None
) -> Keys:
    """Return the keys of the Airflow whose database `endpoint` is.

    They are looked for in the connection's extra (`fernet_key`, then `fernet_key_file`), in
    `file`, and in the environment variable that Airflow itself reads.

    Raises:
        ConfigurationError: There is none, or it is no key.
        AccessDeniedError: The file may not be read, or may be read by others.
    """
    variables = os.environ if environ is None else environ
    given = endpoint.extra.get(FERNET_KEY)
    if given:
        return Keys(str(given), where=f"{FERNET_KEY} in the extra of the connection")
    named = endpoint.extra.get(FERNET_KEY_FILE)
    if named or file is not None:
        path = Path(str(named)) if named else Path(str(file))
        return Keys(_read(path), where=str(path))
    if variables.get(VARIABLE):
        return Keys(variables[VARIABLE], where=VARIABLE)
    others = [name for name in _OTHER_WAYS if variables.get(name)]
    raise ConfigurationError(
        f"There is no Fernet key for the Airflow at {endpoint.label}"
        + (f" ({' and '.join(others)} are not read here)" if others else ""),
        remedy=f"Set {VARIABLE}, name a private file in options.{FERNET_KEY_FILE}, or write "
        f"`{FERNET_KEY}` into the extra of the connection.",
        path=f"options.{FERNET_KEY_FILE}",
    )


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _LET_OTHERS_IN:
                raise AccessDeniedError(
                    f"The Fernet key file {path} may be used by others (mode {mode:04o})",
                    remedy=f"Run `chmod 600 {path}`.",
                    path=str(path),
                )
            return file.read(_MOST_BYTES).decode("ascii", "replace")
    except OSError as error:
        raise ConfigurationError(
            f"The Fernet key file {path} cannot be read: {error.strerror}",
            remedy="Correct the path, and let the user who makes the backups read it.",
            path=str(path),
        ) from None
