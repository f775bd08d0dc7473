"""How patient the source is, and how much it asks for at once."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.kube.listwatch import Pace


@dataclass(frozen=True, slots=True)
class Tuning(Pace):
    """Numbers that suit an API server; tests have others."""

    look_again_s: float = 60.0
    """How often it is asked which kinds there are, where CustomResourceDefinitions cannot be watched."""
    patience_s: float = 2.0
    """How long an object waits for a Secret that it newly refers to."""
    whole_patience_s: float = 5.0
    """The same for the first time, and for kinds that are defined but not served yet."""
