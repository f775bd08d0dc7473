"""Marks on fields of models."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NotSupported:
    """Marks a field that is accepted but has no effect yet: `Annotated[X | None, NotSupported()]`.

    Whoever compiles an object says so in its conditions, by the name of the field.
    """

    hint: str = ""
    """What to use instead, if there is something."""
