"""The two small objects beside a manifest that say whether a backup goes or stays.

Neither is under the manifest's MAC. Whoever can write them can delete the backup as well; they are
no secret and open nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from neuroca_backup.errors import DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef


class _Beside(BaseModel):
    """An object that lies beside the manifest of the backup that it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    backup_id: str

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str, ref: BackupRef) -> Self:
        """Return what `data` says of `ref`.

        Raises:
            DamagedError: It is not what was written, or about another backup; names the object.
        """
        body: dict[str, Any] = document.decode(data, name=name)
        try:
            found = cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a {cls.__name__.lower()}: {first['loc']}: {first['msg']}",
                remedy="Nothing of this source is deleted until it is gone. Delete the object if "
                "nobody knows what it said.",
                key=name,
            ) from None
        if found.backup_id != ref.backup_id:
            raise DamagedError(
                f"{name} is about another backup, {found.backup_id}",
                remedy="Delete the object: it says nothing of the backup beside it.",
                key=name,
            )
        return found


class Tombstone(_Beside):
    """This backup is to be deleted, not before `erase_after`; until then it can be taken back.

    `erasing_since` is set before the first of its objects is deleted: from then on it is no
    backup any more, and can never become one again.
    """

    expired_at: AwareDatetime
    erase_after: AwareDatetime
    reason: str
    actor: str
    erasing_since: AwareDatetime | None = None


class Hold(_Beside):
    """This backup must not be deleted, whatever its age: until `until`, or until it is released."""

    reason: str
    actor: str
    held_at: AwareDatetime
    until: AwareDatetime | None = None

    def stands(self, now: datetime) -> bool:
        """Return whether the hold is in force at `now` (aware)."""
        return self.until is None or now < self.until

    def outlasts(self, other: Hold) -> bool:
        """Return whether this one ends later than `other`."""
        if self.until is None or other.until is None:
            return self.until is None and other.until is not None
        return self.until > other.until
