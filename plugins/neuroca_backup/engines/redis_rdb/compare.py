"""Comparing: two walks, one through the fetched RDB, one through what a server holds now.

Keys are counted exactly, by database and type; contents are compared on a sample. Both sides
leave out what had expired when the server's snapshot was made.
"""

from __future__ import annotations

import heapq
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroca_backup import redis_session as session
from neuroca_backup.engines import Difference, Restorable
from neuroca_backup.engines.redis_rdb import rdb, snapshot, values
from neuroca_backup.engines.redis_rdb.dump import facts_of
from neuroca_backup.engines.redis_rdb.parts import Parts
from neuroca_backup.engines.redis_rdb.reader import MalformedError, Reader
from neuroca_backup.engines.redis_rdb.snapshot import MEMBER
from neuroca_backup.errors import AccessDeniedError, DamagedError
from neuroca_backup.model.endpoint import Endpoint

if TYPE_CHECKING:
    import redis

# A time to live that was carried over as a remainder may be off by the length of a round trip.
TOLERANCE_MS = 1000
BATCH = 500
_SNAPSHOT_SECONDS = 1800.0
_SCAN_ALLOWANCE_MS = 60_000


class Tally:
    """Counts of the keys that outlive `moment` (ms since 1970), and a sample of digests.

    Of all keys those with the smallest hashes are sampled, so two walks through the same keys
    choose the same ones, whatever their order. Without `moment` it is the second after the
    snapshot's own time.
    """

    def __init__(self, parts: Parts, *, sample: int, moment: int | None = None) -> None:
        self.parts = parts
        self.moment = moment
        self.databases: dict[int, rdb.Database] = {}
        # Keys so close to the moment that the two sides may disagree on them.
        self.doubtful: Counter[int] = Counter()
        self._size = sample
        self._heap: list[tuple[int, int, bytes, str, str, int]] = []

    def visit(
        self,
        contents: rdb.Contents,
        number: int,
        form: int,
        key: bytes,
        expiry: int,
        reader: Reader,
    ) -> bool:
        """Count one key; see `rdb.Visit`."""
        if self.moment is None:
            made_at = contents.made_at
            self.moment = 0 if made_at is None else int(made_at.timestamp() * 1000) + 1000
        if not (self.parts.whole or self.parts.has(number, key)):
            return False
        if expiry:
            if abs(expiry - self.moment) <= TOLERANCE_MS:
                self.doubtful[number] += 1
            if expiry <= self.moment:
                return False
        word = rdb.TYPES[form]
        database = self.databases.get(number)
        if database is None:
            database = self.databases[number] = rdb.Database()
        database.keys += 1
        database.expiring += bool(expiry)
        database.types[word] += 1
        order = hash((number, key))
        if len(self._heap) == self._size and order >= -self._heap[0][0]:
            return False
        found = values.digest(reader, form, moment=self.moment)
        entry = (-order, number, key, word, found, expiry)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)
        return True

    def sample(self, *, below: int) -> dict[tuple[int, bytes], tuple[str, str, int]]:
        """Return type, digest and expiry of the sampled keys whose hash is not above `below`."""
        return {
            (number, key): (word, found, expiry)
            for order, number, key, word, found, expiry in self._heap
            if -order <= below
        }

    @property
    def limit(self) -> int:
        """The hash up to which every key is in the sample."""
        return -self._heap[0][0] if len(self._heap) == self._size else (1 << 64)


def file_differences(backup: Restorable, path: Path, found: Path, parts: Parts) -> list[Difference]:
    """Compare two files, nothing of which has expired for good."""
    if not found.is_file():
        return [Difference(found.name, "a file", "nothing there")]
    there = Tally(parts, sample=_sample(backup), moment=0)
    contents = _walk(found, there)
    return _compared(backup, path, there, contents.functions)


def server_differences(
    backup: Restorable, path: Path, endpoint: Endpoint, parts: Parts
) -> list[Difference]:
    """Compare what `endpoint` holds with the RDB at `path` and that with the manifest."""
    there = Tally(parts, sample=_sample(backup))
    functions: list[str] | None
    try:
        contents = snapshot.read(endpoint, seconds=_SNAPSHOT_SECONDS, visit=there.visit)
        functions = contents.functions
        if there.moment is None and contents.made_at is not None:
            there.moment = int(contents.made_at.timestamp() * 1000) + 1000
    except AccessDeniedError:
        # A managed service gives no snapshot away, but every key.
        there, functions = _scanned(backup, endpoint, parts), None
    return _compared(backup, path, there, functions)


def size_differences(backup: Restorable, endpoint: Endpoint) -> list[Difference]:
    """Compare a server's own count of its keys with the manifest, whoever made that.

    It may have dropped all that expire, and nothing else.
    """
    held = session.state(endpoint).databases
    known = backup.last.dump.facts["databases"]
    found = []
    for number in sorted({*held, *map(int, known)}):
        one = known.get(str(number), {"keys": 0, "expiring": 0})
        if not one["keys"] - one["expiring"] <= held.get(number, 0) <= one["keys"]:
            found.append(
                Difference(
                    f"database {number}: DBSIZE",
                    f"{one['keys']:,}, of which {one['expiring']:,} expire",
                    f"{held.get(number, 0):,}",
                )
            )
    return found


def _sample(backup: Restorable) -> int:
    return int(backup.last.dump.facts["sample"])


def _walk(path: Path, tally: Tally) -> rdb.Contents:
    with path.open("rb") as file:
        return rdb.walk(Reader(file.read), name=path.name, visit=tally.visit)


def _compared(
    backup: Restorable, path: Path, there: Tally, functions: list[str] | None
) -> list[Difference]:
    here = Tally(there.parts, sample=_sample(backup), moment=there.moment or 0)
    contents = _walk(path, here)
    return [
        *_facts(backup.last.dump.facts, facts_of(contents)),
        *_counts(here, there),
        *_contents(here, there),
        *(
            [Difference("functions", f"{len(contents.functions)} libraries", "others")]
            if functions is not None
            and there.parts.whole
            and sorted(functions) != sorted(contents.functions)
            else []
        ),
    ]


def _facts(known: dict[str, Any], found: dict[str, Any]) -> Iterator[Difference]:
    for word, value in found.items():
        if known.get(word) != value:
            yield Difference(f"{MEMBER} itself: {word}", str(known.get(word)), str(value))


def _counts(here: Tally, there: Tally) -> Iterator[Difference]:
    for number in sorted({*here.databases, *there.databases}):
        expected = here.databases.get(number, rdb.Database())
        found = there.databases.get(number, rdb.Database())
        allowed = here.doubtful[number] + there.doubtful[number]
        pairs = {
            "keys": (expected.keys, found.keys),
            "keys that expire": (expected.expiring, found.expiring),
            **{
                f"keys of type {word}": (expected.types[word], found.types[word])
                for word in sorted({*expected.types, *found.types})
            },
        }
        for what, (one, other) in pairs.items():
            if abs(one - other) > allowed:
                yield Difference(f"database {number}: {what}", f"{one:,}", f"{other:,}")


def _contents(here: Tally, there: Tally) -> Iterator[Difference]:
    """Compare the sampled keys; their names are data, so they are counted, not told."""
    below = min(here.limit, there.limit)
    expected, found = here.sample(below=below), there.sample(below=below)
    checked: Counter[int] = Counter()
    wrong: dict[tuple[int, str], Counter[str]] = {}
    moment = here.moment or 0
    for number, key in {*expected, *found}:
        one, other = expected.get((number, key)), found.get((number, key))
        checked[number] += 1
        if one is None or other is None:
            expiry = (one or other or ("", "", 0))[2]
            if expiry and abs(expiry - moment) <= TOLERANCE_MS:
                continue
            what = "missing" if other is None else "not in the backup"
            wrong.setdefault((number, what), Counter())[(one or other or ("",))[0]] += 1
        elif one[:2] != other[:2]:
            wrong.setdefault((number, "with another value"), Counter())[one[0]] += 1
        elif bool(one[2]) != bool(other[2]) or abs(one[2] - other[2]) > TOLERANCE_MS:
            wrong.setdefault((number, "with another expiry"), Counter())[one[0]] += 1
    for (number, what), types in sorted(wrong.items()):
        told = ", ".join(f"{count:,} of type {word}" for word, count in sorted(types.items()))
        yield Difference(
            f"database {number}: {checked[number]:,} sampled keys", "all equal", f"{told} {what}"
        )


def _scanned(backup: Restorable, endpoint: Endpoint, parts: Parts) -> Tally:
    """Tally a server by SCAN, again with more allowance when it took longer than allowed."""
    allowance = _SCAN_ALLOWANCE_MS
    while True:
        with session.connect(endpoint) as client:
            moment = now_ms(client) + allowance
            numbers = sorted({*session.State(client.info()).databases})
        tally = Tally(parts, sample=_sample(backup), moment=moment)
        for number in numbers:
            with session.connect(endpoint, database=number) as client:
                for keys in scan(client, b"*"):
                    for key, expiry, payload in dumped(client, keys):
                        _add(tally, number, key, expiry, payload)
        with session.connect(endpoint) as client:
            if now_ms(client) <= moment:
                return tally
        allowance *= 4


def _add(tally: Tally, number: int, key: bytes, expiry: int, payload: bytes) -> None:
    reader = Reader(io.BytesIO(payload[1:]).read)
    try:
        tally.visit(rdb.Contents(), number, payload[0], key, expiry, reader)
    except (MalformedError, KeyError):
        raise DamagedError(
            f"A key of database {number} was dumped in a form that cannot be read",
            remedy="Use a newer version of this program, or compare with redis-cli.",
        ) from None


def now_ms(client: redis.Redis) -> int:
    """Return the server's own clock in milliseconds since 1970."""
    answer: Any = client.time()
    seconds, micros = answer
    return int(seconds) * 1000 + int(micros) // 1000


def scan(client: redis.Redis, pattern: bytes) -> Iterator[list[bytes]]:
    """Yield the keys of the session's database in batches; a key may come twice."""
    cursor = 0
    while True:
        answer: Any = client.scan(cursor=cursor, match=pattern, count=BATCH)
        cursor, keys = answer
        if keys:
            yield keys
        if not int(cursor):
            return


def dumped(client: redis.Redis, keys: list[bytes]) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield each key that is still there, its expiry (ms since 1970, 0 for never), its DUMP."""
    asking = client.pipeline(transaction=False)
    # The clock is read beside the remaining times, so that they become points in time.
    asking.time()
    for key in keys:
        asking.pttl(key)
        asking.dump(key)
    (seconds, micros), *answers = asking.execute()
    now = int(seconds) * 1000 + int(micros) // 1000
    for key, left, payload in zip(keys, answers[::2], answers[1::2], strict=True):
        if payload is not None and left != -2:
            yield key, now + left if left >= 0 else 0, payload
