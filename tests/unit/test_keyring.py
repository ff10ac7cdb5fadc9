from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import pickle
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from neuroca_backup.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    BackupError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    NotFoundError,
    UnreachableError,
)
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.keyring.recovery import (
    RecoveryPrivateKey,
    RecoveryPublicKey,
    generate_recovery_pair,
)
from neuroca_backup.model import document as envelope

if TYPE_CHECKING:
    from pathlib import Path

BACKUP = "20261123T020000Z-1f0c9a3e-postgres"
OTHER = "20261123T020000Z-1f0c9a3e-redis"
PASSPHRASE = b"correct horse"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recovery")
    private, public = folder / "recovery.pem", folder / "recovery.pub.pem"
    generate_recovery_pair(private, public, PASSPHRASE)
    return private, public


class Mute:
    """A recipient that wraps, and answers an error to every request to unwrap."""

    kind = "kms"

    def __init__(self, name: str, error: BackupError) -> None:
        self.id = name
        self._error = error

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:
        return hashlib.sha256(secret + backup_id.encode()).digest()

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:  # noqa: ARG002 - the contract
        raise self._error


UNREACHABLE = UnreachableError("No answer from the region", remedy="Wait.")
DENIED = AccessDeniedError("No permission", remedy="Ask for it.")


# The keyset


def test_a_keyset_fits_every_recipient_and_comes_back_from_its_bytes() -> None:
    keyset = Keyset.generate()
    # Key ids are random and of variable length; the contract of recipients ends at 190 bytes.
    assert 120 < len(keyset.secret) <= 131
    again = Keyset.from_bytes(keyset.secret)
    assert again.secret == keyset.secret
    assert again.mac(b"data") == keyset.mac(b"data")


def test_no_two_keysets_are_the_same() -> None:
    assert Keyset.generate().secret != Keyset.generate().secret


def test_the_mac_is_what_the_format_says() -> None:
    keyset = Keyset.from_bytes(b"any bytes at all")
    extracted = hmac.digest(bytes(32), b"any bytes at all", "sha256")
    key = hmac.digest(extracted, b"neuroca-backup manifest" + b"\x01", "sha256")
    assert keyset.mac(b"data") == hmac.digest(key, b"data", "sha256").hex()


def test_a_mac_holds_for_its_data_and_its_keyset_only() -> None:
    keyset = Keyset.generate()
    mac = keyset.mac(b"data")
    assert keyset.verify_mac(b"data", mac)
    assert not keyset.verify_mac(b"date", mac)
    assert not Keyset.generate().verify_mac(b"data", mac)
    for wrong in ("", mac[:-1], mac.upper(), mac + "0", "é" * 64):
        assert not keyset.verify_mac(b"data", wrong)


def test_a_keyset_never_shows_its_secret_and_is_never_pickled() -> None:
    keyset = Keyset.generate()
    keyset.streaming_aead()
    shown = f"{keyset} {keyset!r}"
    assert shown == "Keyset(<secret>) Keyset(<secret>)"
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled"):
            duplicate(keyset)


def test_a_secret_that_is_no_keyset_is_damage_and_stays_secret() -> None:
    with pytest.raises(DamagedError, match="not a keyset") as caught:
        Keyset.from_bytes(b"hunter2 hunter2").streaming_aead()
    assert "hunter2" not in str(caught.value)


# The recovery key


def test_a_pair_is_strong_private_and_needs_its_passphrase(pair: tuple[Path, Path]) -> None:
    private, public = pair
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in private.read_bytes()
    with pytest.raises(AccessDeniedError, match="no passphrase"):
        RecoveryPrivateKey(private)
    for wrong in (b"wrong", b""):
        with pytest.raises(AccessDeniedError, match="does not open"):
            RecoveryPrivateKey(private, lambda wrong=wrong: wrong)
    opened = RecoveryPrivateKey(private, lambda: PASSPHRASE)
    wrapped = RecoveryPublicKey(public).wrap(b"secret", backup_id=BACKUP)
    assert len(wrapped) == 4096 // 8
    assert opened.unwrap(wrapped, backup_id=BACKUP) == b"secret"
    assert opened.id == RecoveryPublicKey(public).id


def test_the_id_of_a_recovery_key_is_the_digest_of_its_der(pair: tuple[Path, Path]) -> None:
    lines = pair[1].read_text().splitlines()[1:-1]
    der = base64.b64decode("".join(lines))
    assert RecoveryPublicKey(pair[1]).id == f"sha256:{hashlib.sha256(der).hexdigest()}"


def test_a_pair_never_overwrites_a_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = [path.read_bytes() for path in pair]
    with pytest.raises(AlreadyExistsError, match=r"recovery\.pem"):
        generate_recovery_pair(*pair, PASSPHRASE)
    with pytest.raises(AlreadyExistsError, match=r"recovery\.pub\.pem"):
        generate_recovery_pair(tmp_path / "new.pem", pair[1], PASSPHRASE)
    assert [path.read_bytes() for path in pair] == before
    assert not (tmp_path / "new.pem").exists()


def test_a_pair_without_a_passphrase_or_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="passphrase"):
        generate_recovery_pair(tmp_path / "a", tmp_path / "b", b"")
    with pytest.raises(ConfigurationError, match="No such file"):
        generate_recovery_pair(tmp_path / "no" / "a", tmp_path / "b", PASSPHRASE)
    assert list(tmp_path.iterdir()) == []


def test_the_public_half_cannot_unwrap(pair: tuple[Path, Path]) -> None:
    with pytest.raises(KeyUnavailableError, match="public half only"):
        RecoveryPublicKey(pair[1]).unwrap(b"wrapped", backup_id=BACKUP)


def test_weak_foreign_and_missing_recovery_keys_are_refused(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    weak = _pem(tmp_path / "weak.pem", rsa.generate_private_key(65537, 2048))
    with pytest.raises(ConfigurationError, match="2048 bits; at least 3072"):
        RecoveryPrivateKey(weak)
    curve = _pem(tmp_path / "curve.pem", ec.generate_private_key(ec.SECP256R1()))
    text = tmp_path / "text.pem"
    text.write_text("no key")
    for path in (curve, text, pair[1]):
        with pytest.raises(ConfigurationError, match="private half"):
            RecoveryPrivateKey(path)
    for path in (curve, text, pair[0]):
        with pytest.raises(ConfigurationError, match="public half"):
            RecoveryPublicKey(path)
    with pytest.raises(NotFoundError, match="nowhere"):
        RecoveryPublicKey(tmp_path / "nowhere.pem")


def _pem(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


# The local key file


def test_a_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    LocalKeyFile.generate(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(AlreadyExistsError):
        LocalKeyFile.generate(path)
    assert path.read_bytes() == before
    assert len(base64.b64decode(before)) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_a_key_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    LocalKeyFile.generate(path)
    path.chmod(mode)
    with pytest.raises(AccessDeniedError, match=f"mode {mode:04o}"):
        LocalKeyFile(path)


def test_a_missing_or_foreign_key_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        LocalKeyFile(tmp_path / "nowhere")
    path = tmp_path / "key"
    path.touch(mode=0o600)
    for text in (b"", b"hunter2", base64.b64encode(bytes(31)), base64.b64encode(bytes(33))):
        path.write_bytes(text)
        with pytest.raises(ConfigurationError, match="does not hold 32 bytes") as caught:
            LocalKeyFile(path)
        assert "hunter2" not in str(caught.value)


def test_the_id_of_a_key_file_does_not_hold_its_key(tmp_path: Path) -> None:
    key = LocalKeyFile.generate(tmp_path / "key")
    raw = base64.b64decode((tmp_path / "key").read_bytes())
    assert raw.hex() not in key.id
    assert hashlib.sha256(raw).hexdigest() not in key.id


# keys.json


def test_any_one_recipient_is_enough(pair: tuple[Path, Path], tmp_path: Path) -> None:
    local = LocalKeyFile.generate(tmp_path / "key")
    keyset = Keyset.generate()
    document = Keyring([local, RecoveryPublicKey(pair[1])]).wrap(keyset, BACKUP)
    stored = KeysDocument.decode(document.encode(), name="keys.json")
    assert stored == document
    assert keyset.secret.hex() not in stored.encode().hex()
    for one in (local, RecoveryPrivateKey(pair[0], lambda: PASSPHRASE)):
        opened = Keyring([one]).unwrap(stored, backup_id=BACKUP, name="keys.json")
        assert opened.secret == keyset.secret


def test_the_document_keeps_the_order_of_the_recipients_and_names_each_once(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    local, public = LocalKeyFile.generate(tmp_path / "key"), RecoveryPublicKey(pair[1])
    document = Keyring([public, local, public]).wrap(Keyset.generate(), BACKUP)
    assert [entry.kind for entry in document.recipients] == ["recovery", "local"]


def test_a_keyset_that_nobody_could_unwrap_is_never_wrapped() -> None:
    with pytest.raises(ConfigurationError, match="no recipient"):
        Keyring([]).wrap(Keyset.generate(), BACKUP)


def test_one_recipient_that_cannot_wrap_fails_the_whole(tmp_path: Path) -> None:
    class Unwilling(Mute):
        def wrap(self, secret: bytes, *, backup_id: str) -> bytes:  # noqa: ARG002 - the contract
            raise self._error

    local = LocalKeyFile.generate(tmp_path / "key")
    with pytest.raises(UnreachableError):
        Keyring([local, Unwilling("arn:west", UNREACHABLE)]).wrap(Keyset.generate(), BACKUP)


def test_the_keys_of_another_backup_are_damage(tmp_path: Path) -> None:
    ring = Keyring([LocalKeyFile.generate(tmp_path / "key")])
    document = ring.wrap(Keyset.generate(), BACKUP)
    with pytest.raises(DamagedError, match=rf"a/keys\.json holds the keys of another.*{BACKUP}"):
        ring.unwrap(document, backup_id=OTHER, name="a/keys.json")
    relabelled = document.model_copy(update={"backup_id": OTHER})
    with pytest.raises(KeyUnavailableError, match="wrapped for another backup"):
        ring.unwrap(relabelled, backup_id=OTHER, name="a/keys.json")


def test_the_error_lists_every_recipient_and_its_answer(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    local, public = LocalKeyFile.generate(tmp_path / "key"), RecoveryPublicKey(pair[1])
    west, central = Mute("arn:west", DENIED), Mute("arn:central", UNREACHABLE)
    document = Keyring([local, public, west, central]).wrap(Keyset.generate(), BACKUP)
    with pytest.raises(KeyUnavailableError) as caught:
        Keyring([west, central, public]).unwrap(document, backup_id=BACKUP, name="keys.json")
    assert caught.value.facts["answers"] == {
        f"local {local.id}": "no key offered",
        f"recovery {public.id}": "no key offered",
        "kms arn:west": "No permission. Ask for it.",
        "kms arn:central": "No answer from the region. Wait.",
    }
    assert all(answer in str(caught.value) for answer in caught.value.facts["answers"].values())


def test_outages_alone_are_worth_another_try(pair: tuple[Path, Path]) -> None:
    public, west = RecoveryPublicKey(pair[1]), Mute("arn:west", UNREACHABLE)
    document = Keyring([west, public]).wrap(Keyset.generate(), BACKUP)
    with pytest.raises(UnreachableError, match=r"arn:west.*No answer"):
        Keyring([west, public]).unwrap(document, backup_id=BACKUP, name="keys.json")


def test_no_key_at_all_is_not_worth_another_try(tmp_path: Path) -> None:
    document = Keyring([LocalKeyFile.generate(tmp_path / "a")]).wrap(Keyset.generate(), BACKUP)
    stranger = LocalKeyFile.generate(tmp_path / "b")
    for ring in (Keyring([]), Keyring([stranger])):
        with pytest.raises(KeyUnavailableError, match="no key offered"):
            ring.unwrap(document, backup_id=BACKUP, name="keys.json")


def test_a_damaged_entry_is_reported_and_the_next_one_used(
    pair: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local, keyset = LocalKeyFile.generate(tmp_path / "key"), Keyset.generate()
    document = Keyring([local, RecoveryPublicKey(pair[1])]).wrap(keyset, BACKUP)
    first, second = document.recipients
    private = RecoveryPrivateKey(pair[0], lambda: PASSPHRASE)
    for wrapped in (base64.b64encode(bytes(60)).decode(), "not base64!"):
        broken = document.model_copy(
            update={"recipients": (first.model_copy(update={"wrapped": wrapped}), second)}
        )
        caplog.clear()
        opened = Keyring([local, private]).unwrap(broken, backup_id=BACKUP, name="keys.json")
        assert opened.secret == keyset.secret
        assert f"local {local.id}" in caplog.text


def test_rewrapping_changes_who_can_read_and_not_the_keyset(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = (LocalKeyFile.generate(tmp_path / name) for name in ("old", "new"))
    keyset = Keyset.generate()
    document = Keyring([old]).wrap(keyset, BACKUP)
    opened = Keyring([old]).unwrap(document, backup_id=BACKUP, name="keys.json")
    again = Keyring([new, RecoveryPublicKey(pair[1])]).wrap(opened, BACKUP)
    assert Keyring([new]).unwrap(again, backup_id=BACKUP, name="k").secret == keyset.secret
    with pytest.raises(KeyUnavailableError):
        Keyring([old]).unwrap(again, backup_id=BACKUP, name="k")
    both = Keyring([old, new]).rewrap(document, backup_id=BACKUP, name="k")
    assert [entry.id for entry in both.recipients] == [old.id, new.id]
    assert both.recipients[0].wrapped != document.recipients[0].wrapped


@pytest.mark.parametrize(
    "body",
    [
        {"version": 2, "backup_id": BACKUP, "recipients": []},
        {"version": 1, "backup_id": BACKUP, "recipients": []},
        {"version": 1, "backup_id": BACKUP, "recipients": [{"kind": "local", "id": "x"}]},
        {"version": 1, "recipients": [{"kind": "local", "id": "x", "wrapped": "eA=="}]},
        {},
    ],
)
def test_a_document_of_another_shape_is_damage(body: dict[str, object]) -> None:
    with pytest.raises(DamagedError, match=r"a/keys\.json"):
        KeysDocument.decode(envelope.encode(body), name="a/keys.json")


def test_every_flipped_bit_of_keys_json_is_found(tmp_path: Path) -> None:
    ring = Keyring([LocalKeyFile.generate(tmp_path / "key")])
    stored = ring.wrap(Keyset.generate(), BACKUP).encode()
    for position in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(DamagedError):
            KeysDocument.decode(bytes(changed), name="keys.json")
