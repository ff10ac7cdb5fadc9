"""What every section of `backup.yaml` is made of: no unknown word, no value in a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def disagreement(
    title: str, found: Sequence[tuple[tuple[str, ...], Any, PydanticCustomError]]
) -> ValidationError:
    """Return one error for several (place, value, error) found after the fields were read."""
    details = [InitErrorDetails(type=error, loc=loc, input=value) for loc, value, error in found]
    return ValidationError.from_exception_data(title, details)


class Strict(BaseModel):
    """A section whose every word is known."""

    # A value may be a secret in the wrong place, so pydantic's own messages do not show values.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
