"""What is put in the place of a personal value; `include/sql/sanitise/functions.sql` does the same.

Every replacement is made from a digest of the value under a key that only this run has. Equal
values get equal replacements, and nobody can find a value by trying out all likely ones.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from neuroca_backup.errors import PermanentError
from neuroca_backup.settings import RuleSettings

_FIRST = [
    "Ada",
    "Bela",
    "Cleo",
    "Dara",
    "Emil",
    "Faye",
    "Gil",
    "Hana",
    "Ivo",
    "Juno",
    "Kai",
    "Lena",
    "Milo",
    "Nora",
    "Otis",
    "Pia",
]
_LAST = [
    "Amber",
    "Birch",
    "Clover",
    "Dale",
    "Ember",
    "Fern",
    "Grove",
    "Heath",
    "Isle",
    "Jasper",
    "Knoll",
    "Linden",
    "Moss",
    "North",
    "Oak",
    "Pine",
]
_WORDS = "lorem ipsum dolor sit amet consectetur adipiscing elit "
# Sixteen digits make two values of a billion alike once in forty runs, and of a million never.
_TOKEN = 16
_BLOCK = 64  # of SHA-256, in bytes: https://www.rfc-editor.org/rfc/rfc2104
_LARGEST = 2**53 - 1  # what every JSON reader keeps exactly


class Masker:
    """The replacements of one run. Its key is in this object alone, and ends with it."""

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(32) if key is None else key

    @property
    def pads(self) -> tuple[bytes, bytes]:
        """The inner and the outer key of the HMAC, for a server that has SHA-256 alone."""
        block = self._key.ljust(_BLOCK, b"\0")
        return bytes(one ^ 0x36 for one in block), bytes(one ^ 0x5C for one in block)

    def digest(self, value: str | bytes) -> bytes:
        """Return the 32 bytes that stand for `value` in this run."""
        data = value.encode() if isinstance(value, str) else value
        return hmac.new(self._key, data, hashlib.sha256).digest()

    def fake(self, value: str, kind: str) -> str:
        """Return what looks like a `kind` and tells nothing of `value` but, of a text, its length.

        It ends in digits, so that nobody takes it for a real person's.
        """
        made = self.digest(value)
        token = made.hex()[:_TOKEN]
        first, last = _FIRST[made[0] % 16], _LAST[made[1] % 16]
        if kind == "name":
            return f"{first} {last} {token}"
        if kind == "email":
            return f"{first}.{last}.{token}@example.com".lower()
        if kind == "phone":
            return f"+999{int(made.hex()[:12], 16):015d}"
        length = max(len(value), _TOKEN)
        return f"{token} {_WORDS * (length // len(_WORDS) + 1)}"[:length]

    def replaced(self, value: Any, rule: RuleSettings) -> Any:
        """Return what stands in the place of `value`, of the same type; lists and mappings within.

        Raises:
            PermanentError: The action makes no sense of a value of this type.
        """
        if value is None or rule.action == "null":
            return None
        if isinstance(value, Mapping):
            return {name: self.replaced(one, rule) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.replaced(one, rule) for one in value]
        if rule.action == "fake":
            if isinstance(value, str):
                return self.fake(value, str(rule.kind))
            raise unfit(rule, value)
        return self._hashed(value, rule)

    def _hashed(self, value: Any, rule: RuleSettings) -> Any:
        if isinstance(value, str):
            return self.digest(value).hex()
        if isinstance(value, bytes):
            return type(value)(self.digest(value))
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = int.from_bytes(self.digest(repr(value))[:8], "big") & _LARGEST
            return type(value)(number)
        kind = f"{type(value).__module__}.{type(value).__name__}"
        if kind == "bson.objectid.ObjectId":
            return type(value)(self.digest(value.binary)[:12])
        raise unfit(rule, value)


def unfit(rule: RuleSettings, value: Any) -> PermanentError:
    """Return the error of a value to which the action of its rule cannot be done."""
    return PermanentError(
        f"{rule.place} has a value of type {type(value).__name__}, to which {rule.action!r} "
        "cannot be done",
        remedy='Write `action: "null"` or `action: drop` in that rule of `sanitise`.',
        place=rule.place,
    )


def walk(document: Any, path: Sequence[str]) -> Any:
    """Yield the container and the key of every value at the dotted `path`, through lists."""
    if isinstance(document, list):
        for one in document:
            yield from walk(one, path)
    elif isinstance(document, dict) and path[0] in document:
        if len(path) == 1:
            yield document, path[0]
        else:
            yield from walk(document[path[0]], path[1:])


def mask_at(document: Any, rule: RuleSettings, masker: Masker) -> int:
    """Change the values at the rule's path of `document`, in place; return how many there were."""
    places = list(walk(document, rule.path))
    for container, name in places:
        if rule.action == "drop":
            del container[name]
        else:
            container[name] = masker.replaced(container[name], rule)
    return len(places)
