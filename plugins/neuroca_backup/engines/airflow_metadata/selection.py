"""What of the three tables is restored: everything, or single rows by their keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from neuroca_backup.engines.airflow_metadata.tables import TABLES, Table
from neuroca_backup.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen keys by the word of their table; None for everything."""

    keys: Mapping[str, frozenset[str]] | None

    @classmethod
    def parse(cls, only: Sequence[str]) -> Selection:
        """Return what `only` chooses: `connection=ID`, `variable=KEY`, `pool=NAME`.

        Raises:
            ConfigurationError: A word is none of them.
        """
        if not only:
            return cls(None)
        words = {table.word: set[str]() for table in TABLES}
        for part in only:
            word, _, key = part.partition("=")
            if word not in words or not key:
                raise ConfigurationError(
                    f"{part!r} names no part of an Airflow's metadata",
                    remedy="Write connection=ID, variable=KEY or pool=NAME.",
                    value=part,
                )
            words[word].add(key)
        return cls({word: frozenset(keys) for word, keys in words.items()})

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.keys is None

    def accepts(self, table: Table, key: str) -> bool:
        """Return whether that row of `table` is restored."""
        return self.keys is None or key in self.keys[table.word]
