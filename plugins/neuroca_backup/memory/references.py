"""The values of a field of an item, as text: how items of one tier name those of another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroca_backup.errors import ConfigurationError


def values_of(item: Mapping[str, Any], field: str) -> Iterator[str]:
    """Yield what the path `field` (names with dots) leads to, through objects, lists, JSON texts.

    None and "" are no values. A number is the same text however it is stored.
    """
    names = field.split(".")
    yield from _below(item, names)


def absent(place: str, known: Sequence[str], *, backup_id: str) -> ConfigurationError:
    """Return the error for a place that a backup does not have."""
    return ConfigurationError(
        f"agreement: place {place!r} is nothing that {backup_id} holds",
        remedy=f"It holds {', '.join(known) or 'nothing'}: write one of these in backup.yaml.",
        value=place,
    )


def _below(found: Any, names: Sequence[str]) -> Iterator[str]:
    if isinstance(found, list | tuple):
        for one in found:
            yield from _below(one, names)
        return
    if names:
        inner = _object(found)
        if inner is not None:
            yield from _below(inner.get(names[0]), names[1:])
        return
    if found is None or found == "" or isinstance(found, Mapping):
        return
    whole = isinstance(found, float) and found.is_integer()
    yield str(int(found)) if whole else str(found)


def _object(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value.startswith("{"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
    return None
