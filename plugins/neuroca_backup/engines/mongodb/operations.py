"""Oplog entries as single operations, in the order in which they took effect.

A transaction's operations take effect with its last entry, an aborted one's never.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import Timestamp
from bson.raw_bson import RawBSONDocument

from neuroca_backup.errors import IncompatibleVersionError

INSERT, UPDATE, DELETE, COMMAND = "i", "u", "d", "c"

# Entries about the node or the cluster, not about data.
_IGNORED_KINDS = frozenset({"n", "km", "ci", "cu", "cd"})
_IGNORED_COMMANDS = frozenset({"startIndexBuild", "dbCheck", "setMultikeyMetadata"})
KNOWN_COMMANDS = frozenset(
    {
        "create",
        "drop",
        "dropDatabase",
        "renameCollection",
        "collMod",
        "createIndexes",
        "commitIndexBuild",
        "abortIndexBuild",
        "dropIndexes",
        "deleteIndexes",
        "deleteIndex",
        "dropIndex",
    }
)
# From MongoDB 8.0 on a batch of inserts may be one entry; it is no transaction.
_VECTORED_INSERT = 1


@dataclass(frozen=True, slots=True)
class Operation:
    """One change: `kind` is `i`, `u`, `d` or `c`; `uuid` (hex) the collection's, "" where none.

    `ts` and `wall` are those of the entry with which it took effect.
    """

    kind: str
    namespace: str
    uuid: str
    body: Mapping[str, Any]
    criteria: Mapping[str, Any] | None
    ts: Timestamp
    wall: datetime

    @property
    def database(self) -> str:
        """The database it belongs to."""
        return self.namespace.partition(".")[0]

    @property
    def command(self) -> str:
        """The name of a command, "" of another operation."""
        return next(iter(self.body)) if self.kind == COMMAND else ""


class Transactions:
    """Operations of transactions whose end has not been read yet.

    They are bounded by what one transaction may hold in the source's memory.
    """

    def __init__(self) -> None:
        self._open: dict[tuple[bytes, int], list[Mapping[str, Any]]] = {}

    def feed(self, entry: RawBSONDocument) -> Iterator[Operation]:
        """Yield the operations that take effect with `entry`.

        Raises:
            IncompatibleVersionError: It holds a command that this program does not know.
        """
        kind = entry["op"]
        if kind in _IGNORED_KINDS:
            return
        if kind != COMMAND:
            yield _operation(entry, entry)
            return
        body = entry["o"]
        name = next(iter(body))
        if name == "applyOps":
            for inner in self._applied(entry, body):
                yield _operation(inner, entry)
        elif name == "commitTransaction":
            for inner in self._open.pop(_transaction(entry), []):
                yield _operation(inner, entry)
        elif name == "abortTransaction":
            self._open.pop(_transaction(entry), None)
        elif name not in _IGNORED_COMMANDS:
            yield _operation(entry, entry)

    def _applied(
        self, entry: Mapping[str, Any], body: Mapping[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        if "txnNumber" not in entry or entry.get("multiOpType") == _VECTORED_INSERT:
            return body["applyOps"]  # type: ignore[no-any-return]
        key = _transaction(entry)
        waiting = self._open.setdefault(key, [])
        waiting.extend(body["applyOps"])
        if body.get("partialTxn") or body.get("prepare"):
            return ()
        return self._open.pop(key)


def touches_data(operation: Operation) -> bool:
    """Return whether an operation changes anything that a backup holds."""
    return operation.database not in {"config", "local"}


def _operation(inner: Mapping[str, Any], entry: Mapping[str, Any]) -> Operation:
    ui = inner.get("ui")
    found = Operation(
        kind=inner["op"],
        namespace=inner["ns"],
        uuid="" if ui is None else bytes(ui).hex(),
        body=inner["o"],
        criteria=inner.get("o2"),
        ts=entry["ts"],
        wall=entry["wall"].replace(tzinfo=UTC),
    )
    if found.command and found.command not in KNOWN_COMMANDS and touches_data(found):
        raise IncompatibleVersionError(
            f"The oplog holds the command {found.command}, which cannot be repeated elsewhere",
            remedy="Take a full backup after it, and restore that.",
            command=found.command,
            namespace=found.namespace,
        )
    return found


def _transaction(entry: Mapping[str, Any]) -> tuple[bytes, int]:
    return bytes(entry["lsid"]["id"]), int(entry["txnNumber"])
