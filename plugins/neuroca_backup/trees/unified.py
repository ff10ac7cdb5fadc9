"""Differences of text files for a person to read, without what looks like a secret.

A secret is replaced by a mark that is the same for the same value within one run, so that a change
is seen and the value is not: a keyed digest, whose key is never written anywhere.
"""

from __future__ import annotations

import difflib
import fnmatch
import hmac
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from neuroca_backup.trees.comparing import Change
from neuroca_backup.trees.entries import Kind, shown

_LARGEST = 1024 * 1024  # bytes; what is larger is no text that a person compares
_KEY_BYTES = 32

# Files that are secrets as a whole.
_SECRET_FILES = (
    *("*.key", "*.pem", "*.crt", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "*.gpg"),
    *("id_rsa*", "id_ed25519*", "id_ecdsa*", "*pgpass*", "*netrc*", "*htpasswd*", "*shadow*"),
    *("*credentials*", "*secret*", "*token*", "*.keytab", "*kubeconfig*"),
)
_SENSITIVE = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|key|credential|cred|private|auth|dsn|conn"
    r"|connection|salt|pepper|fernet|cookie|session|signature|signing|certificate|cert|license"
    r"|webhook|sas|bearer|login|seed|url|uri|jwt|otp|pin"
)
# A name that holds such a word, in an assignment of shell, YAML, INI, TOML, JSON or XML.
_NAMED = re.compile(
    rf"""(?ix)
    (?P<name> ["']? [\w.\-]* (?:{_SENSITIVE}) [\w.\-]* ["']? \s* (?: [:=] | => ) \s* | <[\w.\-:]*
    (?:{_SENSITIVE})[\w.\-:]*> )
    (?P<value> "(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | [^\n]+ )
    """
)
_USER_INFO = re.compile(r"(?P<name>[a-z][a-z0-9+.\-]*://)(?P<value>[^\s/@]+)(?=@)", re.IGNORECASE)
_LONG = re.compile(r"(?P<name>)(?P<value>[A-Za-z0-9+/_\-.]{20,}={0,2})")
# Such a name with nothing behind it: the value is on the lines below, indented deeper.
_BLOCK = re.compile(
    rf"""(?i)^(\s*)(?:-\s+)?[\w.\-"']*(?:{_SENSITIVE})[\w.\-"']*\s*[:=]\s*[|>&!\\]*[-+\d]*\s*$"""
)
_BEGIN, _END = re.compile(r"-----BEGIN [^-]+-----"), re.compile(r"-----END [^-]+-----")


class Masking:
    """Replaces what looks like a secret; one of these serves a whole run."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(_KEY_BYTES)

    def lines(self, text: str) -> list[str]:
        """Return the lines of `text` with their secrets masked."""
        found = []
        armoured, block = False, -1  # within -----BEGIN and -----END; indent of a secret's name
        for line in text.splitlines():
            indent = len(line) - len(line.lstrip())
            if block >= 0 and line.strip() and indent <= block:
                block = -1
            if armoured or (block >= 0 and line.strip()):
                armoured = armoured and not _END.search(line)
                found.append(line[:indent] + self._mark(line.strip()))
                continue
            armoured = bool(_BEGIN.search(line)) and not _END.search(line)
            opening = _BLOCK.match(line)
            if opening:
                block = len(opening[1])
            found.append(line if armoured else self._line(line))
        return found

    def _line(self, line: str) -> str:
        for pattern in (_NAMED, _USER_INFO, _LONG):
            line = pattern.sub(lambda match: match["name"] + self._mark(match["value"]), line)
        return line

    def _mark(self, value: str) -> str:
        bare = value.strip().strip("\"'")
        if not bare or bare.startswith("***") or bare in {"{", "[", "|", ">", "{}", "[]"}:
            return value
        return f"***{hmac.digest(self._key, bare.encode('utf-8', 'replace'), 'sha256').hex()[:6]}"


def difference(change: Change, masking: Masking) -> Iterator[str]:
    """Yield a unified difference of one changed file, what is there first; "" ends no line.

    A file of the section `security`, one whose name says that it is a secret, and one that is no
    text or larger than 1 MiB, is told of in one line.
    """
    entry = change.entry
    if entry is None or entry.kind is not Kind.FILE or "content" not in change.aspects:
        return
    name = shown(str(change.place))
    base = entry.path.rpartition("/")[2].lower()
    if entry.section == "security" or any(
        fnmatch.fnmatch(base, pattern) for pattern in _SECRET_FILES
    ):
        yield f"    {name} differs; what it holds is not shown: it is a secret"
        return
    new = None if change.content is None else _text(change.content.read(_LARGEST + 1))
    old = _now(change.place)
    if new is None or old is None:
        yield f"    {name} differs; it is no text, or too large to be shown"
        return
    for line in difflib.unified_diff(
        masking.lines(old),
        masking.lines(new),
        f"{name} (now)",
        f"{name} (backup)",
        lineterm="",
    ):
        yield "    " + shown(line)


def _now(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return _text(file.read(_LARGEST + 1))
    except OSError:
        return None


def _text(data: bytes) -> str | None:
    if len(data) > _LARGEST or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
