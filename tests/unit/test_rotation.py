"""Rotation over two directories: what is replaced, what is refused, what is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from neuroca_backup.errors import (
    AccessDeniedError,
    KeyUnavailableError,
    StoreUnavailableError,
)
from neuroca_backup.keyring.keys_document import Keyring, KeysDocument
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.keyring.local import LocalKeyFile
from neuroca_backup.keyring.recovery import RecoveryPublicKey, generate_recovery_pair
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.services.audit import Audit, newest
from neuroca_backup.services.fetch import authenticate
from neuroca_backup.services.rotation import Rotation
from support.reusing import Stand

BOTH = ("primary", "secondary")


class Bench:
    """Two backups under an old key, the second with a reference to the first; a new key."""

    def __init__(self, root: Path) -> None:
        self.stand = Stand(root)
        self.stand.write(large=b"x" * 50_000, note=b"1")
        self.refs = [self.stand.back_up(age=timedelta(hours=1))]
        self.stand.write(note=b"2")
        self.refs.append(self.stand.back_up())
        self.old = LocalKeyFile(root / "local.key")
        self.new = LocalKeyFile.generate(root / "new.key")
        self.subject = (self.refs[0].component, self.refs[0].source)
        self.audit = Audit(stores=self.stand.stores, catalog=self.stand.catalog)

    def rotation(self, *recipients: Any, opening: Any = None, **more: Any) -> Rotation:
        return Rotation(
            stores=self.stand.stores,
            recipients=recipients or (self.new,),
            opening=opening or Keyring(recipients or (self.new,), former=(self.old,)),
            audit=self.audit,
            remind_after=timedelta(days=365),
            **more,
        )

    def keys(self, ref: BackupRef, store: str) -> KeysDocument:
        key = ref.keys_key(self.stand.manifest(ref).attempt)
        return KeysDocument.decode(self.stand.stores[store].get(key), name=key)

    def recipients(self) -> set[str]:
        return {
            one.id for ref in self.refs for name in BOTH for one in self.keys(ref, name).recipients
        }


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_keyset_of_every_store_is_under_the_new_key_and_no_other(bench: Bench) -> None:
    before = bench.rotation().status(*bench.subject)
    assert (before.documents, before.current, before.remaining) == (4, 0, 4)
    done = bench.rotation().rotate(*bench.subject)
    assert (done.documents, done.rotated, done.clean) == (4, 4, True)
    assert bench.recipients() == {bench.new.id}
    for ref in bench.refs:
        for store in bench.stand.stores.values():
            authenticate(store, ref, Keyring([bench.new]))
            with pytest.raises(KeyUnavailableError):
                authenticate(store, ref, Keyring([bench.old]))
    assert bench.rotation().rotate(*bench.subject).rotated == 0
    noted = [line.event for line in newest(bench.stand.stores["primary"])][:2]
    assert [(one.action, one.result) for one in noted] == [
        ("rotate keys", "done"),
        ("rotate keys", "intended"),
    ]


def test_the_age_of_a_wrapping_is_told_in_days(bench: Bench) -> None:
    later = datetime.now(UTC) + timedelta(days=400)
    found = bench.rotation(clock=lambda: later).status(*bench.subject)
    assert found.oldest_days in {399, 400}
    assert "days ago; still opened by local" in str(found.stale[0])


def test_a_recovery_key_alone_is_no_proof(bench: Bench, tmp_path: Path) -> None:
    generate_recovery_pair(tmp_path / "private", tmp_path / "public", b"p")
    done = bench.rotation(RecoveryPublicKey(tmp_path / "public")).rotate(*bench.subject)
    assert done.rotated == 0
    assert "No recipient of today can open" in done.problems[0]
    assert bench.recipients() == {bench.old.id}


class Liar:
    """A recipient that gives back another secret than it was given."""

    kind, id = "kms", "arn:liar"

    def wrap(self, secret: bytes, *, backup_id: str) -> bytes:  # noqa: ARG002 - the protocol's
        return b"wrapped"

    def unwrap(self, wrapped: bytes, *, backup_id: str) -> bytes:  # noqa: ARG002 - the protocol's
        return b"something else"


def test_what_a_new_key_does_not_give_back_replaces_nothing(bench: Bench) -> None:
    done = bench.rotation(Liar()).rotate(*bench.subject)
    assert (done.rotated, done.remaining) == (0, 4)
    assert "is not the keyset" in done.problems[0]
    assert bench.recipients() == {bench.old.id}


def test_a_keyset_that_is_not_the_manifests_is_never_wrapped_anew(bench: Bench) -> None:
    ref, store = bench.refs[0], bench.stand.stores["primary"]
    forged = Keyring([bench.old]).wrap(Keyset.generate(), ref.backup_id)
    store.put(ref.keys_key(bench.stand.manifest(ref).attempt), forged.encode())
    done = bench.rotation().rotate(*bench.subject)
    assert (done.rotated, done.remaining) == (3, 1)
    assert "does not hold the keyset of its manifest" in done.problems[0]
    assert bench.keys(ref, "primary") == forged


def test_one_that_cannot_be_opened_or_is_damaged_does_not_keep_the_others(bench: Bench) -> None:
    ref, store = bench.refs[0], bench.stand.stores["secondary"]
    store.put(ref.keys_key(bench.stand.manifest(ref).attempt), b"rotten")
    done = bench.rotation().rotate(*bench.subject)
    assert (done.documents, done.rotated, done.remaining) == (4, 3, 1)
    assert not done.transient
    nobody = bench.rotation(opening=Keyring([bench.new]))
    bench.stand.stores["primary"].put("x", b"")
    assert nobody.rotate(*bench.subject).rotated == 0


def test_what_somebody_changed_meanwhile_is_not_overwritten(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = bench.stand.stores["primary"]

    def late(key: str, data: bytes, *, expected: bytes) -> None:
        raise StoreUnavailableError(f"{key} was changed", remedy="Again.")

    monkeypatch.setattr(store, "replace", late)
    done = bench.rotation().rotate(*bench.subject)
    assert (done.rotated, done.transient) == (2, True)


def test_without_a_line_in_the_trail_nothing_is_rotated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for store in bench.stand.stores.values():
        monkeypatch.setattr(store, "put", _denied)
    with pytest.raises(AccessDeniedError, match="took no line"):
        bench.rotation().rotate(*bench.subject)
    assert bench.recipients() == {bench.old.id}


def _denied(*_: Any, **__: Any) -> None:
    raise AccessDeniedError("No", remedy="Grant it.")


class Aged(Liar):
    """A recipient whose key is a year and a half old, or does not tell."""

    def __init__(self, answer: datetime | None) -> None:
        self.answer = answer

    def renewed_at(self) -> datetime:
        if self.answer is None:
            raise AccessDeniedError("kms:ListKeyRotations was refused", remedy="Grant it.")
        return self.answer


def test_an_old_key_is_due_and_one_of_unknown_age_is_a_warning(bench: Bench) -> None:
    now = datetime.now(UTC)
    due, unknown = bench.rotation(Aged(now - timedelta(days=550)), Aged(None), bench.new).ages()
    assert (due.days, due.due) == (550, True)
    assert "not rotated for more than 365 days" in due.warning
    assert (unknown.days, unknown.due) == (None, False)
    assert "not known: kms:ListKeyRotations was refused" in unknown.warning
    (young,) = bench.rotation(Aged(now - timedelta(days=5))).ages()
    assert young.warning == ""
