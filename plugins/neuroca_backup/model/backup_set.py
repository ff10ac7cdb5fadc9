"""A backup set: the backups of one run, which are restored together."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from neuroca_backup.errors import DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import Component

VERSION = 1
PREFIX = "sets"


class SetMember(BaseModel):
    """One source's backup: `consistent_at` is the moment whose state it brings back.

    For a source that had not changed, that is the moment when the run saw so, and the backup is an
    earlier one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    kind: Literal["full", "incremental"]
    consistent_at: AwareDatetime
    verified: bool


class BackupSet(BaseModel):
    """What one run was to back up and what came of it; the same object lies in every store.

    `members` are the sources that have a backup, `missing` those that have none. `whole` are the
    sources that are many things and whose every part the run was to back up. `skew_seconds`
    is the time between the earliest and the latest moment that the members bring back: the least
    distance between two sources of one restored system. It is None where there is no member.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    set_id: str
    component: Component
    members: dict[str, SetMember]
    missing: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()
    skew_seconds: float | None = Field(default=None, ge=0)
    recorded_at: AwareDatetime

    @classmethod
    def of(
        cls,
        set_id: str,
        component: Component,
        members: Mapping[str, SetMember],
        *,
        missing: tuple[str, ...],
        recorded_at: datetime,
        whole: tuple[str, ...] = (),
    ) -> BackupSet:
        """Return the set of `members`, its skew worked out."""
        moments = [member.consistent_at for member in members.values()]
        skew = (max(moments) - min(moments)).total_seconds() if moments else None
        return cls(
            set_id=set_id,
            component=component,
            members=dict(members),
            missing=missing,
            whole=whole,
            skew_seconds=skew,
            recorded_at=recorded_at,
        )

    @property
    def key(self) -> str:
        """Where the set is in every store."""
        return key_of(self.component, self.set_id)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every source that the run was to back up."""
        return tuple(sorted({*self.members, *self.missing}))

    def has(self, source: str) -> bool:
        """Return whether the run was to back up `source`, all parts of it where it has parts."""
        return source in self.sources or source in self.whole

    @property
    def unverified(self) -> tuple[str, ...]:
        """The sources without a verified backup, those without any included."""
        not_verified = (name for name, member in self.members.items() if not member.verified)
        return tuple(sorted({*self.missing, *not_verified}))

    @property
    def complete(self) -> bool:
        """Whether every source has a verified backup, and there is a source at all."""
        return bool(self.members) and not self.unverified

    def says_the_same(self, other: BackupSet) -> bool:
        """Return whether both differ in nothing but the time when they were recorded."""
        return self == other.model_copy(update={"recorded_at": self.recorded_at})

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str, component: Component, set_id: str) -> BackupSet:
        """Return the set in `data`, which must be this one.

        Raises:
            DamagedError: It is not what was written, or another set; names the object.
        """
        body: dict[str, Any] = document.decode(data, name=name)
        if body.get("version") != VERSION:
            raise DamagedError(
                f"{name} is a backup set of version {body.get('version')!r}; this program reads "
                f"{VERSION}",
                remedy="Use the version of neuroca-backup that wrote it, or a newer one.",
                key=name,
            )
        try:
            found = cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a valid backup set: {first['loc']}: {first['msg']}",
                remedy="Its backups can be restored one by one.",
                key=name,
            ) from None
        if (found.component, found.set_id) != (component, set_id):
            raise DamagedError(
                f"{name} is another set, {found.set_id} of {found.component}",
                remedy="Its backups can be restored one by one.",
                key=name,
            )
        return found


def key_of(component: Component, set_id: str) -> str:
    """Return the object key of a set, the same in every store."""
    return f"{PREFIX}/{component}/{set_id}.json"


def is_set_key(key: str) -> bool:
    """Return whether `key` is one that `key_of` makes."""
    prefix, _, rest = key.partition("/")
    component, _, name = rest.partition("/")
    return (
        prefix == PREFIX
        and component in set(Component)
        and name.endswith(".json")
        and "/" not in name
    )
