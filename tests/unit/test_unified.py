"""Differences for people: what looks like a secret is never in them, and a change of it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroca_backup.trees.comparing import Change
from neuroca_backup.trees.entries import Entry, Kind
from neuroca_backup.trees.unified import Masking, difference

SECRET = "hunter2-Pa55"


@pytest.mark.parametrize(
    "text",
    [
        f"DB_PASSWORD={SECRET}",
        f"export API_TOKEN='{SECRET}'",
        f"  smtp_passwd: {SECRET}",
        f'{{"user": "nca", "client_secret": "{SECRET}", "port": 1}}',
        f"url = postgres://nca:{SECRET}@db/nca",
        f"broker redis://:{SECRET}@cache:6379/0",
        f"<password>{SECRET}</password>",
        f"password: |\n  {SECRET}\n  more {SECRET}\nhost: db",
        f"keys:\n  - {SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"anything {SECRET}{SECRET}{SECRET}",
        f"fernet_key => {SECRET}",
    ],
)
def test_a_secret_is_masked_wherever_it_stands(text: str) -> None:
    assert SECRET not in "\n".join(Masking().lines(text))


def test_the_same_value_has_the_same_mark_in_one_run_and_another_in_the_next() -> None:
    masking = Masking()
    first, second, third = masking.lines(f"a_key={SECRET}\nb_key={SECRET}\nc_key=x")
    assert first.partition("=")[2] == second.partition("=")[2] != third.partition("=")[2]
    assert Masking().lines(f"a_key={SECRET}") != [first]


def test_what_is_no_secret_stays_readable() -> None:
    text = "MODE=production\nworkers: 4\nhost: db.internal\n# a comment\n[section]\n\nlog: INFO"
    assert Masking().lines(text) == text.splitlines()


@given(st.text())
def test_masking_takes_any_text_and_keeps_its_lines(text: str) -> None:
    assert len(Masking().lines(text)) == len(text.splitlines())


def change(path: Path, new: bytes, *, section: str = "environment") -> Change:
    entry = Entry(
        path=str(path).lstrip("/"),
        kind=Kind.FILE,
        mode=0o600,
        uid=0,
        gid=0,
        mtime_ns=0,
        size=len(new),
        sha256="0" * 64,
        section=section,
    )
    return Change(entry.path, path, entry, {"content": ("a", "b")}, io.BytesIO(new))


@pytest.mark.parametrize(
    ("name", "section", "new", "says"),
    [
        ("server.key", "environment", b"x", "is a secret"),
        ("app.env", "security", b"x", "is a secret"),
        ("app.env", "environment", b"a\0b", "no text"),
        ("app.env", "environment", b"\xff", "no text"),
    ],
)
def test_what_is_a_secret_as_a_whole_or_no_text_is_told_of_in_one_line(
    tmp_path: Path, name: str, section: str, new: bytes, says: str
) -> None:
    (tmp_path / name).write_text(f"old {SECRET}\n")
    (line,) = difference(change(tmp_path / name, new, section=section), Masking())
    assert says in line
    assert SECRET not in line


def test_a_control_character_cannot_reach_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "app.env").write_text("mode=old\n")
    lines = list(difference(change(tmp_path / "app.env", b"mode=\x1b[2Jnew\n"), Masking()))
    assert any("x1b" in line for line in lines)
    assert "\x1b" not in "".join(lines)
