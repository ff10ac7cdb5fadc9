"""Sources that are many things: which parts there are, found when a backup begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroca_backup.engines import Dividing
from neuroca_backup.errors import EmptySourceError, NotFoundError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.identity import part_name


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of a source: `source` is its name in ids and keys, `name` its true one."""

    source: str
    name: str


def discover(
    source: str, engine: Dividing, endpoint: Endpoint, options: Mapping[str, Any]
) -> tuple[Part, ...]:
    """Return every part that `source` has now, in the engine's order.

    Raises:
        EmptySourceError: It has none.
        ConfigurationError: One of them cannot be given a name.
    """
    names = dict.fromkeys(engine.parts(endpoint, options))
    if not names:
        raise EmptySourceError(
            f"There is nothing in {source}: no part of it was found",
            remedy="See that its options in backup.yaml lead to the right place, and that the "
            "user who runs the tasks may read it.",
            source=source,
        )
    return tuple(Part(source=part_name(source, name), name=name) for name in names)


def named(
    wanted: str, source: str, engine: Dividing, endpoint: Endpoint, options: Mapping[str, Any]
) -> Part:
    """Return the part of `source` that is called `wanted` in ids: `models__llama_3`.

    Raises:
        NotFoundError: There is no such part, or it is the whole source; names those there are.
        EmptySourceError: The source has no parts.
    """
    parts = discover(source, engine, endpoint, options)
    for part in parts:
        if part.source == wanted:
            return part
    raise NotFoundError(
        f"{source} has no part {wanted}",
        remedy=f"Use one of: {', '.join(part.source for part in parts)}.",
        value=wanted,
    )
