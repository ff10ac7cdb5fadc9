"""Sanitising keys of Redis: each that matches a pattern is given new values, in its own type."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from neuroca_backup.errors import NotFoundError, PermanentError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.redis_patterns import matches
from neuroca_backup.redis_session import connect, state
from neuroca_backup.services.sanitise.copies import Change
from neuroca_backup.services.sanitise.evidence import Evidence
from neuroca_backup.services.sanitise.masking import Masker, mask_at, unfit, walk
from neuroca_backup.settings import RuleSettings

_BATCH = 500
_LOOKED_AT = 200  # keys that are looked into for values to search for
_PIECE = 1 << 18


@contextmanager
def opened(endpoint: Endpoint) -> Iterator[Keys]:
    """Open the copy: every database that has keys."""
    yield Keys(endpoint, tuple(sorted(state(endpoint).databases)))


@dataclass(frozen=True, slots=True)
class Keys:
    """See `neuroca_backup.services.sanitise.copies.Copy`. Names of keys are not changed."""

    endpoint: Endpoint
    databases: Sequence[int]

    def check(self, rules: Sequence[RuleSettings]) -> Sequence[RuleSettings]:
        """Find a key for every rule, and the field in one of them."""
        found = [rule for rule in rules if any(self._holding(rule))]
        for rule in rules:
            if rule not in found and not rule.optional:
                raise NotFoundError(
                    f"{rule.place} is not in the copy: no key of databases "
                    f"{', '.join(map(str, self.databases)) or '(none)'} has it",
                    remedy="Correct that rule of `sanitise`, or say `optional: true` where it may "
                    "be absent. Nothing was changed.",
                    place=rule.place,
                )
        return found

    def capture(self, rules: Sequence[RuleSettings], evidence: Evidence) -> None:
        """Keep values of some keys of each pattern."""
        for rule in rules:
            for looked, value in enumerate(self._holding(rule)):
                if not evidence.wants(rule.place) or looked == _LOOKED_AT:
                    break
                evidence.add(rule.place, value)

    def apply(self, rules: Sequence[RuleSettings], masker: Masker) -> Sequence[Change]:
        """Change every key that matches once, however often SCAN shows it."""
        changes = []
        for rule in rules:
            count = 0
            for database in self._of(rule):
                with connect(self.endpoint, database=database) as client:
                    for key in _once(client, str(rule.keys).encode()):
                        count += _change(client, key, rule, masker)
            changes.append(Change(rule.place, rule.action, count))
        return changes

    def pieces(self, *, most: int | None = None) -> Iterator[bytes]:
        """Yield the keys with all their values."""
        for database in self.databases:
            with connect(self.endpoint, database=database) as client:
                for told, key in enumerate(client.scan_iter(count=_BATCH)):
                    if told == most:
                        break
                    piece = bytearray(key)
                    for value in _values(client, key):
                        piece += b"\n" + value
                        if len(piece) >= _PIECE and most is None:
                            yield bytes(piece)
                            piece.clear()
                    yield bytes(piece)

    def _of(self, rule: RuleSettings) -> Iterator[int]:
        return (n for n in self.databases if rule.database in (None, str(n)))

    def _holding(self, rule: RuleSettings) -> Iterator[Any]:
        """Yield what stands at the place of `rule` in each key that has it."""
        for database in self._of(rule):
            with connect(self.endpoint, database=database) as client:
                for key in client.scan_iter(match=str(rule.keys).encode(), count=_BATCH):
                    if not rule.path:
                        found = list(islice(_values(client, key, names=False), _LOOKED_AT))
                        yield from found or [b""]  # the key alone is a place
                        continue
                    yield from _at_path(client, key, rule)


def _at_path(client: Any, key: bytes, rule: RuleSettings) -> Iterator[Any]:
    kind = client.type(key)
    if kind == b"hash":
        pattern = str(rule.field).encode()
        for name, value in client.hscan_iter(key, count=_BATCH):
            if matches(pattern, name):
                yield value
    elif kind == b"string":
        document = _document(client.get(key))
        for container, name in walk(document, rule.path):
            yield container[name]


def _once(client: Any, pattern: bytes) -> Iterator[bytes]:
    """Yield every key that matches once, from a set that the server keeps meanwhile."""
    todo = f"neuroca:sanitise:{secrets.token_hex(8)}".encode()
    try:
        batch: list[bytes] = []
        for key in client.scan_iter(match=pattern, count=_BATCH):
            if key == todo:
                continue
            batch.append(key)
            if len(batch) == _BATCH:
                client.sadd(todo, *batch)
                batch = []
        if batch:
            client.sadd(todo, *batch)
        while keys := client.spop(todo, _BATCH):
            yield from keys
    finally:
        client.delete(todo)


def _change(client: Any, key: bytes, rule: RuleSettings, masker: Masker) -> int:
    """Do what `rule` says to one key; return how many values it changed."""
    if rule.action == "drop" and not rule.path:
        return int(client.unlink(key))

    def new(value: bytes) -> bytes:
        if rule.action == "null":
            return b""
        try:
            made = masker.replaced(value.decode(), rule)
        except UnicodeDecodeError:
            if rule.action == "fake":
                raise unfit(rule, value) from None
            made = masker.digest(value)
        return made.encode() if isinstance(made, str) else bytes(made)

    kind = client.type(key)
    if rule.path and kind not in {b"hash", b"string"}:
        return 0
    change = _CHANGES.get(bytes(kind))
    if change is None:
        raise PermanentError(
            f"{rule.place} matches a key of type {bytes(kind).decode()}, of which single values "
            "cannot be changed",
            remedy="Write `action: drop` in a rule of its own for such keys.",
            place=rule.place,
        )
    return change(client, key, rule, masker, new)


_New = Callable[[bytes], bytes]
_Command = tuple[bytes | str, ...]


def _string(client: Any, key: bytes, rule: RuleSettings, masker: Masker, new: _New) -> int:
    value: Any = client.get(key)
    if value is None:
        return 0  # it has expired
    if not rule.path:
        client.set(key, new(value), keepttl=True)
        return 1
    document = _document(value)
    done = mask_at(document, rule, masker) if document is not None else 0
    if done:
        client.set(key, json.dumps(document, ensure_ascii=False), keepttl=True)
    return done


def _hash(client: Any, key: bytes, rule: RuleSettings, _: Masker, new: _New) -> int:
    pattern = str(rule.field or "*").encode()
    done = 0

    def fields() -> Iterator[_Command]:
        nonlocal done
        for name, value in client.hscan_iter(key, count=_BATCH):
            if not matches(pattern, name):
                yield "HSET", name, value
                continue
            done += 1
            if rule.action != "drop":
                yield "HSET", name, new(value)

    if any(matches(pattern, name) for name, _ in client.hscan_iter(key, count=_BATCH)):
        _exchange(client, key, fields())
    return done


def _list(client: Any, key: bytes, rule: RuleSettings, _: Masker, new: _New) -> int:
    del rule
    length: Any = client.llen(key)
    for start in range(0, length, _BATCH):
        values: Any = client.lrange(key, start, start + _BATCH - 1)
        pipe = client.pipeline(transaction=False)
        for offset, value in enumerate(values):
            pipe.lset(key, start + offset, new(value))
        pipe.execute()
    return int(length)


def _set(client: Any, key: bytes, rule: RuleSettings, _: Masker, new: _New) -> int:
    del rule
    members = client.sscan_iter(key, count=_BATCH)
    return _exchange(client, key, (("SADD", new(one)) for one in members))


def _sorted_set(client: Any, key: bytes, rule: RuleSettings, _: Masker, new: _New) -> int:
    del rule
    members = client.zscan_iter(key, count=_BATCH)
    return _exchange(client, key, (("ZADD", repr(score), new(one)) for one, score in members))


def _exchange(client: Any, key: bytes, commands: Iterator[_Command]) -> int:
    """Make the key anew beside itself, then let that take its place with its expiry.

    Returns how many commands made it; a key of which nothing is left is removed. SCAN may show a
    member twice, and then it is made twice, to the same.
    """
    made = f"neuroca:sanitised:{secrets.token_hex(8)}".encode()
    left, sent = client.pttl(key), 0
    pipe = client.pipeline(transaction=False)
    for name, *words in commands:
        pipe.execute_command(name, made, *words)
        sent += 1
        if sent % _BATCH == 0:
            pipe.execute()
    pipe.execute()
    if not sent:
        client.unlink(key)
        return 0
    client.rename(made, key)
    if left > 0:
        client.pexpire(key, left)
    return sent


_CHANGES: Mapping[bytes, Callable[[Any, bytes, RuleSettings, Masker, _New], int]] = {
    b"string": _string,
    b"hash": _hash,
    b"list": _list,
    b"set": _set,
    b"zset": _sorted_set,
}


def _document(value: Any) -> Any:
    """Return the JSON object or list in `value`, or None."""
    try:
        found = json.loads(value)
    except (TypeError, ValueError):
        return None
    return found if isinstance(found, dict | list) else None


def _values(client: Any, key: bytes, *, names: bool = True) -> Iterator[bytes]:
    """Yield every value of a key, with `names` those of fields; nothing where it has expired."""
    kind = client.type(key)
    if kind == b"string":
        found = client.get(key)
        yield from () if found is None else (found,)
    elif kind == b"hash":
        for name, value in client.hscan_iter(key, count=_BATCH):
            yield from (name, value) if names else (value,)
    elif kind == b"list":
        for start in range(0, client.llen(key), _BATCH):
            yield from client.lrange(key, start, start + _BATCH - 1)
    elif kind == b"set":
        yield from client.sscan_iter(key, count=_BATCH)
    elif kind == b"zset":
        yield from (member for member, _ in client.zscan_iter(key, count=_BATCH))
    elif kind == b"stream":
        yield from _stream(client, key)


def _stream(client: Any, key: bytes) -> Iterator[bytes]:
    last = "-"
    while found := client.xrange(key, min=last, count=_BATCH):
        for _, fields in found:
            for pair in fields.items():
                yield from pair
        last = f"({found[-1][0].decode()}"
