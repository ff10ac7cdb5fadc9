"""The keyset: the one secret of a backup; it seals the members and authenticates the manifest."""

from __future__ import annotations

import hmac
from functools import cached_property
from typing import Any, Never, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from neuroca_backup.errors import DamagedError

_MAC_INFO = b"neuroca-backup manifest"
_MAC_KEY_BYTES = 32


class Keyset:
    """A Tink keyset with one AES256_GCM_HKDF_1MB key; never shown and never pickled."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    @classmethod
    def generate(cls) -> Self:
        """Return a fresh keyset."""
        from tink import new_keyset_handle, proto_keyset_format, secret_key_access  # noqa: PLC0415
        from tink.streaming_aead import streaming_aead_key_templates  # noqa: PLC0415

        _register()
        handle = new_keyset_handle(streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
        return cls(proto_keyset_format.serialize(handle, secret_key_access.TOKEN))

    @classmethod
    def from_bytes(cls, secret: bytes) -> Self:
        """Return the keyset whose `secret` was kept; whether Tink can read it shows on use."""
        return cls(bytes(secret))

    @property
    def secret(self) -> bytes:
        """The serialised keyset, at most 131 bytes: whoever has it reads the backup."""
        return self._secret

    def streaming_aead(self) -> Any:
        """Return Tink's StreamingAead primitive.

        Raises:
            DamagedError: The secret is not a keyset for streams.
        """
        return self._primitive

    def mac(self, data: bytes) -> str:
        """Return the HMAC-SHA256 of `data` in hex."""
        return hmac.digest(self._mac_key, data, "sha256").hex()

    def verify_mac(self, data: bytes, mac: str) -> bool:
        """Return whether `mac` is the MAC of `data`, in a time that tells nothing."""
        return hmac.compare_digest(self.mac(data).encode(), mac.encode())

    @cached_property
    def _mac_key(self) -> bytes:
        derivation = HKDF(algorithm=SHA256(), length=_MAC_KEY_BYTES, salt=None, info=_MAC_INFO)
        return derivation.derive(self._secret)

    @cached_property
    def _primitive(self) -> Any:
        from tink import TinkError, proto_keyset_format, secret_key_access  # noqa: PLC0415
        from tink.streaming_aead import StreamingAead  # noqa: PLC0415

        _register()
        try:
            handle = proto_keyset_format.parse(self._secret, secret_key_access.TOKEN)
            return handle.primitive(StreamingAead)  # type: ignore[type-abstract]
        except TinkError:
            # Tink's own words may quote what it could not parse.
            raise DamagedError(
                "An unwrapped secret is not a keyset for streams",
                remedy="Restore from another store, whose keys.json may be intact.",
            ) from None

    def __repr__(self) -> str:
        return "Keyset(<secret>)"

    def __reduce__(self) -> Never:
        raise TypeError("a keyset is never pickled: pass the keys.json and unwrap it again")


def _register() -> None:
    # Half a second: paid by those who seal or unseal, not by everyone who imports this module.
    from tink import streaming_aead  # noqa: PLC0415

    streaming_aead.register()
