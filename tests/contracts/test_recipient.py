"""What every recipient must do, asked of every kind of recipient."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from neuroca_backup.errors import AccessDeniedError, DamagedError
from neuroca_backup.keyring.kms import KmsRecipient
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.keyring.recovery import RecoveryPrivateKey, RecoveryPublicKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.keyring import Recipient

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
SECRET = bytes(range(131))
KINDS = ["kms", "recovery", "local"]

# AWS answers IncorrectKeyException where the emulator answers AccessDeniedException.
REFUSALS = (DamagedError, AccessDeniedError)


@pytest.fixture(scope="module")
def kms_client() -> Iterator[Any]:
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
        _wait_for(port, process)
        yield boto3.client(
            "kms",
            region_name="us-west-2",
            endpoint_url=f"http://127.0.0.1:{port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, "moto_server ended"
        assert time.monotonic() < deadline, "moto_server does not listen"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


def _recovery(folder: Path, name: str) -> tuple[RecoveryPublicKey, RecoveryPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return RecoveryPublicKey(public), RecoveryPrivateKey(private)


class Pair:
    """A recipient that wraps, the same one as it unwraps elsewhere, and a stranger."""

    def __init__(self, wraps: Recipient, unwraps: Recipient, stranger: Recipient) -> None:
        self.wraps = wraps
        self.unwraps = unwraps
        self.stranger = stranger


@pytest.fixture(params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    if request.param == "kms":
        client = request.getfixturevalue("kms_client")
        mine, other = (client.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
        return Pair(*(KmsRecipient(arn, lambda: client) for arn in (mine, mine, other)))
    if request.param == "recovery":
        return Pair(*_recovery(tmp_path, "mine"), _recovery(tmp_path, "other")[1])
    mine = LocalKeyFile.generate(tmp_path / "mine")
    return Pair(mine, LocalKeyFile(tmp_path / "mine"), LocalKeyFile.generate(tmp_path / "other"))


def test_what_is_wrapped_is_unwrapped_by_the_same_recipient_elsewhere(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(SECRET, backup_id=BACKUP)
    assert pair.unwraps.unwrap(wrapped, backup_id=BACKUP) == SECRET


def test_wrapping_hides_the_secret_and_never_repeats(pair: Pair) -> None:
    first, second = (pair.wraps.wrap(SECRET, backup_id=BACKUP) for _ in range(2))
    assert SECRET[:16] not in first
    assert first != second


def test_the_longest_secret_of_the_contract_can_be_wrapped(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(bytes(190), backup_id=BACKUP)
    assert pair.unwraps.unwrap(wrapped, backup_id=BACKUP) == bytes(190)


def test_what_was_wrapped_for_another_backup_is_damage(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(SECRET, backup_id=BACKUP)
    with pytest.raises(DamagedError):
        pair.unwraps.unwrap(wrapped, backup_id=BACKUP.replace("postgres", "redis"))


def test_a_stranger_cannot_unwrap(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(SECRET, backup_id=BACKUP)
    with pytest.raises(REFUSALS):
        pair.stranger.unwrap(wrapped, backup_id=BACKUP)


def test_changed_cut_or_lengthened_bytes_are_damage(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(SECRET, backup_id=BACKUP)
    middle = len(wrapped) // 2
    flipped = bytearray(wrapped)
    flipped[-20] ^= 1
    for bad in (b"", wrapped[:middle], wrapped[:-1], bytes(flipped)):
        with pytest.raises(DamagedError):
            pair.unwraps.unwrap(bad, backup_id=BACKUP)


def test_its_name_is_stable_distinct_and_plain_text(pair: Pair) -> None:
    assert (pair.wraps.kind, pair.wraps.id) == (pair.unwraps.kind, pair.unwraps.id)
    assert pair.wraps.kind == pair.stranger.kind
    assert pair.wraps.id != pair.stranger.id
    assert json.loads(json.dumps([pair.wraps.kind, pair.wraps.id])) == [
        pair.wraps.kind,
        pair.wraps.id,
    ]


def test_errors_do_not_show_the_secret(pair: Pair) -> None:
    wrapped = pair.wraps.wrap(SECRET, backup_id=BACKUP)
    with pytest.raises(REFUSALS) as caught:
        pair.stranger.unwrap(wrapped, backup_id=BACKUP)
    shown = f"{caught.value} {caught.value!r} {caught.value.facts}"
    assert SECRET.hex() not in shown
    assert repr(SECRET)[2:40] not in shown
