"""The request path: plans a request, asks the store, answers the call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dragoman.grpc_worker import Call, StatusCode
from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.answers import Answers
from ratelimit_service.checks import Check, Plan
from ratelimit_service.memo import Memo
from ratelimit_service.planner import Planner, Refusal
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.base import Flight, Store

METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
MAX_PLANNED_BYTES = 2048
"""Larger requests are planned each time: remembered, they would take too much memory."""


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
        memo_size: int = 16_384,
    ) -> None:
        self._store = store
        self._leases = leases or store
        self._stats = stats
        self._clock = clock
        self._answers = answers or Answers()
        self._planner: Planner | None = None
        self._plans: Memo[bytes, Plan] = Memo(memo_size)

    @property
    def configured(self) -> bool:
        """Whether there is a configuration in force."""
        return self._planner is not None

    def use(self, planner: Planner) -> None:
        """Puts a configuration in force, for requests from now on."""
        self._planner = planner
        self._plans.clear()

    def planned(self, body: bytes) -> Plan | None:
        """Returns the plan of a request that was answered, while it is remembered."""
        return self._plans.get(body)

    def __call__(self, body: bytes, call: Call) -> None:
        """Answers one request."""
        plan = self._plans.young.get(body) or self._plan(body, call)
        if plan is None:
            return
        if plan.reply:
            if plan.is_known:
                self._stats.no_limit += 1
            else:
                self._stats.unknown_domain += 1
            call.done(plan.reply)
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

    def _uncommon(self, plan: Plan, call: Call, now: float) -> None:
        """Answers a request with several descriptors, or with a lease."""
        store = self._leases if plan.leased else self._store
        if len(plan.positions) > 1:
            _Several(plan, call, now, self._answers).start(store)
            return
        (check,) = plan.checks
        verdict = check.limit.counting.known_over(check, now) if check.counter.over_until > now else None
        if verdict is not None:
            call.done(self._answers.one(plan, check, verdict))
            return
        store.take(plan.checks, now, _One(plan, check, call, now, self._answers))

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
            self._stats.malformed += 1
            call.fail(refusal.code, refusal.message)
            return None
        if len(body) <= MAX_PLANNED_BYTES:
            self._plans.put(body, plan)
        return plan


class _One(Flight):
    """A request with one descriptor, on its way to the store and back."""

    __slots__ = ("_answers", "_call", "_check", "_now", "_plan")

    def __init__(self, plan: Plan, check: Check, call: Call, now: float, answers: Answers) -> None:
        self._plan = plan
        self._check = check
        self._call = call
        self._now = now
        self._answers = answers

    def settle(self) -> None:
        reply = self.replies[0]
        check = self._check
        if reply is not None:
            verdict = check.limit.counting.judge(check, reply, self._now)
        else:
            verdict = _without_store(check, self._now)
        self._call.done(self._answers.one(self._plan, check, verdict))


class _Several(Flight):
    """A request with several descriptors."""

    __slots__ = ("_answers", "_asked", "_call", "_now", "_plan", "_verdicts")

    def __init__(self, plan: Plan, call: Call, now: float, answers: Answers) -> None:
        super().__init__()
        self._plan = plan
        self._call = call
        self._now = now
        self._answers = answers
        self._verdicts: list[Verdict | None] = [check.limit.counting.known_over(check, now) for check in plan.checks]
        self._asked: Sequence[int] = [index for index, known in enumerate(self._verdicts) if known is None]

    def start(self, store: Store) -> None:
        """Asks for what is not known."""
        checks = self._plan.checks
        if self._asked:
            store.take([checks[index] for index in self._asked], self._now, self)
        else:
            self.settle()

    def settle(self) -> None:
        for index, reply in zip(self._asked, self.replies, strict=True):
            check = self._plan.checks[index]
            if reply is not None:
                self._verdicts[index] = check.limit.counting.judge(check, reply, self._now)
            else:
                self._verdicts[index] = _without_store(check, self._now)
        self._call.done(self._answers.several(self._plan, self._verdicts))


def _without_store(check: Check, now: float) -> Verdict | None:
    local = check.limit.local
    decided = local.decide(check, now) if local is not None else None
    if decided is None:
        return None
    check.limit.stats.errors += check.hits
    share, reply = decided
    return share.limit.counting.judge(share, reply, now)
