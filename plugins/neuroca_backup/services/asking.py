"""Asking a server whether what it holds works: at the backup, and of what was restored.

What the answers took at the backup is kept in the manifest, so that a restored copy can be held to
the source's own times, and is not blamed for the source's own problems. Of those the manifest has
a digest alone, for anybody with the bucket can read it. A question that was not asked proves
nothing, and says so.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroca_backup.engines import Answer, Asking, Engine, Examining, Question
from neuroca_backup.errors import BackupError, ConfigurationError
from neuroca_backup.model.endpoint import Endpoint
from neuroca_backup.model.manifest import Dump

log = logging.getLogger(__name__)

FACT = "answers"  # of a dump: by question `seconds`, and the digest of its `problems`
# A copy whose caches are cold is slower, and a second more is nothing that anybody waits for.
SLOWER = 10.0
_SECONDS = 1.0
_TOLD = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an examination came to: `notes` for the report, `problems` that fail the restore."""

    notes: tuple[str, ...]
    problems: tuple[str, ...]


def read(engine: Engine, paths: Sequence[Path], *, source: str) -> tuple[Question, ...]:
    """Return the questions in `paths`: files, and folders of files of the engine's kind.

    Raises:
        ConfigurationError: One cannot be read, has another ending, or the engine takes none.
    """
    if not paths:
        return ()
    if not isinstance(engine, Asking):
        raise _wrong(source, paths[0], f"{engine.kind} takes no questions", "Remove it.")
    found = []
    for path in paths:
        files = sorted(path.glob(f"*{engine.question_suffix}")) if path.is_dir() else [path]
        if not files:
            raise _wrong(source, path, "it holds no question", "Add one, or remove it.")
        for file in files:
            if file.suffix != engine.question_suffix:
                remedy = f"Questions to {engine.kind} are files of {engine.question_suffix}."
                raise _wrong(source, file, f"it ends in {file.suffix!r}", remedy)
            try:
                found.append(Question(file.stem, file.read_text()))
            except (OSError, UnicodeDecodeError) as error:
                words = error.strerror if isinstance(error, OSError) else "it is no text"
                raise _wrong(source, file, str(words), "Mend it, or remove it.") from None
    return tuple(found)


def ask(
    engine: Engine,
    endpoint: Endpoint,
    facts: Mapping[str, Any],
    questions: Sequence[Question],
    *,
    only: Sequence[str] = (),
) -> list[Answer]:
    """Ask the engine's own questions, then `questions`; an engine without any gives none."""
    found: list[Answer] = []
    if isinstance(engine, Examining):
        found += engine.examine(endpoint, facts, only=only)
    if questions and isinstance(engine, Asking):
        found += engine.ask(endpoint, facts, questions, only=only)
    return found


def with_answers(
    dump: Dump, engine: Engine, endpoint: Endpoint, questions: Sequence[Question]
) -> Dump:
    """Return `dump` with what the source's answers took among its facts.

    A source with a problem is backed up all the same, now more than ever: it becomes a note.
    """
    try:
        answers = ask(engine, endpoint, dump.facts, questions)
    except BackupError as error:
        log.warning("The source was dumped but not examined: %s", error)
        return _noted(dump, {}, [f"The source was not examined: {error.problem}"])
    if not answers:
        return dump
    for problem in _problems(answers):
        log.warning("The source itself has a problem: %s", problem)
    asked = {
        one.question: {"seconds": one.seconds, "problems": _digest(one)}
        for one in answers
        if not one.unasked
    }
    bad = [one for one in answers if one.problems]
    notes = [f"The source has a problem: {one.question}; the log of the dump has it" for one in bad]
    return _noted(dump, asked, notes[:_TOLD])


def judge(
    answers: Sequence[Answer], before: Mapping[str, Mapping[str, Any]], *, speed: bool
) -> Outcome:
    """Hold the answers of a restored copy to none having a problem that the source had not.

    `before` is what the source said, as `FACT` of the dump has it. With `speed` a copy that takes
    ten times as long, and a second longer, is a problem too, otherwise a note: throwaway servers
    are smaller.
    """
    known = [one for one in answers if one.problems and _known(one, before)]
    problems = list(_problems([one for one in answers if one not in known]))
    notes = [f"As at the source: {problem}" for problem in _problems(known)]
    notes += [f"Not asked: {one.question}: {one.unasked}" for one in answers if one.unasked]
    asked = [one for one in answers if not one.unasked]
    took = {
        one.question: (one.seconds, float(before[one.question]["seconds"]))
        for one in asked
        if one.question in before
    }
    slow = [
        f"{question}: {here:.1f} s, the source took {there:.1f} s"
        for question, (here, there) in took.items()
        if here > max(SLOWER * there, there + _SECONDS)
    ]
    (problems if speed else notes).extend(slow)
    if asked:
        words = f"{len(asked)} questions answered in {sum(one.seconds for one in asked):.2f} s"
        if took:
            here, there = (sum(column) for column in zip(*took.values(), strict=True))
            words += f"; those known from the source took {here:.2f} s, there {there:.2f} s"
        notes.insert(0, words)
    return Outcome(tuple(notes), tuple(problems))


def _known(one: Answer, before: Mapping[str, Mapping[str, Any]]) -> bool:
    return before.get(one.question, {}).get("problems") == _digest(one)


def _digest(one: Answer) -> str:
    """Return what tells the problems of an answer from others, "" where there is none."""
    if not one.problems:
        return ""
    return hashlib.sha256("\n".join(one.problems).encode()).hexdigest()


def _problems(answers: Sequence[Answer]) -> Iterator[str]:
    for one in answers:
        for problem in one.problems:
            yield f"{one.question}: {problem}"


def _noted(dump: Dump, asked: Mapping[str, Any], notes: Sequence[str]) -> Dump:
    return dump.model_copy(
        update={"facts": {**dump.facts, FACT: dict(asked)}, "notes": (*dump.notes, *notes)}
    )


def _wrong(source: str, path: Path, problem: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(
        f"questions of the source {source}: {path}: {problem}",
        remedy=remedy,
        path=f"sources.{source}.questions",
        value=str(path),
    )
