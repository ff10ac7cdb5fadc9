"""What the tiers are called, and the options that their sources have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from neuroca_backup.errors import ConfigurationError

# The version of the exports' form; a restore reads this one and refuses others.
FORM = 1

WORKING, EPISODIC, SEMANTIC = "working", "episodic", "semantic"
# NCA's code calls its tiers by how long they keep, its operators by what they remember.
CODE_NAMES: Mapping[str, str] = {WORKING: "stm", EPISODIC: "mtm", SEMANTIC: "ltm"}
_ALIASES = {code: tier for tier, code in CODE_NAMES.items()}
_PROCESS_MEMORY = frozenset({"memory", "in_memory", "inmemory", "in-memory"})


def tier_of(word: object) -> str:
    """Return `working`, `episodic` or `semantic` for that word, or for `stm`, `mtm`, `ltm`.

    Raises:
        ValueError: It is none of these.
    """
    name = str(word).lower()
    tier = _ALIASES.get(name, name)
    if tier not in CODE_NAMES:
        known = ", ".join(f"{tier} ({code})" for tier, code in CODE_NAMES.items())
        raise ValueError(f"there is no such tier; there are {known}")
    return tier


Tier = Annotated[str, BeforeValidator(tier_of)]


class Fields(BaseModel):
    """Which fields of an item say whose it is and when it was made.

    Each is a name, or a path of names with dots; each is looked for in the item and in its
    `metadata`. The first that is there counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    session: tuple[str, ...] = ("session_id", "session")
    user: tuple[str, ...] = ("user_id", "user")
    time: tuple[str, ...] = ("created_at", "occurred_at", "timestamp")


class TierOptions(BaseModel):
    """`options` that the sources of all tiers have.

    `tier`: whose items these are; an alias is turned into the tier's name. `backend`: what holds
    the tier. `session_fields`, `user_fields`, `time_fields`: see `Fields`. `allow_empty`: whether
    a tier without any item is a backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Tier
    backend: str
    session_fields: tuple[str, ...] = Fields().session
    user_fields: tuple[str, ...] = Fields().user
    time_fields: tuple[str, ...] = Fields().time
    allow_empty: bool = Field(default=False)

    @field_validator("session_fields", "user_fields", "time_fields")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(names):
            raise ValueError("a field has no name")
        return names

    @property
    def fields(self) -> Fields:
        """Which fields say whose an item is, and of when."""
        return Fields(session=self.session_fields, user=self.user_fields, time=self.time_fields)


def require_backend(given: Mapping[str, Any], *, kind: str, known: tuple[str, ...]) -> None:
    """Raise unless the option `backend` is one of `known`, or not given.

    Raises:
        ConfigurationError: The tier is kept where this engine cannot reach it; says what to do.
    """
    backend = given.get("backend", known[0])
    if backend in known:
        return
    if str(backend).lower() in _PROCESS_MEMORY:
        raise ConfigurationError(
            f"options.backend of a {kind} source is {backend!r}: such a tier lives in NCA's own "
            "process, ends with it, and cannot be captured from outside",
            remedy=f"Configure NCA to keep this tier in a store (its backend {known[0]}), then set "
            f"`backend: {known[0]}` here; or remove the source if the tier may be lost.",
            path="options.backend",
            value=backend,
        )
    raise ConfigurationError(
        f"options.backend of a {kind} source is {backend!r}",
        remedy=f"It can be {' or '.join(known)}; other stores have other engines.",
        path="options.backend",
        value=backend,
    )


def require_form(facts: Mapping[str, Any], *, kind: str) -> None:
    """Raise `ConfigurationError` unless this version reads exports of such a form."""
    if facts.get("form") != FORM:
        raise ConfigurationError(
            f"The export is of form {facts.get('form')!r} of {kind}; this program reads {FORM}",
            remedy="Use the version of neuroca-backup that wrote it, or a newer one.",
            value=facts.get("form"),
        )
