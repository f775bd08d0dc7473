"""How patient the source is, and how much it asks for at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """Numbers that suit an API server; tests have others."""

    page: int = 500
    """Objects that a list asks for at once."""
    watch_s: int = 300
    """How long a watch lasts before it is asked for anew, about."""
    silence_s: float | None = None
    """How long a watch may say nothing; as long as it lasts, and a little more, where this is not told."""
    first_wait_s: float = 0.1
    """Before something that failed is tried again; doubled each time."""
    longest_wait_s: float = 10.0
    forbidden_wait_s: float = 30.0
    """At most, before something that is not permitted is tried again."""
    look_again_s: float = 60.0
    """How often it is asked which kinds there are, where CustomResourceDefinitions cannot be watched."""
    patience_s: float = 2.0
    """How long an object waits for a Secret that it newly refers to."""
    whole_patience_s: float = 5.0
    """The same for the first time, and for kinds that are defined but not served yet."""
