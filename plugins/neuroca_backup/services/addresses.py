"""Which backup in which store an address names, such as one copied from a console or a log."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from urllib.parse import unquote

from neuroca_backup.errors import ConfigurationError
from neuroca_backup.model.identity import BackupRef
from neuroca_backup.stores import Store

_FILE = "file://"
_FORMS = (
    "Write s3://<bucket>/<path>/<component>/<source>/<backup id>, file:///<directory>/... or the "
    "absolute path; `neuroca-backup list` shows what there is."
)


def resolve(stores: Mapping[str, Store], uri: str) -> tuple[str, BackupRef]:
    """Return the name of the store that `uri` lies in, and the backup that it belongs to.

    `uri` is the address of a backup's folder or of anything in it: `s3://...`, `file:///...`, or an
    absolute path. No store is asked whether there is such a backup.

    Raises:
        ConfigurationError: It is no such address, is in none of `stores`, or belongs to no backup.
    """
    if "@" in uri.partition("://")[2].partition("/")[0]:
        # What stands before an @ is a password more often than not: it is not repeated.
        raise ConfigurationError(
            "The address of the backup names a user",
            remedy=f"Leave it out: the store's own connection is used. {_FORMS}",
        )
    wanted = _location(uri)
    if wanted is None:
        raise ConfigurationError(
            f"{uri!r} is not the address of a backup", remedy=_FORMS, value=uri
        )
    # Of a store within another one the inner is meant.
    for name in sorted(stores, key=lambda one: len(stores[one].location), reverse=True):
        key = _within(stores[name].location, wanted)
        if key is None:
            continue
        ref = BackupRef.of_key(key)
        if ref is None:
            raise ConfigurationError(
                f"{uri!r} is in store {name}, but belongs to no backup", remedy=_FORMS, value=uri
            )
        return name, ref
    places = ", ".join(f"{name} ({store.location})" for name, store in stores.items())
    raise ConfigurationError(
        f"{uri!r} is in no store of backup.yaml",
        remedy=f"Its stores are: {places}. Name a backup in one of them, or use the backup.yaml of "
        "the installation that wrote it.",
        value=uri,
    )


def _location(uri: str) -> str | None:
    """Return `uri` the way stores write their locations; None where it is of another kind."""
    if uri.startswith("s3://"):
        return uri
    path = uri.removeprefix(_FILE).removeprefix("localhost") if uri.startswith(_FILE) else uri
    # `..` could leave a store while its address seems to be within.
    return f"{_FILE}{os.path.normpath(path)}" if path.startswith("/") else None


def _within(location: str, wanted: str) -> str | None:
    """Return the key of `wanted` in the store at `location`, or None where it is not in it."""
    known, asked = {location}, {wanted}
    if wanted.startswith(_FILE) and location.startswith(_FILE):
        # A path may be told as it is or escaped, and through a symbolic link.
        asked |= {unquote(wanted)}
        known |= {_FILE + os.path.realpath(location.removeprefix(_FILE))}
        asked |= {_FILE + os.path.realpath(one.removeprefix(_FILE)) for one in asked}
    for outer in known:
        for inner in asked:
            if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
                return inner[len(outer.rstrip("/")) :].strip("/")
    return None
