"""What a session asks of a Qdrant server, patiently, and how copies are named there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from neuroca_backup.engines.qdrant import client as qdrant
from neuroca_backup.errors import InterruptedToolError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.vectors import http_service

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

Result = TypeVar("Result")

_COPY = re.compile(r"(?P<name>.+)_restored_[0-9a-f]{12}")


def copy_name(name: str, mark: str) -> str:
    """Return what the copy of a collection is called where its own name is taken."""
    return f"{name}_restored_{mark}"


def is_copy(physical: str, alias: str) -> bool:
    """Return whether a collection called `physical` is a copy of the one called `alias`."""
    match = _COPY.fullmatch(physical)
    return match is not None and match["name"] == alias


class Session:
    """The client of one endpoint; what fails for a moment is asked again."""

    def __init__(self, endpoint: Endpoint, client: QdrantClient) -> None:
        self.endpoint = endpoint
        self.client = client

    def ask(self, call: Callable[[], Result]) -> Result:
        """Return what `call`, safe to repeat, returns; its errors become ours."""

        def translated() -> Result:
            with qdrant.translated(self.endpoint):
                return call()

        return http_service.patiently(translated)

    def page(self, name: str, limit: int, offset: Any) -> tuple[list[Any], Any]:
        """Return at most `limit` points from `offset` on, and where the next page begins."""
        records, following = self.ask(
            lambda: self.client.scroll(
                name, limit=limit, offset=offset, with_payload=True, with_vectors=True
            )
        )
        if following is not None and following == offset:
            raise InterruptedToolError(
                f"Qdrant at {self.endpoint.label} does not get beyond point {offset}",
                remedy="It is tried again; look at the server's log.",
                collection=name,
            )
        return list(records), following

    def upsert(self, name: str, points: list[Any]) -> Any:
        """Write points; answered when they are applied."""
        return self.ask(lambda: self.client.upsert(name, points, wait=True))

    def physical(self) -> list[Any]:
        """Return all collections as the server calls them."""
        return list(self.ask(lambda: self.client.get_collections().collections))

    def aliases(self) -> dict[str, str]:
        """Return every alias of the server and the collection that it points to."""
        found = self.ask(lambda: self.client.get_aliases().aliases)
        return {one.alias_name: one.collection_name for one in found}

    def exists(self, name: str) -> bool:
        """Return whether there is a collection or an alias of that name."""
        return bool(self.ask(lambda: self.client.collection_exists(name)))

    def point(self, aliases: Mapping[str, str], *, without: str = "") -> None:
        """Point aliases at collections and take one away, all at one moment."""
        from qdrant_client import models  # noqa: PLC0415 - an optional package

        actions: list[Any] = [
            models.CreateAliasOperation(
                create_alias=models.CreateAlias(alias_name=alias, collection_name=of)
            )
            for alias, of in aliases.items()
        ]
        if without:
            actions.append(
                models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=without))
            )
        self.ask(lambda: self.client.update_collection_aliases(actions))
