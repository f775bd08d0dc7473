"""Envoys as the division sees them, simulated: token buckets, reports every five seconds, loads that change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ratelimit_service.quota.division import REPORT_S, Division

Loads = Callable[[float], float | None]
"""Requests a second at a time; None: it is not there."""

STEP_S = 0.05
_TICK = 5  # steps


@dataclass
class SimulatedEnvoy:
    """What Envoy 1.40 does: all pass before the first assignment, and each bucket takes over what the last one held."""

    next_report: float
    rate: float | None = None
    most: float = 0.0
    tokens: float = 0.0
    owed: float = 0.0
    allowed: int = 0
    denied: int = 0

    def told(self, share: float, most: int) -> None:
        """Takes an assignment."""
        self.tokens = float(most) if self.rate is None else min(self.tokens, most)
        self.rate, self.most = share, most

    def step(self, load: float) -> int:
        """Lets a step's requests in; returns how many pass."""
        if self.rate is not None:
            self.tokens = min(self.most, self.tokens + self.rate * STEP_S)
        self.owed += load * STEP_S
        passed = 0
        while self.owed >= 1:
            self.owed -= 1
            if self.rate is not None and self.tokens < 1:
                self.denied += 1
                continue
            self.tokens -= 1 if self.rate is not None else 0
            passed += 1
        self.allowed += passed
        return passed


@dataclass
class World:
    """A limit and its Envoys; `passed` notes for each step how many requests were let through.

    `unasked` notes how many of them before an Envoy was told anything.
    """

    limit: float
    loads: Sequence[Loads]
    burst: float = 0.0
    passed: list[int] = field(default_factory=list[int])
    unasked: list[int] = field(default_factory=list[int])
    envoys: dict[int, SimulatedEnvoy] = field(default_factory=dict[int, SimulatedEnvoy])

    def __post_init__(self) -> None:
        self.burst = self.burst or self.limit * 0.2
        self.division = Division(self.limit, burst=self.burst, refresh_s=20)
        self._reported = False

    def run(self, seconds: float) -> None:
        """Lets time pass; holds that the shares never add up to more than the limit."""
        began = len(self.passed)
        for step in range(began, began + round(seconds / STEP_S)):
            now = step * STEP_S
            self._reported = step % _TICK == 0
            self.passed.append(0)
            self.unasked.append(0)
            for who, load in enumerate(self.loads):
                self._one(who, load(now), now)
            while self._reported:
                self._reported = self._assign(now)
            assert self.division.held <= self.limit * (1 + 1e-9)

    def rate(self, begin_s: float, end_s: float) -> float:
        """Returns how many requests a second passed between two times."""
        return sum(self.passed[round(begin_s / STEP_S) : round(end_s / STEP_S)]) / (end_s - begin_s)

    def let_in(self, begin_s: float, end_s: float) -> float:
        """The same of those that passed before their Envoy was told anything."""
        return sum(self.unasked[round(begin_s / STEP_S) : round(end_s / STEP_S)]) / (end_s - begin_s)

    def _one(self, who: int, load: float | None, now: float) -> None:
        envoy = self.envoys.get(who)
        if load is None:
            if self.envoys.pop(who, None) is not None:
                self.division.leave(who, now)
            return
        if envoy is None:
            if not load:
                return
            envoy = self.envoys[who] = SimulatedEnvoy(now + 1 + who % 5)
            self.division.report(who, now, allowed=1, denied=0, elapsed_s=0)
            self._reported = True
        passed = envoy.step(load)
        self.passed[-1] += passed
        if envoy.rate is None:
            self.unasked[-1] += passed
        if now >= envoy.next_report:
            self.division.report(who, now, allowed=envoy.allowed, denied=envoy.denied, elapsed_s=REPORT_S)
            envoy.allowed = envoy.denied = 0
            envoy.next_report += REPORT_S

    def _assign(self, now: float) -> bool:
        again = False
        for who, share in self.division.assign(now).items():
            self.envoys[who].told(share, max(1, int(self.burst * share / self.limit)))
            again |= self.division.sent(who, share, now)
        return again
