"""Names: which collections are backed up, and how the members of a dump are called.

The layout is mongodump's own, so that stock mongorestore reads it:
https://www.mongodb.com/docs/database-tools/mongodump/
"""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import quote

OPLOG = "oplog.bson"
BUCKETS = "system.buckets."
VIEWS = "system.views"
USERS, ROLES, VERSION = "system.users", "system.roles", "system.version"
# Where a restore notes on the target what it has staged; see journal.py.
JOURNAL = "neuroca_restore"
# Under which name a restore loads a collection before it is compared.
STAGING = re.compile(r"restoring_[0-9a-f]{12}_[0-9a-f]{32}")

_NEVER = frozenset({"local", "config", JOURNAL})
_ADMIN = frozenset({USERS, ROLES, VERSION})
# Go's url.PathEscape, which mongodump uses, leaves these in a path segment.
_SAFE = "$&+=:@"
_LONGEST_NAME, _KEPT = 238, 208


def split(namespace: str) -> tuple[str, str]:
    """Return the database and the collection of `database.collection`."""
    database, _, collection = namespace.partition(".")
    return database, collection


def takes_database(name: str) -> bool:
    """Return whether a database is backed up at all; `local` and `config` belong to the node."""
    return name not in _NEVER


def takes_collection(database: str, collection: str) -> bool:
    """Return whether a collection is backed up.

    Those that mongodump leaves out, and what an interrupted restore has left, are not.
    """
    if collection.startswith(BUCKETS):
        return not STAGING.fullmatch(collection.removeprefix(BUCKETS))
    if STAGING.fullmatch(collection):
        return False
    if collection.startswith("system."):
        return collection in _ADMIN if database == "admin" else collection == "system.js"
    return True


def data_member(database: str, collection: str) -> str:
    """Return the name of the member that holds the documents of a collection."""
    return f"{database}/{_file_name(collection)}.bson"


def metadata_member(database: str, collection: str) -> str:
    """Return the name of the member that holds the definition of a collection."""
    return f"{database}/{_file_name(collection)}.metadata.json"


def _file_name(collection: str) -> str:
    escaped = quote(collection, safe=_SAFE)
    if len(escaped) <= _LONGEST_NAME:
        return escaped
    digest = hashlib.sha1(collection.encode()).digest()  # noqa: S324 - mongodump's choice of a name
    return f"{escaped[:_KEPT]}%24{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
