"""What was done lately: so that a request that fails can be told with what happened at that moment."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_KEPT: Final = 4_000


@dataclass(slots=True)
class Ring:
    """The last events, each with its moment (monotonic seconds)."""

    began_at: float = field(default_factory=time.monotonic)
    _events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def note(self, event: str) -> None:
        """Takes an event in."""
        self._events.append((time.monotonic(), event))

    def around(self, moment: float, *, before_s: float = 1.0, after_s: float = 0.05, most: int = 14) -> list[str]:
        """Returns what was done shortly before a moment, as lines; at least the last three events before it."""
        near = [each for each in self._events if moment - before_s <= each[0] <= moment + after_s][-most:]
        if len(near) < 3:
            near = [each for each in self._events if each[0] <= moment + after_s][-3:]
        return [f"{at - moment:+.3f} s  {event}" for at, event in near]

    def since_start(self, moment: float) -> str:
        """Returns a moment as seconds since the beginning."""
        return f"+{moment - self.began_at:.3f} s"
