"""Questions asked of a tier in Redis: is the server ready, and can keys of the tier be read?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from neuroca_backup.engines import Answer
from neuroca_backup.engines.working_memory import dump, reading
from neuroca_backup.engines.working_memory.selecting import DATABASE, parsed
from neuroca_backup.errors import BackupError
from neuroca_backup.memory.seen import Seen
from neuroca_backup.memory.selection import Selection
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.redis_questions import ready

_KEYS = 100  # read of every database


def examine(
    endpoint: Endpoint, facts: Mapping[str, Any], *, only: Sequence[str] = ()
) -> list[Answer]:
    """Ask what the server is, then read keys of the tier in every database that was restored."""
    selection = parsed(only, facts)
    return [ready(endpoint), *_read(endpoint, facts, selection)]


def _read(endpoint: Endpoint, facts: Mapping[str, Any], selection: Selection) -> Iterator[Answer]:
    patterns = [str(pattern).encode() for pattern in facts["keys"]]
    wanted = selection.place(DATABASE)
    for number, known in facts["databases"].items():
        if wanted and number not in wanted:
            continue
        begun = time.monotonic()
        question = f"database {number}: keys of the tier can be read"
        problems: tuple[str, ...] = ()
        try:
            with reading.opened(endpoint, int(number)) as client, Seen() as seen:
                found = chain.from_iterable(dump.own_keys(client, patterns, seen, int(number)))
                keys = list(islice(found, _KEYS))
                for _ in reading.Reading(client, endpoint).pieces(keys):
                    pass  # a key that has gone meanwhile is no problem, one that fails raises
            if not keys and selection.whole and known["keys"] > known["expiring"]:
                problems = ("it holds no key of the tier",)
        except BackupError as error:
            problems = (f"it does not answer: {error.problem}",)
        yield Answer(question, round(time.monotonic() - begun, 4), problems)
