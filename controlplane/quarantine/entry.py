"""What is known of an object in quarantine, and how long searches for such may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_LONGEST: Final = 1000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a search may take; what is not found out by then stays out of force for `retry_s`."""

    rounds: int = 400
    seconds: float = 30.0
    round_s: float = 6.0
    """How long an Envoy may take to answer: it may have to wait for clusters to warm."""
    straggler_s: float = 0.25
    """How long others are waited for when one has accepted a trial."""
    retry_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Entry:
    """A version of an object that is not to be in force, and why."""

    version: str
    message: str
    until: float | None = None  # when to try it again: it was not found out whether it is at fault


def tidy(message: str) -> str:
    """What Envoy says, fit for a sentence."""
    words = " ".join(message.split()).rstrip(".")
    return words if len(words) <= _LONGEST else words[:_LONGEST] + "…"
