"""Recipients that live in AWS KMS: the keyset is encrypted by the key itself.

See https://docs.aws.amazon.com/kms/latest/APIReference/API_Encrypt.html.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from botocore import exceptions as boto

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

KIND = "kms"

_ARN = re.compile(r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9-]+):\d{12}:key/[A-Za-z0-9-]+")

# Error codes of KMS and of AWS's signature check, by what a person has to do about them.
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_UNUSABLE = {
    "NotFoundException": "does not exist",
    "DisabledException": "is disabled",
    "KMSInvalidStateException": "is pending deletion, or not ready for use",
    "InvalidKeyUsageException": "is not a key for encryption and decryption",
    "InvalidArnException": "is not an ARN that KMS accepts",
}
_DAMAGED = {"InvalidCiphertextException", "IncorrectKeyException"}
_BUSY = {
    "DependencyTimeoutException",
    "KMSInternalException",
    "KeyUnavailableException",
    "RequestTimeout",
    "ServiceUnavailableException",
    "Throttling",
    "ThrottlingException",
}


_NO_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.NoAuthTokenError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.TokenRetrievalError,
)


def region_of(key_arn: str) -> str:
    """Return the region in a full key ARN.

    Raises:
        ConfigurationError: It is an alias, a bare key id or no ARN: these need the region that
            made them, and may mean another key tomorrow.
    """
    match = _ARN.fullmatch(key_arn)
    if match is None:
        raise ConfigurationError(
            f"{key_arn!r} is not the full ARN of a KMS key",
            remedy="Write arn:aws:kms:REGION:ACCOUNT:key/ID; "
            "`aws kms describe-key --key-id ALIAS` prints it.",
            value=key_arn,
        )
    return match["region"]


class KmsRecipient:
    """The KMS key `key_arn`; `client_factory` makes a boto3 client of its region when needed."""

    kind = KIND

    def __init__(self, key_arn: str, client_factory: Callable[[], Any]) -> None:
        self.region = region_of(key_arn)
        self.id = key_arn
        self._client_factory = client_factory

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        """Return `secret` encrypted by the key, with the backup's id as encryption context."""
        blob: bytes = self._call("encrypt", "CiphertextBlob", backup_id, Plaintext=secret)
        return blob

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:
        """Return the secret.

        Raises:
            AccessDeniedError: The credentials lack kms:Decrypt on the key.
            KeyUnavailableError: The key is gone, disabled or pending deletion.
            UnreachableError: KMS did not answer, or answered with a fault of its own.
            DamagedError: The bytes were not wrapped by this key for this backup.
        """
        secret: bytes = self._call("decrypt", "Plaintext", backup_id, CiphertextBlob=wrapped)
        return secret

    def renewed_at(self) -> datetime:
        """Return when (aware) the key got the material that it wraps with: made, or rotated.

        It needs kms:DescribeKey and kms:ListKeyRotations.
        https://docs.aws.amazon.com/kms/latest/developerguide/rotate-keys.html

        Raises:
            BackupError: KMS did not tell, so it is not known.
        """
        made: datetime = self._ask("describe_key")["KeyMetadata"]["CreationDate"]
        rotations = self._ask("list_key_rotations").get("Rotations", ())
        newest: datetime = max([made, *(one["RotationDate"] for one in rotations)])
        return newest.astimezone(UTC)

    @cached_property
    def _client(self) -> Any:
        return self._client_factory()

    def _call(self, operation: str, answer: str, backup_id: str, **payload: bytes) -> Any:
        context = {"neuroca:backup_id": backup_id}
        return self._ask(operation, EncryptionContext=context, **payload)[answer]

    def _ask(self, operation: str, **payload: Any) -> Any:
        try:
            return getattr(self._client, operation)(KeyId=self.id, **payload)
        except (boto.BotoCoreError, boto.ClientError) as error:
            raise _translate(error, operation, self.id, self.region) from error


def _translate(error: Exception, operation: str, key_arn: str, region: str) -> BackupError:
    what = f"kms:{_action(operation)} with {key_arn}"
    if isinstance(error, boto.ClientError):
        return _translate_answer(error, what, operation, key_arn, region)
    if isinstance(error, (boto.ConnectionError, boto.HTTPClientError)):
        return _unreachable(f"{what} got no answer ({type(error).__name__})", key_arn, region)
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError(
            f"{what} found no AWS credentials ({type(error).__name__})",
            remedy="Set them in the AWS connection, the environment or the instance's role.",
            key_arn=key_arn,
        )
    return ConfigurationError(
        f"{what} could not be asked for ({type(error).__name__})",
        remedy="Check the region and the extra words of the AWS connection.",
        key_arn=key_arn,
    )


def _translate_answer(
    error: Any, what: str, operation: str, key_arn: str, region: str
) -> BackupError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _DENIED:
        return AccessDeniedError(
            f"{what} was refused ({code})",
            remedy=f"Check the credentials, allow them kms:{_action(operation)} in the key's "
            "policy and in their own, and check the clock of this machine.",
            key_arn=key_arn,
            code=code,
        )
    if code in _UNUSABLE:
        return KeyUnavailableError(
            f"The KMS key {key_arn} {_UNUSABLE[code]} ({code})",
            remedy="Enable it or cancel its deletion (`aws kms enable-key`, `aws kms "
            "cancel-key-deletion`); if it is lost, restore with another recipient's key.",
            key_arn=key_arn,
            code=code,
        )
    if code in _DAMAGED:
        return DamagedError(
            f"{what}: the wrapped keyset was changed, or is for another backup or key ({code})",
            remedy="Restore from another store, whose keys.json may be intact.",
            key_arn=key_arn,
            code=code,
        )
    if code in _BUSY or status >= 500:
        return _unreachable(f"{what} was answered with {code} (HTTP {status})", key_arn, region)
    return KeyUnavailableError(
        f"{what} failed with {code} (HTTP {status})",
        remedy="Look this code up in the reference of the AWS KMS API.",
        key_arn=key_arn,
        code=code,
    )


def _action(operation: str) -> str:
    """Return the name that IAM has for a method of the client."""
    return "".join(word.capitalize() for word in operation.split("_"))


def _unreachable(problem: str, key_arn: str, region: str) -> UnreachableError:
    return UnreachableError(
        problem,
        remedy=f"It is tried again; while {region} is down, restore with another recipient's key.",
        key_arn=key_arn,
    )
