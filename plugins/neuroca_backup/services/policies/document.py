"""What a document is."""

from __future__ import annotations

from dataclasses import dataclass

from neuroca_backup.settings import Role


@dataclass(frozen=True, slots=True)
class Document:
    """One file: `path` is relative, `purpose` a sentence, `role` whose it is, None for no one's."""

    path: str
    purpose: str
    text: str
    role: Role | None = None
