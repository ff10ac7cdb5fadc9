"""The recovery key: an RSA pair whose private half is kept offline.

Backups are wrapped with the public half; the private half opens them when every KMS key is lost.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KIND = "recovery"
MIN_BITS = 3072
GENERATED_BITS = 4096


class RecoveryPublicKey:
    """The public half, from a PEM file; its id is the SHA-256 of its SubjectPublicKeyInfo."""

    kind = KIND

    def __init__(self, path: Path) -> None:
        try:
            key = serialization.load_pem_public_key(_read(path))
        except (ValueError, UnsupportedAlgorithm):
            raise _not_a_key(path, "public") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise _not_a_key(path, "public")
        self._key = _strong(key, path)
        self.id = _fingerprint(key)

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        """Return `secret` encrypted with RSA-OAEP (SHA-256, the backup's id as label)."""
        return self._key.encrypt(secret, _oaep(backup_id))

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:  # noqa: ARG002 - the contract
        """Raise: only the private half can unwrap."""
        raise KeyUnavailableError(
            f"The recovery key {self.id} is here with its public half only",
            remedy="Fetch the private half from where it is kept offline, and name its file.",
            key_id=self.id,
        )


class RecoveryPrivateKey:
    """The private half, from a PEM file; `passphrase` is called only if the file asks for one."""

    kind = KIND

    def __init__(self, path: Path, passphrase: Callable[[], bytes] | None = None) -> None:
        self._key = _load_private(path, passphrase)
        public = _strong(self._key.public_key(), path)
        self.id = _fingerprint(public)

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        """Return what the public half would."""
        return self._key.public_key().encrypt(secret, _oaep(backup_id))

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:
        """Return the secret.

        Raises:
            DamagedError: The bytes were not wrapped for this key and this backup.
        """
        try:
            return self._key.decrypt(wrapped, _oaep(backup_id))
        except ValueError:
            raise DamagedError(
                f"What was wrapped for the recovery key {self.id} was changed, "
                "or wrapped for another backup",
                remedy="Restore from another store, whose keys.json may be intact.",
                key_id=self.id,
            ) from None


def generate_recovery_pair(private_path: Path, public_path: Path, passphrase: bytes) -> None:
    """Make a pair of 4096 bits: a PKCS #8 file encrypted with `passphrase`, and the public half.

    Raises:
        AlreadyExistsError: One of the files exists; neither is touched.
        ConfigurationError: The passphrase is empty, or a file cannot be written.
    """
    if not passphrase:
        raise ConfigurationError(
            "A recovery key needs a passphrase", remedy="Give one that is kept apart from the file."
        )
    for path in (private_path, public_path):
        if path.exists() or path.is_symlink():
            raise _exists(path)
    key = rsa.generate_private_key(public_exponent=65537, key_size=GENERATED_BITS)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    create_file(private_path, private, mode=0o600)
    create_file(public_path, public, mode=0o644)


def create_file(path: Path, data: bytes, *, mode: int) -> None:
    """Write a new file, on disk when this returns; never in the place of another.

    Raises:
        AlreadyExistsError: There is one.
        ConfigurationError: The folder does not exist or may not be written to.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            # The umask may have taken bits away; it never adds any.
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}",
            remedy="Name a file in a folder that you may write to.",
            value=str(path),
        ) from error


def _load_private(path: Path, passphrase: Callable[[], bytes] | None) -> rsa.RSAPrivateKey:
    pem = _read(path)
    secret: bytes | None = None
    try:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            # This is how `cryptography` says that the file is encrypted.
            if passphrase is None:
                raise AccessDeniedError(
                    f"The recovery key {path} is encrypted and no passphrase was given",
                    remedy="Give its passphrase.",
                    path=str(path),
                ) from None
            secret = passphrase()
            key = serialization.load_pem_private_key(pem, password=secret)
    except (ValueError, UnsupportedAlgorithm, TypeError):
        if secret is not None:
            raise AccessDeniedError(
                f"The passphrase does not open the recovery key {path}",
                remedy="Try again; the passphrase is kept apart from the file.",
                path=str(path),
            ) from None
        raise _not_a_key(path, "private") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _not_a_key(path, "private")
    return key


def _oaep(backup_id: str) -> padding.OAEP:
    return padding.OAEP(
        mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=backup_id.encode()
    )


def _fingerprint(key: rsa.RSAPublicKey) -> str:
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return f"sha256:{hashlib.sha256(encoded).hexdigest()}"


def _strong(key: rsa.RSAPublicKey, path: Path) -> rsa.RSAPublicKey:
    if key.key_size < MIN_BITS:
        raise ConfigurationError(
            f"The recovery key {path} has {key.key_size} bits; at least {MIN_BITS} are needed",
            remedy=f"Make a new pair, of {GENERATED_BITS} bits.",
            value=str(path),
        )
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(
            f"The recovery key {path} does not exist",
            remedy="Name the right file, or make a new pair.",
            path=str(path),
        ) from None
    except OSError as error:
        raise AccessDeniedError(
            f"The recovery key {path} cannot be read: {error.strerror}",
            remedy="Let this user read it.",
            path=str(path),
        ) from error


def _exists(path: Path) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{path} already exists, and a key is never overwritten",
        remedy="Choose another name.",
        path=str(path),
    )


def _not_a_key(path: Path, half: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} does not hold the {half} half of an RSA key in PEM",
        remedy=f"Name the file with the {half} half of the recovery key.",
        value=str(path),
    )
