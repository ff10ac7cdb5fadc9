"""What the database users of backups and of restores may do, in each database's own words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuroca_backup.services.policies.documents import Document
    from neuroca_backup.settings import Settings


def documents(settings: Settings) -> Iterator[Document]:
    """Yield the documents."""
    yield from ()
