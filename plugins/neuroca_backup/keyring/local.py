"""A recipient that is a key file on this machine, for installations without a KMS."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from typing import TYPE_CHECKING, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from neuroca_backup.errors import (
    AccessDeniedError,
    ConfigurationError,
    DamagedError,
    NotFoundError,
)
from neuroca_backup.keyring.recovery import create_file

if TYPE_CHECKING:
    from pathlib import Path

KIND = "local"

_KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_INFO = b"neuroca-backup local key id"


class LocalKeyFile:
    """32 random bytes, in base64, in a file that only its owner may read.

    Its id is an HMAC made with the key: it names the key and tells nothing of it.
    """

    kind = KIND

    def __init__(self, path: Path) -> None:
        key = _read_key(path)
        self.id = f"hmac-sha256:{hmac.digest(key, _ID_INFO, hashlib.sha256).hex()}"
        self._cipher = AESGCM(key)

    @classmethod
    def generate(cls, path: Path) -> Self:
        """Write a new key to `path` (mode 0600) and return it.

        Raises:
            AlreadyExistsError: There is a file; a key is never overwritten.
        """
        create_file(path, base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n", mode=0o600)
        return cls(path)

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        """Return a random nonce (12 bytes) and `secret` encrypted with AES-256-GCM."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, backup_id.encode())

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:
        """Return the secret.

        Raises:
            DamagedError: The bytes were not wrapped with this key for this backup.
        """
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, sealed, backup_id.encode())
        except (InvalidTag, ValueError):
            raise DamagedError(
                f"What was wrapped for the local key {self.id} was changed, "
                "or wrapped for another backup",
                remedy="Restore from another store, whose keys.json may be intact.",
                key_id=self.id,
            ) from None


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            # More than any key, so that a wrong file is seen to be one without reading it all.
            text = file.read(1024)
    except FileNotFoundError:
        raise NotFoundError(
            f"The key file {path} does not exist",
            remedy="Name the right file, or generate one; without the old file old backups that "
            "have no other recipient cannot be read.",
            path=str(path),
        ) from None
    except OSError as error:
        raise AccessDeniedError(
            f"The key file {path} cannot be read: {error.strerror}",
            remedy="Let this user own it.",
            path=str(path),
        ) from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077:
        raise AccessDeniedError(
            f"The key file {path} may be used by others (mode {stat.S_IMODE(status.st_mode):04o})",
            remedy=f"Run `chmod 600 {path}`; if others may have read it, make a new key.",
            path=str(path),
        )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigurationError(
            f"The key file {path} does not hold {_KEY_BYTES} bytes in base64",
            remedy="Name the right file, or bring it back from where it is kept twice.",
            value=str(path),
        )
    return key
