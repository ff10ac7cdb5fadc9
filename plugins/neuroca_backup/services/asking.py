"""Asking a server whether what it holds works: at the backup, and of what was restored.

What the answers took at the backup is kept in the manifest, so that a restored copy can be held to
the source's own times. A question that was not asked proves nothing, and says so.
"""

from __future__ import annotations

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

FACT = "answers"  # of a dump: seconds by question
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
    problems = list(_problems(answers))
    for problem in problems:
        log.warning("The source itself has a problem: %s", problem)
    asked = {one.question: one.seconds for one in answers if not one.unasked}
    return _noted(dump, asked, [f"The source: {problem}" for problem in problems[:_TOLD]])


def judge(answers: Sequence[Answer], before: Mapping[str, float], *, speed: bool) -> Outcome:
    """Hold the answers of a restored copy to none having a problem.

    `before` is what the source took; with `speed` a copy that takes ten times as long, and a
    second longer, is a problem too, otherwise a note: throwaway servers are smaller.
    """
    problems = list(_problems(answers))
    notes = [f"Not asked: {one.question}: {one.unasked}" for one in answers if one.unasked]
    slow = [
        f"{one.question}: {one.seconds:.1f} s, the source took {before[one.question]:.1f} s"
        for one in answers
        if one.question in before
        and one.seconds > max(SLOWER * before[one.question], before[one.question] + _SECONDS)
    ]
    (problems if speed else notes).extend(slow)
    asked = [one for one in answers if not one.unasked]
    if asked:
        known = [one for one in asked if one.question in before]
        took = sum(one.seconds for one in known)
        source = sum(before[one.question] for one in known)
        words = f"{len(asked)} questions answered in {sum(one.seconds for one in asked):.2f} s"
        if known:
            words += f"; those known from the source took {took:.2f} s, there {source:.2f} s"
        notes.insert(0, words)
    return Outcome(tuple(notes), tuple(problems))


def _problems(answers: Sequence[Answer]) -> Iterator[str]:
    for one in answers:
        for problem in one.problems:
            yield f"{one.question}: {problem}"


def _noted(dump: Dump, asked: Mapping[str, float], notes: Sequence[str]) -> Dump:
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
