"""What a vector store must be able to do for us: the one interface between it and the engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from neuroca_backup.vectors.model import Collection, Name

if TYPE_CHECKING:
    import pyarrow as pa

Key = int | str


class VectorDatabase(Protocol):
    """An open session with a vector store. Every method may raise the errors of errors.py.

    Rows travel as Arrow record batches of `columns.schema_of(collection)`, so that nothing is
    ever held as Python objects that need not be. `beside` says whether a collection can be loaded
    under another name and take its place by `swap`; where it cannot, it is loaded in its place.
    `threads` is how many batches may be inserted at once.
    """

    beside: ClassVar[bool]
    threads: ClassVar[int]

    def version(self) -> str:
        """Return the server's version, e.g. `2.3.5`."""
        ...

    def tools(self) -> Mapping[str, str]:
        """Return our client's name and version, for the manifest."""
        ...

    def collections(self) -> Sequence[Name]:
        """Return all collections that the connection shows, sorted."""
        ...

    def describe(self, at: Name) -> Collection:
        """Return one; raises `NotFoundError` where there is none (any more)."""
        ...

    def reading(self, at: Name) -> AbstractContextManager[None]:
        """Make a collection readable (flushed, loaded) for the block; afterwards it is as before.

        All that was acknowledged before the block began can be read within it.
        """
        ...

    def count(self, at: Name, *, partition: str = "") -> int:
        """Return how many rows there are by the store's own count, of one partition or of all."""
        ...

    def export(
        self, at: Name, collection: Collection, *, partition: str, batch_bytes: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield every row of a partition once, by ascending key where the store can sort.

        Batches hold about `batch_bytes`, never more than twice that. An adapter that can goes on
        after the last key it has seen when the server fails for a moment; a collection that is
        dropped meanwhile raises `NotFoundError`. It never ends early without an error.
        """
        ...

    def refuse(self, collection: Collection, at: Name) -> None:
        """Raise `IncompatibleVersionError` where this server could not take such a collection.

        Names the field and both sides (dimension limit, unknown field or index type, ...).
        """
        ...

    def create(self, collection: Collection, at: Name, *, mark: str) -> None:
        """Create an empty collection and its partitions; indexes only if that slows no loading.

        `mark` is a word of the restore that makes it; see `made_by`.
        """
        ...

    def made_by(self, at: Name) -> str:
        """Return the `mark` it was created with, until `swap`; "" where the store keeps none.

        It tells what an interrupted restore left from what somebody needs. A store with `beside`
        needs none: there the name tells.
        """
        ...

    def insert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Insert rows; returns once they are acknowledged. Called by several threads at once.

        A batch may be larger than one request takes: the adapter divides it.
        """
        ...

    def upsert(
        self, at: Name, collection: Collection, batch: pa.RecordBatch, *, partition: str
    ) -> None:
        """Insert rows in the place of those with the same keys, where there are any.

        Never for a collection that makes its own keys.
        """
        ...

    def bulk_import(
        self,
        at: Name,
        collection: Collection,
        parts: Sequence[Path],
        *,
        partition: str,
        on_rows: Callable[[int], None],
    ) -> bool:
        """Let the server read the Parquet files `parts` by itself; False where it cannot.

        False means that nothing was imported; the rows are then inserted. `on_rows` is told of
        rows as they arrive.
        """
        ...

    def build(self, at: Name, collection: Collection) -> None:
        """Make all inserted rows durable, build the indexes, load; return when it can be asked.

        Raises:
            TransientError: It was not ready by the adapter's deadline; says how far it came.
        """
        ...

    def fetch(
        self, at: Name, collection: Collection, keys: Sequence[Key], *, partition: str
    ) -> pa.RecordBatch:
        """Return the rows with these keys that there are (at most 1,000 are asked), in any order.

        The partition may be "" for all of them.
        """
        ...

    def nearest(
        self,
        at: Name,
        collection: Collection,
        vector: Any,
        *,
        field: str,
        partition: str,
        limit: int,
    ) -> Sequence[Key]:
        """Return the keys of the `limit` rows nearest to `vector`, as thoroughly as it can search.

        `vector` is what `columns.vectors_of` gives: float32 [dimension], or uint8 of a binary one.
        """
        ...

    def drop(self, at: Name) -> None:
        """Drop a collection; none there is no error."""
        ...

    def swap(self, collection: Collection, at: Name, *, loaded: Name, kept: Name) -> Sequence[str]:
        """Put the copy at `loaded` in its place `at`; return notes.

        With `beside`: what was at `at` stays as `kept`, and aliases follow. Called again after a
        kill at any point it does the rest; when there is nothing left to do it changes nothing.
        Without: `loaded` is `at`, and the mark of `create` is taken away.
        """
        ...

    def place(self, at: Name) -> Name:
        """Return where a collection called `at` in a backup goes in this connection.

        Raises:
            ConfigurationError: The connection names another database than the backup's.
        """
        ...
