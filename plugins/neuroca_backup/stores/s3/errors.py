"""What the answers of S3, and the failures of the AWS SDK, mean in this project's errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore import exceptions as sdk

from neuroca_backup.errors import (
    AccessDeniedError,
    ArchivedError,
    BackupError,
    ConfigurationError,
    NotFoundError,
    PermanentError,
    StoreUnavailableError,
    UnreachableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_PERMISSIONS = (
    "s3:ListBucket, s3:ListBucketVersions, s3:ListBucketMultipartUploads, s3:GetObject, "
    "s3:PutObject, s3:DeleteObject, s3:DeleteObjectVersion, s3:AbortMultipartUpload and "
    "s3:ListMultipartUploadParts"
)
_PERMISSION_OF = {
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "HeadObject": "s3:GetObject (and s3:ListBucket, without which a missing object is denied)",
    "GetObject": "s3:GetObject (and s3:ListBucket, without which a missing object is denied)",
    "DeleteObjects": "s3:DeleteObject and s3:DeleteObjectVersion, and no lock on the object",
}
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.NoAuthTokenError,
)

# What a code means: the error, the problem, the remedy.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_NO_BUCKET = (
    NotFoundError,
    "the bucket does not exist",
    "Create it, or correct its name under `storage` in backup.yaml.",
)
_NO_OBJECT = (NotFoundError, "there is no such object", "Look for it in another store.")
_DENIED = (
    AccessDeniedError,
    "access is denied",
    f"A store needs {_PERMISSIONS}, and the use of the bucket's KMS key if it has one.",
)
_RENEW = "Renew the credentials of the store's connection."
_EXPIRED = (AccessDeniedError, "the session token has expired", _RENEW)
_FAULT = (StoreUnavailableError, "the service is overloaded or at fault", "It is tried again.")
_ELSEWHERE = (
    ConfigurationError,
    "the bucket is in another region",
    "Correct `region` under `storage` in backup.yaml.",
)
_MEANING: dict[str, tuple[type[BackupError], str, str]] = {
    "NoSuchBucket": _NO_BUCKET,
    "NoSuchKey": _NO_OBJECT,
    "NoSuchVersion": _NO_OBJECT,
    "NotFound": _NO_OBJECT,
    "404": _NO_OBJECT,
    "AccessDenied": _DENIED,
    "AllAccessDisabled": _DENIED,
    "Forbidden": _DENIED,
    "403": _DENIED,
    "ExpiredToken": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": (AccessDeniedError, "the session token is not valid", _RENEW),
    "InvalidAccessKeyId": (AccessDeniedError, "the access key is unknown", _RENEW),
    "SignatureDoesNotMatch": (
        AccessDeniedError,
        "the secret key does not belong to the access key",
        _RENEW,
    ),
    "RequestTimeTooSkewed": (
        PermanentError,
        "the clocks of this machine and of the service differ by more than 15 minutes",
        "Set this machine's clock (NTP).",
    ),
    "InvalidObjectState": (
        ArchivedError,
        "the object is archived in Glacier and cannot be read as it is",
        "Restore it from Glacier first (`aws s3api restore-object`), then try again.",
    ),
    "NoSuchUpload": (
        StoreUnavailableError,
        "the upload was removed while it was under way",
        "It is tried again; sweep only uploads older than the longest backup.",
    ),
    "PermanentRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "301": _ELSEWHERE,
    **dict.fromkeys(
        (
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "RequestLimitExceeded",
            "InternalError",
            "ServiceUnavailable",
            "RequestTimeout",
            "OperationAborted",
            "BadDigest",
            "XAmzContentSHA256Mismatch",
        ),
        _FAULT,
    ),
}


@contextmanager
def translated(place: str, *, store: str, key: str, endpoint: str) -> Iterator[None]:
    """Turn what the SDK raises in the block into an error that names `place` and `store`.

    `endpoint` is the URL that was asked; of it only host and port are told.
    """
    try:
        yield
    except (sdk.ClientError, sdk.BotoCoreError) as error:
        facts = {"store": store, "key": key}
        if isinstance(error, sdk.ClientError):
            raise _refusal(error, f"{place} (store {store})", facts) from error
        address = urlsplit(endpoint).netloc.rpartition("@")[2]
        raise _failure(error, f"{place} (store {store}, {address})", facts) from error


def _refusal(error: sdk.ClientError, where: str, facts: dict[str, str]) -> BackupError:
    """Return what an answer of the service means."""
    answer = error.response.get("Error", {})
    code = str(answer.get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    action = error.operation_name
    unknown = (
        PermanentError,
        f"refused: {answer.get('Message', 'no reason given')}",
        "Mend what the service complains about.",
    )
    kind, problem, remedy = _MEANING.get(
        code, _FAULT if status >= 500 or status == 429 else unknown
    )
    if action == "HeadBucket" and kind is NotFoundError:
        kind, problem, remedy = _NO_BUCKET
    if remedy == _DENIED[2]:
        problem = f"{problem}; {action} needs {_PERMISSION_OF.get(action, 's3:PutObject')}"
    return kind(f"{where}: {problem} ({code})", remedy=remedy, **facts, code=code, action=action)


def _failure(error: sdk.BotoCoreError, where: str, facts: dict[str, str]) -> BackupError:
    """Return what it means that there was no answer, or half of one."""
    kind = type(error).__name__
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError(
            f"{where}: there are no usable credentials ({kind})",
            remedy="Set `connection` of the store, or what the AWS SDK's own chain looks for.",
            **facts,
        )
    if isinstance(error, sdk.SSLError):
        return UnreachableError(
            f"{where}: no TLS connection ({kind})",
            remedy="Look at the certificate, and at the proxy if there is one.",
            **facts,
        )
    if isinstance(error, sdk.ConnectionError):
        return UnreachableError(
            f"{where}: the endpoint did not answer ({kind})",
            remedy="Look at the network, the region and the endpoint of the connection.",
            **facts,
        )
    if isinstance(error, (sdk.HTTPClientError, sdk.IncompleteReadError)):
        return StoreUnavailableError(
            f"{where}: the transfer was cut short ({kind})", remedy="It is tried again.", **facts
        )
    return PermanentError(
        f"{where}: the AWS SDK refused the call ({kind})",
        remedy="Look at the region, the bucket's name and the connection of this store.",
        **facts,
    )
