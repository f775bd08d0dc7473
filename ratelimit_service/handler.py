"""The request path: plans a request, asks the store, answers the call."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from dragoman.grpc_worker import Call, StatusCode
from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.answers import Answers
from ratelimit_service.checks import Check, Plan, all_fixed
from ratelimit_service.giving import Giving
from ratelimit_service.looking import Looking
from ratelimit_service.memo import Memo
from ratelimit_service.planner import Planner, Refusal
from ratelimit_service.running import Running
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Asked, Store
from ratelimit_service.stores.local import decided_here, judged, known_over
from ratelimit_service.waiting_room import WaitingRoom
from ratelimit_service.wire import OVERALL_OK

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
MAX_PLANNED_BYTES = 2048
MAX_PLANNED_CHECKS = 16
"""Larger requests are planned each time, as are those with more limits: remembered, they would take too much memory."""


class RateLimiter:
    """The handler of ShouldRateLimit. `use` gives it a configuration; until then it answers UNAVAILABLE."""

    def __init__(
        self,
        store: Store,
        stats: StatsRegistry,
        *,
        clock: Callable[[], float],
        answers: Answers | None = None,
        leases: Store | None = None,
        looks_first: bool = False,
        memo_size: int = 16_384,
    ) -> None:
        self._store = store
        self._leases = leases or store
        self._looks_first = looks_first
        self._stats = stats
        self._clock = clock
        self._answers = answers or Answers()
        self.running = Running()
        self.waiting = WaitingRoom()
        self._planner: Planner | None = None
        self._memo_size = memo_size
        self._plans: Memo[bytes, Plan] = Memo(memo_size)

    @property
    def configured(self) -> bool:
        """Whether there is a configuration in force."""
        return self._planner is not None

    def use(self, planner: Planner, plans: Memo[bytes, Plan] | None = None) -> Memo[bytes, Plan]:
        """Puts a configuration in force, for requests from now on; `plans` are those that it would make as well.

        Returns what was planned before, for the caller to let go.
        """
        before = self._plans
        self._planner = planner
        self._plans = Memo(self._memo_size) if plans is None else plans
        return before

    def plans_of(self, domains: Container[str]) -> Memo[bytes, Plan]:
        """Returns the plans of requests that limits of these domains judge; may run in another thread."""
        return self._plans.kept(lambda _, plan: bool(plan.checks) and plan.checks[0].limit.rule.domain in domains)

    def planned(self, body: bytes) -> Plan | None:
        """Returns the plan of a request that was answered; None for one that is never remembered."""
        plan = self._plans.get(body)
        if plan is None and self._planner is not None and len(body) <= MAX_PLANNED_BYTES:
            try:
                plan = self._planner.plan(body)
            except Refusal:
                # By a configuration that came since.
                return None
        return None if plan is None or plan.once else plan

    def __call__(self, body: bytes, call: Call) -> None:
        """Answers one request."""
        plan = self._plans.young.get(body) or self._plan(body, call)
        if plan is None:
            return
        now = self._clock()
        check = plan.only
        if check is None:
            self._uncommon(plan, call, now)
            return
        verdict = check.limit.counting.known_over(check, now) if check.counter.over_until > now else None
        if verdict is not None:
            call.done(self._answers.one(plan, check, verdict))
            return
        self._store.take(plan.checks, now, _One(plan, check, call, now, self._answers))

    def too_large(self) -> bytes:
        """Returns the answer to a request that is larger than any that is looked at."""
        self._stats.malformed += 1
        return self._answers.too_large()

    def _uncommon(self, plan: Plan, call: Call, now: float) -> None:
        """Answers a request with no limit or several, with a lease, or that may have to wait or is counted itself."""
        if plan.reply:
            if plan.unknown is None:
                self._stats.no_limit += 1
            else:
                self._stats.count_unknown(*plan.unknown)
            call.done(plan.reply)
            return
        shape = plan.shape
        store = self._leases if shape.leased else self._store
        if shape.conditional:
            if shape.gives:
                self._give(plan, call, now, store)
                return
            if len(shape.positions) == 1:
                _Alone(plan, call, now, self._answers, self.waiting, self.running).start(store)
                return
            _Together(plan, call, now, self._answers, self.waiting, self.running).start(store)
            return
        if len(shape.positions) > 1:
            if self._looks_first and not shape.leased:
                Looking(plan, call, now, self._answers).start(store)
                return
            _Several(plan, call, now, self._answers).start(store)
            return
        (check,) = plan.checks
        verdict = check.limit.counting.known_over(check, now) if check.counter.over_until > now else None
        if verdict is not None:
            call.done(self._answers.one(plan, check, verdict))
            return
        store.take(plan.checks, now, _One(plan, check, call, now, self._answers))

    def _give(self, plan: Plan, call: Call, now: float, store: Store) -> None:
        """Answers a request that gives hits back: those first, and then as if the rest were all of it."""

        def go_on(known: list[Verdict | None]) -> None:
            _Together(plan, call, now, self._answers, self.waiting, self.running, known=known).start(store)

        Giving(plan.checks, call, now, go_on).start(store)

    def _plan(self, body: bytes, call: Call) -> Plan | None:
        plan = self._plans.get(body)
        if plan is not None:
            return plan
        if self._planner is None:
            call.fail(StatusCode.UNAVAILABLE, "no configuration is loaded")
            return None
        try:
            plan = self._planner.plan(body)
        except Refusal as refusal:
            # A domain that is not known has been counted.
            if refusal.code is not StatusCode.UNAVAILABLE:
                self._stats.malformed += 1
            call.fail(refusal.code, refusal.message)
            return None
        if len(body) <= MAX_PLANNED_BYTES and len(plan.checks) <= MAX_PLANNED_CHECKS and not plan.once:
            self._plans.offer(body, plan)
        return plan


class _One(Asked):
    """A request with one descriptor."""

    __slots__ = ("_answers", "_check", "_now", "_plan")

    def __init__(self, plan: Plan, check: Check, call: Call, now: float, answers: Answers) -> None:
        self._plan = plan
        self._check = check
        self._call = call
        self._now = now
        self._answers = answers

    def settle(self) -> None:
        check = self._check
        verdict = judged(check, self.replies[0], self._now)
        self._call.done(self._answers.one(self._plan, check, verdict))


class _Alone(Asked):
    """A request with one descriptor, whose limit counts the request itself or may have it wait."""

    __slots__ = ("_answers", "_check", "_now", "_plan", "_running", "_store", "_waiting")

    def __init__(
        self, plan: Plan, call: Call, now: float, answers: Answers, waiting: WaitingRoom, running: Running
    ) -> None:
        self._plan = plan
        self._call = call
        self._now = now
        self._answers = answers
        self._waiting = waiting
        patience_us = waiting.enter(call) if plan.shape.holds else -1
        self._running = running
        self._check = _with_caller(plan.checks[0], patience_us, running)

    def start(self, store: Store) -> None:
        """Asks, unless the answer is known."""
        self._store = store
        check, now = self._check, self._now
        verdict = check.limit.counting.known_over(check, now) if check.counter.over_until > now else None
        if verdict is None:
            store.take((check,), now, self)
        else:
            self._answer(check, verdict, 0.0)

    def settle(self) -> None:
        check, reply = self._check, self.replies[0]
        self._running.heard(check, reply, self._now, self._store)
        if reply is None:
            decided = decided_here(check, self._now)
            if decided is None:
                self._answer(check, None, 0.0)
                return
            check, reply = decided
        limit = check.limit
        counting = limit.counting
        verdict = counting.judge(check, reply, self._now)
        held = counting.holds and reply >= 0 and limit.binding
        self._answer(self._check, verdict, counting.hold_s(check, reply) if held else 0.0)

    def _answer(self, check: Check, verdict: Verdict | None, wait_s: float) -> None:
        body = self._answers.one(self._plan, check, verdict)
        if wait_s > 0 and body.startswith(OVERALL_OK):
            self._waiting.hold(self._call, wait_s, lambda: self._finish(body))
            return
        if self._plan.shape.holds:
            self._waiting.leave()
        self._finish(body)

    def _finish(self, body: bytes) -> None:
        if self._call.cancelled:
            self._running.end((self._check,), self._now, self._store)
        self._call.done(body)


class _Several(Asked):
    """A request with several descriptors."""

    __slots__ = ("_answers", "_known", "_now", "_plan")

    def __init__(self, plan: Plan, call: Call, now: float, answers: Answers) -> None:
        super().__init__()
        self._plan = plan
        self._call = call
        self._now = now
        self._answers = answers
        self._known = known_over(plan.checks, now)

    def start(self, store: Store) -> None:
        """Asks for what is not known."""
        asked = self._plan.checks
        if any(self._known):
            asked = [check for check, known in zip(asked, self._known, strict=True) if known is None]
        if asked:
            store.take(asked, self._now, self)
        else:
            self.settle()

    def settle(self) -> None:
        plan, now, replies = self._plan, self._now, iter(self.replies)
        verdicts = [
            known or judged(check, next(replies), now) for check, known in zip(plan.checks, self._known, strict=True)
        ]
        self._call.done(self._answers.several(plan, verdicts))


class _Together(Asked):
    """A request some of whose limits count only what they admit: what one counts depends on all of them."""

    __slots__ = (
        "_answers",
        "_asked",
        "_checks",
        "_now",
        "_plan",
        "_running",
        "_store",
        "_verdicts",
        "_waiting",
        "together",
    )

    def __init__(
        self,
        plan: Plan,
        call: Call,
        now: float,
        answers: Answers,
        waiting: WaitingRoom,
        running: Running,
        *,
        known: list[Verdict | None] | None = None,
    ) -> None:
        super().__init__()
        self._plan = plan
        self._call = call
        self._now = now
        self._answers = answers
        self._waiting = waiting
        self._running = running
        patience_us = waiting.enter(call) if plan.shape.holds else -1
        checks = [_with_caller(check, patience_us, running) for check in plan.checks]
        self._verdicts = known or [check.limit.counting.known_over(check, now) for check in checks]
        refused = any(
            verdict is not None and verdict[0] and check.limit.binding
            for check, verdict in zip(checks, self._verdicts, strict=True)
        )
        # What is refused already takes nothing from the other limits; a fixed window counts all the same.
        self._checks = [check._replace(take=False) for check in checks] if refused else checks
        self._asked: Sequence[int] = [
            index for index, verdict in enumerate(self._verdicts) if verdict is None and checks[index].hits >= 0
        ]
        several = refused or len(self._asked) > 1
        self.together = several and not all_fixed([checks[index] for index in self._asked])

    def start(self, store: Store) -> None:
        """Asks for what is not known."""
        self._store = store
        if self._asked:
            store.take([self._checks[index] for index in self._asked], self._now, self)
        else:
            self.settle()

    def settle(self) -> None:
        wait_s = 0.0
        for index, reply in zip(self._asked, self.replies, strict=True):
            check = self._checks[index]
            self._running.heard(check, reply, self._now, self._store)
            if reply is None:
                decided = decided_here(check, self._now)
                if decided is None:
                    continue
                check, reply = decided
            counting = check.limit.counting
            self._verdicts[index] = counting.judge(check, reply, self._now)
            if counting.holds and check.limit.binding and reply >= 0:
                wait_s = max(wait_s, counting.hold_s(check, reply))
        body = self._answers.several(self._plan, self._verdicts)
        if wait_s > 0 and body.startswith(OVERALL_OK):
            self._waiting.hold(self._call, wait_s, lambda: self._finish(body))
        else:
            if self._plan.shape.holds:
                self._waiting.leave()
            self._finish(body)

    def _finish(self, body: bytes) -> None:
        if self._call.cancelled:
            self._running.end(self._checks, self._now, self._store)
        self._call.done(body)


def _with_caller(check: Check, patience_us: int, running: Running) -> Check:
    counting = check.limit.counting
    if counting.needs_caller and not check.caller:
        return check._replace(caller=running.name())
    if counting.holds and 0 <= patience_us < check.limit.rule.delay_s * 1_000_000:
        return check._replace(patience_us=patience_us)
    return check
