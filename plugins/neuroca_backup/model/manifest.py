"""The manifest: the statement that a backup exists, and all a restore needs to know."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from neuroca_backup.errors import ConfigurationError, DamagedError
from neuroca_backup.model import document
from neuroca_backup.model.identity import BackupRef, Component

VERSION = 1


class Digest(BaseModel):
    """The size in bytes and the SHA-256 (hex) of a byte stream."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Origin(BaseModel):
    """Where the bytes of a member lie: under which backup and attempt, and by what name.

    They are sealed with that backup's keyset, for that place; `stages` are what was done to them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backup_id: str
    attempt: str
    name: str
    stages: tuple[str, ...]


class Member(BaseModel):
    """One named byte stream: `plain` as the engine gave it, `stored` as the store holds it.

    `origin` is where the bytes lie when an earlier backup holds them, None when this one does.
    It names the backup that really holds them: no reference leads to another reference.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    plain: Digest
    stored: Digest
    origin: Origin | None = None

    @model_serializer(mode="wrap")
    def _without_no_origin(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # A manifest without references is the same bytes as before there were any: programs
        # older than references go on reading it.
        fields: dict[str, Any] = standard(self)
        if self.origin is None:
            fields.pop("origin", None)
        return fields


class Dump(BaseModel):
    """What an engine says of a dump it has finished.

    `consistency` is the consistent point in the engine's own terms (LSN, oplog timestamp, ...),
    and its `time` in ISO format with the offset; `facts` are what `compare` looks at after a
    restore; `empty` says that the source is known to hold nothing (an incremental one: that
    nothing has changed), without which a dump of nothing is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server_version: str
    tools: dict[str, str] = {}
    consistency: dict[str, str]
    facts: dict[str, Any]
    empty: bool = False
    notes: tuple[str, ...] = ()

    @field_validator("consistency")
    @classmethod
    def _has_its_moment(cls, found: dict[str, str]) -> dict[str, str]:
        if datetime.fromisoformat(found.get("time", "")).tzinfo is None:
            raise ValueError("time has no offset from UTC")
        return found

    @property
    def consistent_at(self) -> datetime:
        """The moment, in UTC, whose state a restore brings back."""
        return datetime.fromisoformat(self.consistency["time"]).astimezone(UTC)


class Manifest(BaseModel):
    """Everything about one backup. Written last, deleted first; no manifest, no backup.

    `before_restore` is the id of the restore before which the source was saved, "" for any other
    backup. It may hold the very state that the restore is to mend, so only who names it gets it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    backup_id: str
    set_id: str
    component: Component
    source: str
    engine: str
    attempt: str
    kind: Literal["full", "incremental"] = "full"
    parent: str | None = None
    before_restore: str = ""
    stages: tuple[str, ...]
    dump: Dump
    members: tuple[Member, ...]
    started_at: AwareDatetime
    finished_at: AwareDatetime
    expires_at: AwareDatetime | None = None
    hold: bool = False
    classification: str = "confidential"
    product: str

    @model_validator(mode="after")
    def _refers_to_its_own_past(self) -> Manifest:
        for member in self.members:
            if member.origin is not None:
                try:
                    earlier = BackupRef(member.origin.backup_id, self.component)
                except ConfigurationError as error:
                    raise ValueError(f"the origin of {member.name}: {error.problem}") from None
                if earlier.source != self.source or earlier.backup_id >= self.backup_id:
                    raise ValueError(
                        f"the origin of {member.name} is {earlier.backup_id}, which is no earlier "
                        f"backup of {self.source}"
                    )
        return self

    @property
    def ref(self) -> BackupRef:
        """Which backup this is."""
        return BackupRef(backup_id=self.backup_id, component=self.component)

    @property
    def own(self) -> tuple[Member, ...]:
        """The members whose bytes this backup holds itself."""
        return tuple(member for member in self.members if member.origin is None)

    @property
    def plain_size(self) -> int:
        """Bytes that the engine gave."""
        return sum(member.plain.size for member in self.members)

    @property
    def stored_size(self) -> int:
        """Bytes of all members in one store, those of earlier backups that it refers to, too."""
        return sum(member.stored.size for member in self.members)

    @property
    def own_size(self) -> int:
        """Bytes that this backup itself takes in one store."""
        return sum(member.stored.size for member in self.own)

    def origin_of(self, member: Member) -> Origin:
        """Where the bytes of `member` lie, which is here unless it refers to an earlier backup."""
        return member.origin or Origin(
            backup_id=self.backup_id, attempt=self.attempt, name=member.name, stages=self.stages
        )

    def holder_of(self, member: Member) -> BackupRef:
        """The backup that holds the bytes of `member`."""
        return BackupRef(self.origin_of(member).backup_id, self.component)

    def key_of(self, member: Member) -> str:
        """The object key of `member`."""
        origin = self.origin_of(member)
        return self.holder_of(member).member_key(origin.attempt, origin.name)

    def keys_of(self, member: Member) -> str:
        """The object key of the keyset that `member` is sealed with."""
        return self.holder_of(member).keys_key(self.origin_of(member).attempt)


@dataclass(frozen=True, slots=True)
class SealedManifest:
    """A manifest with the MAC made by its keyset (hex), as the store holds it.

    `covered` is what the MAC covers: the manifest's bytes exactly as stored, so that a later
    version with more fields still verifies an older manifest.
    """

    manifest: Manifest
    mac: str
    covered: bytes

    @property
    def sha256(self) -> str:
        """The SHA-256 (hex) of what the MAC covers, which tells one manifest from another."""
        return hashlib.sha256(self.covered).hexdigest()

    @classmethod
    def seal(cls, manifest: Manifest, mac: Callable[[bytes], str]) -> SealedManifest:
        """Return `manifest` with the MAC that `mac` makes of its bytes."""
        covered = document.canonical(manifest.model_dump(mode="json"))
        return cls(manifest=manifest, mac=mac(covered), covered=covered)

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode({"mac": self.mac, "manifest": json.loads(self.covered)})

    @classmethod
    def decode(cls, data: bytes, *, name: str, ref: BackupRef | None = None) -> SealedManifest:
        """Return the manifest in `data`; raise `DamagedError` naming it where it is not one.

        With `ref`, a manifest of another backup in this place is damage, too.
        """
        body = document.decode(data, name=name)
        stored = body.get("manifest")
        version = stored.get("version") if isinstance(stored, dict) else None
        if version != VERSION:
            raise DamagedError(
                f"{name} is a manifest of version {version!r}; this program reads {VERSION}",
                remedy="Use the version of neuroca-backup that wrote it, or a newer one.",
                key=name,
            )
        try:
            manifest = Manifest.model_validate(stored)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a valid manifest: {first['loc']}: {first['msg']}",
                remedy="Restore from another store.",
                key=name,
            ) from None
        if ref is not None and manifest.ref != ref:
            raise DamagedError(
                f"{name} is the manifest of another backup, {manifest.backup_id}",
                remedy="Restore from another store.",
                key=name,
            )
        return cls(manifest=manifest, mac=str(body.get("mac")), covered=document.canonical(stored))
