"""What may be answered, and when: old or new while a change is under way, and never the old after the new."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

Door = Literal["http", "https"]
"""By which listener a request comes in."""

BROKEN: Final = "broken"
"""The answer of a connection that was cut, or silent for too long."""
REFUSED: Final = "refused"
"""The answer where nobody listens."""
_REMEMBERED: Final = 16


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, as far as it does not depend on the door that it comes in by.

    With a port or a server name of its own it always goes over a new connection.
    """

    path: str
    host: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType[str, str]({}))
    port: int | None = None
    sni: str | None = None

    @property
    def apart(self) -> bool:
        """Whether no connection is shared with other requests."""
        return self.port is not None or self.sni is not None


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer in short (`200 b1`, `404`, `broken`), over which connection it came, and between which moments."""

    answer: str
    sent_at: float
    came_at: float
    door: Door = "http"
    envoy: str = ""
    fresh: bool = False
    protocol: str = "HTTP/1.1"
    detail: str = ""

    def __str__(self) -> str:
        kind = "a new connection" if self.fresh else "an open connection"
        over = f"{self.protocol} over {kind} to {self.door} of {self.envoy or 'some Envoy'}"
        return f"{self.answer} in {(self.came_at - self.sent_at) * 1000:.1f} ms, {over} {self.detail}".rstrip()


@dataclass(slots=True, eq=False)
class Target:
    """Something that is asked for again and again, with the answers that it may give.

    While it changes, the answers of before and of after are allowed; from one Envoy none of before once there has been
    one of after. `changing_s` of grace is left where an Envoy has several workers, which do not change at one moment.
    """

    ask: Ask
    now: frozenset[str]
    then: frozenset[str] | None = None
    doors: tuple[Door, ...] = ("http", "https")
    between: frozenset[str] = frozenset()
    """What else may be answered, but only while it changes."""
    changing_s: float = 0.0
    _after: dict[tuple[str, Door], float] = field(default_factory=dict[tuple[str, Door], float])
    _before: deque[tuple[float, frozenset[str]]] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))

    @property
    def name(self) -> str:
        return f"{self.ask.host}{self.ask.path}"

    @property
    def proof(self) -> frozenset[str]:
        """The answers that only come once the change is in effect; where there are none, all that may come then."""
        if self.then is None:
            return self.now
        return self.then - self.now or self.then

    def moves_to(self, answers: Iterable[str]) -> None:
        """Says that a change is about to be made, after which these are the answers."""
        if self.then is not None:
            self.now |= self.then
        self.then = frozenset(answers)
        self._after.clear()

    def has_moved(self, *, grace_s: float = 0.0) -> None:
        """Says that the change is in effect wherever the target is asked for, or will be after some seconds."""
        if self.then is not None:
            self._before.append((time.monotonic() + grace_s, self.now | self.between))
            self.now, self.then = self.then, None
            self._after.clear()

    def judge(self, heard: Heard) -> str | None:
        """Takes an answer into account; returns what is wrong with it, None where it is allowed."""
        if heard.answer not in self._allowed(heard):
            return f"allowed was {self._described()}"
        if self.then is None or not heard.envoy:
            return None
        place = heard.envoy, heard.door
        if heard.answer in self.between:
            return None
        if heard.answer not in self.now:
            self._after.setdefault(place, heard.came_at)
        elif heard.answer not in self.then:
            since = self._after.get(place)
            if since is not None and heard.sent_at > since + self.changing_s:
                return f"{heard.envoy} had answered as after the change {heard.sent_at - since:.3f} s before this"
        return None

    def _allowed(self, heard: Heard) -> Collection[str]:
        allowed = set(self.now if self.then is None else self.now | self.then | self.between)
        for until, answers in self._before:
            if until >= heard.sent_at:
                allowed |= answers
        return allowed

    def _described(self) -> str:
        now = " or ".join(sorted(self.now))
        return now if self.then is None else f"{now}, or as of the change {' or '.join(sorted(self.then))}"
