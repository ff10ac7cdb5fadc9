"""Asking recovered servers what an attacker would try first; what cannot be asked is said so.

Four questions to each: is the way encrypted, does somebody get in without a password or with a
well-known one, is the address open to the world, may others write the files.
"""

from __future__ import annotations

import ipaddress
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from neuroca_backup import engines, mongodb_session
from neuroca_backup.errors import AccessDeniedError, BackupError
from neuroca_backup.model.endpoint import FILES, Endpoint

_LOOPBACK = ("localhost", "127.0.0.1", "::1", "")
# What vendors ship, and what people type first.
_WELL_KNOWN = (
    "",
    "password",
    "postgres",
    "admin",
    "root",
    "redis",
    "Milvus",
    "changeme",
    "neuroca",
)
# By kind of server: who gets in where nobody has changed anything. The first tries no password.
_STRANGERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "postgres": (("postgres", ""), ("postgres", "postgres")),
    "redis": (("", ""),),
    "milvus": (("", ""), ("root", "Milvus")),
    "mongo": (("", ""),),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One question's answer: `well` is None where it could not be asked."""

    question: str
    well: bool | None
    detail: str

    def __str__(self) -> str:
        word = {True: "yes", False: "NO", None: "not asked"}[self.well]
        return f"{self.question}: {word}: {self.detail}"


def look(endpoint: Endpoint, engine: str) -> Iterator[Finding]:
    """Yield the answers of one target; nothing is changed there."""
    if endpoint.kind == FILES:
        yield _files(endpoint.directory)
        return
    yield _encrypted(endpoint)
    yield _own_password(endpoint)
    yield from _strangers(endpoint, engine)
    yield _hidden(endpoint)


def _encrypted(endpoint: Endpoint) -> Finding:
    question = "Is the way to it encrypted"
    extra = endpoint.extra
    asked: dict[str, Callable[[], bool]] = {
        "postgres": lambda: extra.get("sslmode") in {"require", "verify-ca", "verify-full"},
        "redis": lambda: bool(extra.get("ssl")),
        "mongo": lambda: "true" in {str(extra.get("tls")).lower(), str(extra.get("ssl")).lower()},
        "milvus": lambda: bool(extra.get("secure")),
    }
    wanted = asked.get(endpoint.kind)
    if wanted is None:
        return Finding(question, None, f"nothing is known of connections of {endpoint.kind}")
    if wanted():
        return Finding(question, well=True, detail="the connection asks for TLS")
    if endpoint.host in _LOOPBACK:
        return Finding(question, None, "the connection does not leave this machine")
    return Finding(question, well=False, detail="the connection does not ask for TLS")


def _own_password(endpoint: Endpoint) -> Finding:
    question = "Is the password of the connection its own"
    if endpoint.password in _WELL_KNOWN and not endpoint.extra.get("token"):
        words = "there is none" if not endpoint.password else "it is a well-known one"
        return Finding(question, well=False, detail=words)
    return Finding(question, well=True, detail="it is none of the well-known ones")


def _strangers(endpoint: Endpoint, engine: str) -> Iterator[Finding]:
    tried = _STRANGERS.get(endpoint.kind)
    if tried is None:
        words = f"nobody knows how to try it with {endpoint.kind}"
        yield Finding("Are strangers kept out", None, words)
        return
    for user, password in tried:
        who = f"{user or 'nobody'}, {'a well-known' if password else 'no'} password"
        question = f"Are strangers kept out ({who})"
        extra = {name: word for name, word in endpoint.extra.items() if name != "token"}
        stranger = replace(endpoint, user=user, password=password, extra=extra)
        try:
            _enter(stranger, engine)
        except AccessDeniedError:
            yield Finding(question, well=True, detail="refused")
        except BackupError as error:
            yield Finding(question, None, error.problem)
        else:
            yield Finding(question, well=False, detail=f"{endpoint.label} lets them in")


def _enter(stranger: Endpoint, engine: str) -> None:
    if stranger.kind == "mongo":
        # It tells everybody its version; what it holds it tells only whom it knows.
        with mongodb_session.connect(stranger) as client:
            client.list_database_names()
        return
    engines.named(engine).probe(stranger)


def _hidden(endpoint: Endpoint) -> Finding:
    question = "Is its address a private one"
    try:
        found = {row[4][0] for row in socket.getaddrinfo(endpoint.host or "localhost", None)}
    except OSError:
        return Finding(question, None, f"{endpoint.host} has no address here")
    public = sorted(str(one) for one in found if ipaddress.ip_address(one).is_global)
    if public:
        told = f"{', '.join(public)} can be reached from anywhere, unless a firewall forbids it"
        return Finding(question, well=False, detail=told)
    return Finding(question, well=True, detail="firewalls and listeners were not asked")


def _files(directory: Path | None) -> Finding:
    question = "Can nobody else write the files"
    if directory is None:
        return Finding(question, None, "they are where they came from, with the modes of before")
    try:
        mode = directory.stat().st_mode
    except OSError as error:
        return Finding(question, None, f"{directory}: {error.strerror}")
    told = f"{directory} has the mode {mode & 0o777:04o}"
    if mode & (stat.S_IWOTH | stat.S_IWGRP):
        return Finding(question, well=False, detail=told)
    return Finding(question, well=True, detail=f"{told}; what is in it has the modes of before")
