"""KMS as a recipient: what it asks for, and what it makes of every answer."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError, NoRegionError
from botocore.stub import ANY, Stubber

from neuroca_backup.errors import (
    AccessDeniedError,
    BackupError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    UnreachableError,
)
from neuroca_backup.keyring.keys_document import Keyring
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.keyring.kms import KmsRecipient, region_of
from neuroca_backup.keyring.local import LocalKeyFile

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
ARN = "arn:aws:kms:us-west-2:123456789012:key/0c7d1f7e-5b7a-4e43-9a55-2f6e4c1f0a11"


def client_of(endpoint: str, region: str = "us-west-2") -> Any:
    return boto3.client(
        "kms",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1}),
    )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Path(sys.executable).with_name("moto_server")
    process = subprocess.Popen(
        [server, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def closed_endpoint() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


@pytest.mark.parametrize(
    "name",
    [
        "alias/neuroca",
        "0c7d1f7e-5b7a-4e43-9a55-2f6e4c1f0a11",
        "arn:aws:kms:us-west-2:123456789012:alias/neuroca",
        "arn:aws:s3:us-west-2:123456789012:key/x",
        ARN + "\n",
        "",
    ],
)
def test_only_the_full_arn_of_a_key_is_accepted(name: str) -> None:
    with pytest.raises(ConfigurationError, match="full ARN"):
        KmsRecipient(name, lambda: None)


def test_the_region_is_the_one_in_the_arn() -> None:
    assert region_of(ARN) == "us-west-2"
    assert region_of(ARN.replace("aws", "aws-us-gov", 1)) == "us-west-2"


def test_no_client_is_made_before_it_is_needed() -> None:
    def fail() -> Any:
        raise AssertionError("a client was made")

    assert KmsRecipient(ARN, fail).id == ARN


def test_the_key_and_the_backup_are_named_in_every_request() -> None:
    client = client_of("http://127.0.0.1:1")
    context = {"neuroca:backup_id": BACKUP}
    with Stubber(client) as stub:
        stub.add_response(
            "encrypt",
            {"CiphertextBlob": b"wrapped"},
            {"KeyId": ARN, "EncryptionContext": context, "Plaintext": b"secret"},
        )
        stub.add_response(
            "decrypt",
            {"Plaintext": b"secret"},
            {"KeyId": ARN, "EncryptionContext": context, "CiphertextBlob": b"wrapped"},
        )
        recipient = KmsRecipient(ARN, lambda: client)
        assert recipient.wrap(b"secret", backup_id=BACKUP) == b"wrapped"
        assert recipient.unwrap(b"wrapped", backup_id=BACKUP) == b"secret"
        stub.assert_no_pending_responses()


# The emulator neither disables keys nor enforces their policies: these answers are made up, in
# the shapes that https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html lists.
@pytest.mark.parametrize(
    ("code", "status", "kind", "says"),
    [
        ("AccessDeniedException", 400, AccessDeniedError, "kms:Decrypt"),
        ("ExpiredTokenException", 400, AccessDeniedError, "credentials"),
        ("NotFoundException", 400, KeyUnavailableError, "does not exist"),
        ("DisabledException", 400, KeyUnavailableError, "is disabled"),
        ("KMSInvalidStateException", 400, KeyUnavailableError, "pending deletion"),
        ("InvalidKeyUsageException", 400, KeyUnavailableError, "not a key for encryption"),
        ("InvalidCiphertextException", 400, DamagedError, "another backup"),
        ("IncorrectKeyException", 400, DamagedError, "another backup or key"),
        ("ThrottlingException", 400, UnreachableError, "ThrottlingException"),
        ("DependencyTimeoutException", 503, UnreachableError, "HTTP 503"),
        ("KMSInternalException", 500, UnreachableError, "HTTP 500"),
        ("KeyUnavailableException", 500, UnreachableError, "KeyUnavailableException"),
        ("SomethingNew", 502, UnreachableError, "SomethingNew"),
        ("SomethingNew", 400, KeyUnavailableError, "SomethingNew"),
    ],
)
def test_every_answer_becomes_an_error_that_names_the_key(
    code: str, status: int, kind: type[BackupError], says: str
) -> None:
    client = client_of("http://127.0.0.1:1")
    with Stubber(client) as stub:
        stub.add_client_error("decrypt", code, http_status_code=status, expected_params=ANY_PARAMS)
        with pytest.raises(kind, match=says) as caught:
            KmsRecipient(ARN, lambda: client).unwrap(b"wrapped", backup_id=BACKUP)
    assert ARN in str(caught.value)
    assert type(caught.value) is kind


ANY_PARAMS = {"KeyId": ANY, "EncryptionContext": ANY, "CiphertextBlob": ANY}


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NoCredentialsError(), AccessDeniedError), (NoRegionError(), ConfigurationError)],
)
def test_what_the_sdk_lacks_is_named(error: Exception, kind: type[BackupError]) -> None:
    def fail() -> Any:
        raise error

    with pytest.raises(kind, match=type(error).__name__):
        KmsRecipient(ARN, fail).wrap(b"secret", backup_id=BACKUP)


def test_a_region_that_refuses_connections_is_unreachable(closed_endpoint: str) -> None:
    recipient = KmsRecipient(ARN, lambda: client_of(closed_endpoint))
    with pytest.raises(UnreachableError, match="EndpointConnectionError") as caught:
        recipient.unwrap(b"wrapped", backup_id=BACKUP)
    assert "us-west-2" in str(caught.value)


def test_a_region_that_never_answers_is_unreachable(silent_endpoint: str) -> None:
    recipient = KmsRecipient(ARN, lambda: client_of(silent_endpoint))
    with pytest.raises(UnreachableError, match="ReadTimeoutError"):
        recipient.wrap(b"secret", backup_id=BACKUP)


def test_a_key_that_does_not_exist_is_named(endpoint: str) -> None:
    recipient = KmsRecipient(ARN, lambda: client_of(endpoint))
    with pytest.raises(KeyUnavailableError, match=ARN):
        recipient.wrap(b"secret", backup_id=BACKUP)


def test_a_backup_is_read_through_the_other_region_when_one_is_lost(
    endpoint: str, closed_endpoint: str
) -> None:
    west, central = client_of(endpoint), client_of(endpoint, "eu-central-1")
    arns = [client.create_key()["KeyMetadata"]["Arn"] for client in (west, central)]
    assert [region_of(arn) for arn in arns] == ["us-west-2", "eu-central-1"]
    keyset = Keyset.generate()
    document = Keyring(
        [KmsRecipient(arns[0], lambda: west), KmsRecipient(arns[1], lambda: central)]
    ).wrap(keyset, BACKUP)
    lost = Keyring(
        [
            KmsRecipient(arns[0], lambda: client_of(closed_endpoint)),
            KmsRecipient(arns[1], lambda: central),
        ]
    )
    opened = lost.unwrap(document, backup_id=BACKUP, name="keys.json")
    assert opened.secret == keyset.secret


def test_when_every_region_is_lost_the_error_is_retried_and_lists_them(
    endpoint: str, closed_endpoint: str
) -> None:
    client = client_of(endpoint)
    arns = [client.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
    document = Keyring([KmsRecipient(arn, lambda: client) for arn in arns]).wrap(
        Keyset.generate(), BACKUP
    )
    lost = Keyring([KmsRecipient(arn, lambda: client_of(closed_endpoint)) for arn in arns])
    with pytest.raises(UnreachableError) as caught:
        lost.unwrap(document, backup_id=BACKUP, name="keys.json")
    assert all(arn in str(caught.value) for arn in arns)


def test_a_key_at_hand_is_used_before_any_region_is_asked(endpoint: str, tmp_path: Path) -> None:
    client = client_of(endpoint)
    arn = client.create_key()["KeyMetadata"]["Arn"]
    local = LocalKeyFile.generate(tmp_path / "key")
    keyset = Keyset.generate()
    document = Keyring([KmsRecipient(arn, lambda: client), local]).wrap(keyset, BACKUP)

    def fail() -> Any:
        raise AssertionError("KMS was asked")

    opened = Keyring([KmsRecipient(arn, fail), local]).unwrap(
        document, backup_id=BACKUP, name="keys.json"
    )
    assert opened.secret == keyset.secret
