"""Documents as lines of canonical Extended JSON, which mongoimport reads, and back.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/
"""

from __future__ import annotations

import re
from typing import Any

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion

from neuroca_backup.errors import PermanentError

_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_JSON = json_util.CANONICAL_JSON_OPTIONS.with_options(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
# Only names that begin with a dollar can be taken for something else; a name follows its type.
# https://bsonspec.org/spec.html
_DOLLAR = re.compile(rb"[\x01-\x13\x7f\xff]\$")


def line(raw: bytes, *, namespace: str) -> bytes:
    """Return a BSON document as a line.

    Raises:
        PermanentError: It has something that would not come back: a deprecated type, a field
            twice, or fields whose names mean something else in Extended JSON.
    """
    document = bson.decode(raw, _CODEC)
    text = json_util.dumps(document, json_options=_JSON).encode()
    same = bson.encode(document) == raw and (not _DOLLAR.search(raw) or encoded(text)[0] == raw)
    if not same:
        raise PermanentError(
            f"A document of {namespace} has a deprecated type, a field twice, or a field named "
            "like a word of Extended JSON: as JSON it would not come back the same",
            remedy="Leave the collection out by the source's `collections`; the engine mongodb "
            "backs it up as BSON.",
            namespace=namespace,
        )
    return text + b"\n"


def encoded(text: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return the BSON of a line, and the document.

    Raises:
        ValueError: It is no document with an `_id`.
    """
    try:
        document = json_util.loads(text, json_options=_JSON)
        if not isinstance(document, dict) or "_id" not in document:
            raise ValueError("no document with an _id")
        return bson.encode(document), document
    except (bson.errors.BSONError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise ValueError(f"no document ({type(error).__name__})") from None


def split(batch: bytes) -> list[bytes]:
    """Return the documents of a batch as the server sends them."""
    found, at = [], 0
    while at < len(batch):
        size = int.from_bytes(batch[at : at + 4], "little")
        found.append(batch[at : at + size])
        at += size
    return found
