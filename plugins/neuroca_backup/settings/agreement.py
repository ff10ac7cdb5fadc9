"""The section `agreement` of `backup.yaml`: which tiers refer to one another, by which fields."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from neuroca_backup.settings.strict import Strict
from neuroca_backup.settings.values import SourceName, refused

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ,.'-]{0,99}")


class ReferenceSettings(Strict):
    """Where values are found: in `field` of everything at `place` of the source `source`.

    `place` is a collection, or in Redis a pattern of keys. `field` is a name, or a path of names
    with dots that may lead through JSON texts; of a list every entry counts.
    """

    source: SourceName
    place: str = Field(min_length=1)
    field: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.field} of {self.source} {self.place}"


class AgreementSettings(Strict):
    """One agreement, called `name`: every value of `every` is also found among those of `among`.

    `missing` is how many percent of them may lack without a failure: sources are not backed up at
    exactly the same moment.
    """

    name: str
    every: ReferenceSettings
    among: ReferenceSettings
    missing: float = Field(default=1.0, ge=0, le=100)

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if _NAME.fullmatch(name) is None:
            raise refused(
                "is no plain name", "Write letters, digits, spaces and . , ' - and begin with one."
            )
        return name
