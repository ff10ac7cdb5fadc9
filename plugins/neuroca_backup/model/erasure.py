"""The certificate that the keys of a backup are gone, so that nobody can ever read it again."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import ConfigurationError, DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component

PREFIX = "erasures"


class DestroyedKeys(BaseModel):
    """One keys.json of one store: what it was, and how many versions of it there were.

    `sha256` is of its bytes, and `recipients` are those who could open it; "" and none of one that
    could not be read any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    location: str
    key: str
    sha256: str
    recipients: tuple[str, ...]
    versions: int


class Erasure(BaseModel):
    """The erasure of a backup: pending from before the first key is destroyed, then a certificate.

    It is a certificate once `completed_at` is set: then every version of every keys.json was
    destroyed in every store of `stores`, and a listing of all versions has shown that none is left.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    backup_id: str
    component: Component
    reason: str
    actor: str
    begun_at: AwareDatetime
    completed_at: AwareDatetime | None = None
    stores: tuple[str, ...]
    keys: tuple[DestroyedKeys, ...]
    statement: str = ""

    def completed(self, at: datetime) -> Erasure:
        """Return the certificate."""
        recipients = sorted({one for found in self.keys for one in found.recipients})
        opened = ", ".join(recipients) or "nobody that is known"
        statement = (
            f"Every copy and version of the wrapped keys of {self.backup_id} was destroyed in "
            f"{', '.join(self.stores)}. It could be opened by: {opened}. No recipient can open it "
            "any more, nor any copy of its members that somebody may have kept."
        )
        return self.model_copy(update={"completed_at": at, "statement": statement})

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str, ref: BackupRef) -> Erasure:
        """Return what `data` says of `ref`; raise `DamagedError` naming it where it does not."""
        body: dict[str, Any] = document.decode(data, name=name)
        try:
            found = cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not the erasure of a backup: {first['loc']}: {first['msg']}",
                remedy="Read another store's, or the line of the audit trail.",
                key=name,
            ) from None
        if (found.backup_id, found.component) != (ref.backup_id, ref.component):
            raise DamagedError(
                f"{name} is about another backup, {found.backup_id}",
                remedy="Read another store's, or the line of the audit trail.",
                key=name,
            )
        return found


def key_of(ref: BackupRef) -> str:
    """Return the object key of the erasure of `ref`."""
    return f"{PREFIX}/{ref.component}/{ref.backup_id}.json"


def is_erasure_key(key: str) -> bool:
    """Return whether `key` is one that `key_of` makes."""
    prefix, _, rest = key.partition("/")
    component, _, name = rest.partition("/")
    if prefix != PREFIX or component not in set(Component) or not name.endswith(".json"):
        return False
    try:
        BackupRef(name.removesuffix(".json"), Component(component))
    except ConfigurationError:
        return False
    return True
