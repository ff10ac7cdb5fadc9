"""What of a tier is restored: words such as `session=abc` or `from=2026-11-01T00:00Z`.

Different words must all be true of an item; of the same word given several times one is enough.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from neuroca_backup.errors import ConfigurationError, NotFoundError
from neuroca_backup.memory.tiers import Fields, tier_of

ID, SESSION, USER, FROM, TO = "id", "session", "user", "from", "to"
TIER, EXPIRED = "tier", "expired"
DROP, PERSIST = "drop", "persist"
# Numbers above this are milliseconds since 1970, those below are seconds.
_MILLISECONDS_FROM = 1e11
_OF_ITEMS = (ID, SESSION, USER, FROM, TO)
_MEANINGS = {
    ID: "the item called so",
    SESSION: "items of a session",
    USER: "items of a user",
    FROM: "items of this moment or later",
    TO: "items of before this moment",
    TIER: "only says which tier is meant",
    EXPIRED: "what becomes of expired keys: drop (the default) or persist",
    "keys": "keys of a pattern",
    "database": "a logical database",
    "type": "keys of a type",
    "collection": "a collection",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must be true of an item: `word`, and values of which one is enough."""

    word: str
    values: tuple[str, ...] = ()
    since: datetime | None = None
    before: datetime | None = None

    def holds(self, item: Mapping[str, Any], *, name: str, fields: Fields) -> bool:
        """Return whether it is true of an item called `name`, never of one without the field."""
        if self.word == ID:
            return name in self.values
        if self.word == FROM:
            moment = moment_of(_first(item, fields.time))
            return (
                moment is not None
                and (self.since is None or moment >= self.since)
                and (self.before is None or moment < self.before)
            )
        found = _first(item, fields.session if self.word == SESSION else fields.user)
        return found is not None and _text(found) in self.values


@dataclass(frozen=True, slots=True)
class Selection:
    """The words of one restore.

    `conditions` are about single items, `places` about where they lie (keys, collections, ...).
    """

    conditions: tuple[Condition, ...]
    places: Mapping[str, tuple[str, ...]]
    persist: bool = False

    @property
    def whole(self) -> bool:
        """Whether the whole tier is meant."""
        return not self.conditions and not self.places

    def place(self, word: str) -> tuple[str, ...]:
        """Return the values given for `word`, () for none."""
        return self.places.get(word, ())

    def takes(self, item: Mapping[str, Any], *, name: str, fields: Fields) -> bool:
        """Return whether all conditions are true of an item; places are looked at elsewhere."""
        return all(one.holds(item, name=name, fields=fields) for one in self.conditions)


def parse(
    words: Sequence[str], *, tier: str, places: Sequence[str], expiring: bool = False
) -> Selection:
    """Return what `words` mean for a backup of `tier`.

    `places` are the words for places that its engine knows; `expiring` says that items may have
    expired on the way.

    Raises:
        ConfigurationError: A word is unknown, or its value is impossible, or it means another tier.
    """
    known = (*places, *_OF_ITEMS, TIER, *((EXPIRED,) if expiring else ()))
    given: dict[str, list[str]] = {}
    for one in words:
        word, separator, value = one.partition("=")
        word = word.strip().lower()
        if not separator or not value or word not in known:
            raise _unknown(one, known)
        given.setdefault(word, []).append(value)
    _require_tier(given.pop(TIER, []), tier)
    persist = _persist(given.pop(EXPIRED, [DROP]))
    conditions = [
        Condition(word, tuple(given.pop(word))) for word in (ID, SESSION, USER) if word in given
    ]
    since, before = (_moment(word, given.pop(word, [])) for word in (FROM, TO))
    if since is not None or before is not None:
        if since is not None and before is not None and since >= before:
            raise ConfigurationError(
                f"from={since.isoformat()} is not before to={before.isoformat()}",
                remedy="Give the earlier moment as `from`; `to` itself is not included.",
                value=f"from={since.isoformat()}",
            )
        conditions.append(Condition(FROM, since=since, before=before))
    return Selection(
        conditions=tuple(conditions),
        places={word: tuple(values) for word, values in given.items()},
        persist=persist,
    )


def nothing_matches(words: Sequence[str], *, backup_id: str) -> NotFoundError:
    """Return the error for a selection of nothing."""
    return NotFoundError(
        f"Nothing in {backup_id} is {' and '.join(words)}",
        remedy="Nothing was touched. Correct the words, look into an older backup, or check which "
        "fields the source's session_fields, user_fields and time_fields name.",
        value=list(words),
    )


def moment_of(value: Any) -> datetime | None:
    """Return the moment (UTC) that a field's value means, None where it means none.

    It may be a datetime, ISO text, or seconds or milliseconds since 1970. Without an offset it
    is taken as UTC.
    """
    if isinstance(value, str):
        try:
            return moment_of(datetime.fromisoformat(value))
        except ValueError:
            pass
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS_FROM else value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _first(item: Mapping[str, Any], paths: Sequence[str]) -> Any:
    """Return the value of the first path that leads to one, None where none does."""
    for place in _places(item):
        for path in paths:
            found: Any = place
            for name in path.split("."):
                inner = _object(found)
                found = inner.get(name) if inner is not None else None
            if found is not None:
                return found
    return None


def _places(item: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield item
    inner = _object(item.get("metadata"))
    if inner is not None:
        yield inner


def _object(value: Any) -> Mapping[str, Any] | None:
    """Return an object, or what JSON text means where that is one."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value.startswith("{"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, Mapping) else None
    return None


def _text(value: Any) -> str:
    # A number is the same one however it is stored.
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _require_tier(words: Sequence[str], tier: str) -> None:
    for word in words:
        try:
            named = tier_of(word)
        except ValueError as error:
            raise ConfigurationError(
                f"tier={word}: {error}", remedy="Use one of these.", value=word
            ) from None
        if named != tier:
            raise ConfigurationError(
                f"tier={word} is {named} memory, and the backup is of {tier} memory",
                remedy=f"Choose a backup of {named} memory.",
                value=word,
            )


def _persist(words: Sequence[str]) -> bool:
    if len(set(words)) > 1 or words[0] not in {DROP, PERSIST}:
        raise ConfigurationError(
            f"expired={words[-1]} is not possible",
            remedy=f"Write expired={DROP} or expired={PERSIST}.",
            value=words[-1],
        )
    return words[0] == PERSIST


def _moment(word: str, values: Sequence[str]) -> datetime | None:
    if not values:
        return None
    try:
        found = datetime.fromisoformat(values[0])
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or len(values) > 1:
        raise ConfigurationError(
            f"{word}={values[-1]} is not one time with an offset",
            remedy=f"Write it once, like {word}=2026-11-01T00:00Z.",
            value=values[-1],
        )
    return found.astimezone(UTC)


def _unknown(one: str, known: Sequence[str]) -> ConfigurationError:
    listed = ", ".join(f"{word}= ({_MEANINGS[word]})" for word in known)
    return ConfigurationError(
        f"{one!r} selects nothing that this engine knows",
        remedy=f"Write word=value, with one of: {listed}.",
        value=one,
    )
