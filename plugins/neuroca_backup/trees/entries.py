"""What a backup knows of one path: its kind, metadata and digest, as one line of the index."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from neuroca_backup.errors import DamagedError

# Above this an object key or a file's name may be refused by a store, so a digest stands for it.
_LONGEST_NAME = 700  # bytes of the whole name
_LONGEST_PART = 200  # bytes of one part of it
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MODE = 0o7777


class Kind(StrEnum):
    """What a path is. A hard link is a further name of a file that came before it."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a tree.

    `mode` are the permission bits, `user` and `group` the owners' names ("" where the system had
    none). `size` in bytes and `sha256` (hex) are of files. `target` is the text of a symbolic
    link, or the path of the file that a hard link is another name of. `xattrs` are extended
    attributes by name, their values in base64. `sparse` files have holes. `member` is the member
    that holds the content, "" for the tar. `section` is the word under which the path was listed.
    `device`, `inode` and `ctime_ns` tell later whether a file was touched; no restore uses them.
    """

    path: str
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    user: str = ""
    group: str = ""
    size: int = 0
    sha256: str = ""
    target: str = ""
    xattrs: Mapping[str, str] = field(default_factory=dict)
    sparse: bool = False
    member: str = ""
    section: str = ""
    device: int = 0
    inode: int = 0
    ctime_ns: int = 0

    def attributes(self) -> dict[str, bytes]:
        """Return the extended attributes with their values as bytes."""
        return {name: base64.b64decode(value) for name, value in self.xattrs.items()}

    def fingerprint(self) -> bytes:
        """Return the digest of all that matters of it: contents and metadata, but no times."""
        found = _body(self)
        for word in ("mtime_ns", "ctime_ns", "device", "inode", "member", "sparse"):
            found.pop(word, None)
        return hashlib.sha256(_line(found)).digest()

    def encode(self) -> bytes:
        """Return it as a line of JSON, in ASCII and with its newline."""
        return _line(_body(self)) + b"\n"

    @classmethod
    def decode(cls, line: bytes, *, name: str) -> Entry:
        """Return the entry in `line` of the member `name`.

        Raises:
            DamagedError: It is no entry, or its path could lead out of the tree.
        """
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            raise damaged(name, "a line is not JSON") from None
        if not isinstance(body, dict):
            raise damaged(name, "a line is not an object")
        for word, value in body.items():
            if word not in _VALID or not _VALID[word](value):
                raise damaged(name, f"an entry has an impossible {shown(word)}")
        missing = [word for word in _REQUIRED if word not in body]
        if missing:
            raise damaged(name, f"an entry has no {missing[0]}")
        entry = cls(**{**body, "kind": Kind(body["kind"])})
        problem = entry.contradiction()
        if problem:
            raise damaged(name, f"{shown(entry.path)} {problem}")
        return entry

    def contradiction(self) -> str:
        """Return what of it cannot be true together, "" where all can."""
        file = self.kind is Kind.FILE
        if file != bool(self.sha256):
            return "is a file without a digest, or has one and is none"
        if not file and (self.size or self.member or self.sparse):
            return "has a content and is no file"
        if (self.kind in {Kind.SYMLINK, Kind.HARDLINK}) != bool(self.target):
            return "is a link without a target, or has one and is none"
        if self.kind is Kind.HARDLINK and not is_path(self.target):
            return "links to a path that leads out of the tree"
        return ""


def order(path: str) -> tuple[str, ...]:
    """Return the key by which the entries of an index are sorted: a directory, then its names."""
    return tuple(path.split("/"))


def within(path: str, folder: str) -> bool:
    """Return whether `path` is `folder` or below it; everything is below ""."""
    return not folder or path == folder or path.startswith(f"{folder}/")


def is_path(path: Any) -> bool:
    """Return whether `path` is relative, normal and cannot lead out of its base."""
    if not isinstance(path, str) or "\0" in path:
        return False
    return all(part not in {"", ".", ".."} for part in path.split("/"))


def member_of(path: str, attempt: int = 1) -> str:
    """Return the name of the member that holds the file at `path`.

    Other characters than letters, digits and `_.-~/` are percent-encoded. `attempt` from 2 on
    makes another name, for a file that changed while it was read.
    """
    name = quote(path.encode("utf-8", "surrogateescape"), safe="/")
    if len(name) > _LONGEST_NAME or any(len(part) > _LONGEST_PART for part in name.split("/")):
        name = f"%~{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()}"
    # Percent-encoding never gives a "%~", so no other file can have such a name.
    return f"files/{name}" + (f"%~{attempt}" if attempt > 1 else "")


def shown(text: str) -> str:
    """Return `text` as it may be printed: in UTF-8, with control characters escaped."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in plain)


def damaged(name: str, problem: str) -> DamagedError:
    """Return the error of the member `name`."""
    return DamagedError(
        f"{name} is damaged: {problem}",
        remedy="Restore from another store, or an older backup; then take a new one.",
        key=name,
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_attributes(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    try:
        return all(_is_text(name) and _is_text(one) for name, one in value.items()) and all(
            base64.b64encode(base64.b64decode(one, validate=True)).decode() == one
            for one in value.values()
        )
    except (binascii.Error, ValueError):
        return False


_VALID: Mapping[str, Callable[[Any], bool]] = {
    "path": is_path,
    "kind": lambda value: value in set(Kind),
    "mode": lambda value: _is_count(value) and value <= _MODE,
    "uid": _is_count,
    "gid": _is_count,
    "mtime_ns": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "user": _is_text,
    "group": _is_text,
    "size": _is_count,
    "sha256": lambda value: isinstance(value, str) and bool(_SHA256.fullmatch(value)),
    "target": _is_text,
    "xattrs": _are_attributes,
    "sparse": lambda value: value is True,
    "member": lambda value: is_path(value) and value.startswith("files/"),
    "section": _is_text,
    "device": _is_count,
    "inode": _is_count,
    "ctime_ns": lambda value: isinstance(value, int) and not isinstance(value, bool),
}
_REQUIRED = ("path", "kind", "mode", "uid", "gid", "mtime_ns")
_DEFAULTS: Mapping[str, Any] = {
    one.name: {} if one.name == "xattrs" else one.default
    for one in fields(Entry)
    if one.name not in _REQUIRED
}


def _body(entry: Entry) -> dict[str, Any]:
    """Return the fields of `entry` that say something."""
    found = {one.name: getattr(entry, one.name) for one in fields(entry)}
    return {
        word: dict(value) if word == "xattrs" else value
        for word, value in found.items()
        if word in _REQUIRED or value != _DEFAULTS[word]
    }


def _line(body: Mapping[str, Any]) -> bytes:
    # In ASCII a surrogate escape is written as such, and no name can hold a line's end.
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
