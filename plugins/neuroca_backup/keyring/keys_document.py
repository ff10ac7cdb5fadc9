"""keys.json: the keyset of one backup, wrapped for every recipient; and who may open it."""

from __future__ import annotations

import base64
import binascii
import logging
import threading
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroca_backup.errors import (
    BackupError,
    ConfigurationError,
    DamagedError,
    KeyUnavailableError,
    TransientError,
    UnreachableError,
)
from neuroca_backup.keyring import kms
from neuroca_backup.keyring.keyset import Keyset
from neuroca_backup.keyring.recovery import RecoveryPublicKey
from neuroca_backup.model import document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from neuroca_backup.keyring import Recipient

VERSION = 1

_log = logging.getLogger(__name__)


class WrappedKeyset(BaseModel):
    """The keyset wrapped for one recipient; `wrapped` is base64."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    id: str
    wrapped: str = Field(min_length=1)

    @property
    def label(self) -> str:
        """`kind id`, for messages."""
        return f"{self.kind} {self.id}"


class KeysDocument(BaseModel):
    """The body of keys.json. Any one of its recipients is enough to read the backup."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    backup_id: str
    recipients: tuple[WrappedKeyset, ...] = Field(min_length=1)

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> KeysDocument:
        """Return the document in `data`; raise `DamagedError` naming it where it is not one."""
        body = document.decode(data, name=name)
        if body.get("version") != VERSION:
            raise DamagedError(
                f"{name} is a keys.json of version {body.get('version')!r}; "
                f"this program reads {VERSION}",
                remedy="Use the version of neuroca-backup that wrote it, or a newer one.",
                key=name,
            )
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a valid keys.json: {first['loc']}: {first['msg']}",
                remedy="Restore from another store.",
                key=name,
            ) from None


class Keyring:
    """The recipients that this process can offer, KMS keys in the order of preference.

    `former` recipients open what was wrapped for them once; nothing is wrapped for them any more.
    `on_use` is told the first time a backup's keyset was opened: its id, and the recipient that
    did it; or "", where none of those that were asked could.
    """

    def __init__(
        self,
        recipients: Sequence[Recipient],
        *,
        former: Sequence[Recipient] = (),
        on_use: Callable[[str, str], None] = lambda _backup_id, _recipient: None,
    ) -> None:
        self._recipients = tuple(recipients)
        self._former = tuple(former)
        self._on_use = on_use
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def wrap(self, keyset: Keyset, backup_id: str) -> KeysDocument:
        """Return `keyset` wrapped for every recipient; one that cannot be reached fails it all.

        Raises:
            ConfigurationError: There is no recipient, so nobody could ever read the backup.
            AccessDeniedError, KeyUnavailableError, UnreachableError: From a recipient.
        """
        if not self._recipients:
            raise ConfigurationError(
                f"There is no recipient for the keyset of {backup_id}",
                remedy="Set kms_key_id, recovery_public_key or local_key_file under encryption.",
            )
        distinct: dict[tuple[str, str], Recipient] = {}
        for one in self._recipients:
            distinct.setdefault((one.kind, one.id), one)
        return KeysDocument(
            backup_id=backup_id,
            recipients=tuple(
                WrappedKeyset(
                    kind=one.kind,
                    id=one.id,
                    wrapped=base64.b64encode(one.wrap(keyset.secret, backup_id=backup_id)).decode(),
                )
                for one in distinct.values()
            ),
        )

    def unwrap(self, document: KeysDocument, *, backup_id: str, name: str) -> Keyset:
        """Return the keyset of `backup_id`, from the first recipient that can unwrap it.

        Keys at hand are tried before KMS, which costs a request or, in an outage, a timeout.
        `name` is the object's, for messages.

        Raises:
            DamagedError: The document is another backup's.
            KeyUnavailableError: No recipient could; lists what each one answered.
            UnreachableError: Every recipient that was asked may answer another time.
        """
        if document.backup_id != backup_id:
            raise DamagedError(
                f"{name} holds the keys of another backup, {document.backup_id}",
                remedy="Restore from another store.",
                key=name,
            )
        answers = dict.fromkeys((entry.label for entry in document.recipients), "no key offered")
        failures: list[BackupError] = []
        for recipient, entry in self._offers(document):
            try:
                secret = recipient.unwrap(_decoded(entry, name), backup_id=backup_id)
            except BackupError as error:
                failures.append(error)
                answers[entry.label] = str(error)
                _log.warning("%s could not be unwrapped by %s: %s", name, entry.label, error)
            else:
                self._tell(backup_id, entry.label)
                return Keyset.from_bytes(secret)
        if failures:
            self._tell(backup_id, "")
        raise _nobody(name, answers, failures)

    def rewrap(self, document: KeysDocument, *, backup_id: str, name: str) -> KeysDocument:
        """Return the same keyset wrapped for this keyring's recipients, and for no other."""
        return self.wrap(self.unwrap(document, backup_id=backup_id, name=name), backup_id)

    def _tell(self, backup_id: str, recipient: str) -> None:
        use = (backup_id, recipient)
        with self._lock:
            known = use in self._told
            self._told.add(use)
        if not known:
            self._on_use(backup_id, recipient)

    def _offers(self, document: KeysDocument) -> list[tuple[Recipient, WrappedKeyset]]:
        at_hand_first = sorted(
            (*self._recipients, *self._former), key=lambda one: one.kind == kms.KIND
        )
        return [
            (recipient, entry)
            for recipient in at_hand_first
            for entry in document.recipients
            if (recipient.kind, recipient.id) == (entry.kind, entry.id)
            # A public half is in every keyring to wrap with; it is no offer to unwrap.
            and not isinstance(recipient, RecoveryPublicKey)
        ]


def _decoded(entry: WrappedKeyset, name: str) -> bytes:
    try:
        return base64.b64decode(entry.wrapped, validate=True)
    except binascii.Error:
        raise DamagedError(
            f"{name} does not hold base64 for {entry.label}",
            remedy="Restore from another store.",
            key=name,
        ) from None


def _nobody(
    name: str, answers: dict[str, str], failures: list[BackupError]
) -> KeyUnavailableError | UnreachableError:
    listed = "; ".join(f"[{label}] {answer}" for label, answer in answers.items())
    problem = f"No recipient could unwrap {name}: {listed}"
    if failures and all(isinstance(failure, TransientError) for failure in failures):
        return UnreachableError(
            problem,
            remedy="It is tried again; any one of these keys is enough.",
            key=name,
            answers=answers,
        )
    return KeyUnavailableError(
        problem,
        remedy="Offer one of these keys: the offline recovery key opens a backup without any KMS.",
        key=name,
        answers=answers,
    )
