"""The audit trail: what an event is, and the lines that chain events in every store.

Each store holds one chain. A line names the digest of the one before it, so that none can be
edited, left out or put elsewhere without the next one showing it; and it names the heads of the
other stores' chains as they were, so that none of those can be cut short unseen.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from neuroca_backup.errors import DamagedError
from neuroca_backup.model import document

PREFIX = "audit"
# Before the first line of a chain there is nothing; this stands for its digest.
NOTHING = "0" * 64
# Lines in one folder: finding the newest line then costs two short listings.
BLOCK = 1000

Scalar = str | int | float | bool | None

_KEY = re.compile(rf"{PREFIX}/(?P<block>\d{{6}})/(?P<sequence>\d{{9}})\.json")
_LONGEST_TEXT = 500  # characters of one value
_MOST_DETAILS = 40
_SECRET = re.compile(r"pass(word|phrase)|secret|token|credential|private", re.IGNORECASE)
_DIGEST = r"^[0-9a-f]{64}$"


class Event(BaseModel):
    """Who did what to which subject, when, and what came of it.

    `id` is drawn at random: it is what tells that lines of two stores are about the same event.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: secrets.token_hex(8), pattern=r"^[0-9a-f]{16}$")
    at: AwareDatetime
    actor: str
    action: str
    subject: str
    result: str
    details: dict[str, Scalar] = {}

    @property
    def sha256(self) -> str:
        """The digest (hex) of the event, the same in every store."""
        return digest_of(document.canonical(self.model_dump(mode="json")))


class Head(BaseModel):
    """The last line of a chain: its number and its digest; 0 and `NOTHING` of an empty one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chain: str
    sequence: int = Field(ge=0)
    digest: str = Field(pattern=_DIGEST)


class Line(BaseModel):
    """One line of the chain `chain`; `seen` are the heads of the other chains, as its writer knew.

    A chain has a name of its own, because a store may be given another name, or be replaced.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    chain: str = Field(pattern=r"^[0-9a-f]{16}$")
    sequence: int = Field(ge=1)
    previous: str = Field(pattern=_DIGEST)
    seen: tuple[Head, ...] = ()
    event: Event

    @classmethod
    def after(cls, head: Head, event: Event, *, seen: tuple[Head, ...]) -> Line:
        """Return the line that continues the chain whose last line is `head`."""
        return cls(
            chain=head.chain or secrets.token_hex(8),
            sequence=head.sequence + 1,
            previous=head.digest,
            seen=seen,
            event=event,
        )

    @property
    def key(self) -> str:
        """The object key of the line."""
        return key_of(self.sequence)

    @property
    def head(self) -> Head:
        """This line as the head of its chain."""
        return Head(chain=self.chain, sequence=self.sequence, digest=digest_of(self.encode()))

    def encode(self) -> bytes:
        """Return the object's bytes."""
        return document.encode(self.model_dump(mode="json"))

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> Line:
        """Return the line in `data`; raise `DamagedError` naming it where it is not one."""
        body = document.decode(data, name=name)
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            raise DamagedError(
                f"{name} is not a line of an audit trail: {first['loc']}: {first['msg']}",
                remedy="Compare it with the other stores' lines.",
                key=name,
            ) from None


def key_of(sequence: int) -> str:
    """Return the object key of the line of this number."""
    return f"{PREFIX}/{sequence // BLOCK:06d}/{sequence:09d}.json"


def sequence_of(key: str) -> int | None:
    """Return the number of the line with this key; None for any other object."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    sequence = int(match["sequence"])
    return sequence if key_of(sequence) == key and sequence > 0 else None


def digest_of(data: bytes) -> str:
    """Return the SHA-256 (hex) of a line's bytes; a damaged line has one, too."""
    return hashlib.sha256(data).hexdigest()


def details_of(found: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return what of `found` may be written down: scalars of bounded length, nested ones dotted.

    A sequence becomes one text. What is named like a secret, or is no plain value, is never
    written.
    """
    flat: dict[str, Scalar] = {}
    for name, value in _flattened(found, ""):
        if len(flat) == _MOST_DETAILS:
            break
        flat[bounded(name)] = "(not recorded)" if _SECRET.search(name) else _plain(value)
    return flat


def bounded(text: str) -> str:
    """Return `text` on one line, cut where it is too long."""
    line = "".join(one if one.isprintable() else " " for one in text[: _LONGEST_TEXT + 1])
    return line if len(line) <= _LONGEST_TEXT else f"{line[: _LONGEST_TEXT - 1]}…"


def _flattened(found: Mapping[str, Any], before: str) -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in found.items():
        if isinstance(value, Mapping):
            flat += _flattened(value, f"{before}{name}.")
        else:
            flat.append((f"{before}{name}", value))
    return flat


def _plain(value: Any) -> Scalar:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return bounded(value)
    if isinstance(value, list | tuple | set | frozenset):
        listed = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return bounded(", ".join(str(_plain(one)) for one in listed))
    return "(not recorded)"
