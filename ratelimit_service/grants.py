# pyright: standard, reportAttributeAccessIssue=false
"""Grants clients some requests ahead: `RateLimitResponse.quota`, by which a client admits so many without asking.

What is granted is counted when it is granted, so that a limit holds however many clients there are; what a client does
not use of it is lost to the others until the limit resets.
"""

from __future__ import annotations

from collections.abc import Callable

from envoy.service.ratelimit.v3 import rls_pb2

from dragoman.grpc_worker import Call, StatusCode
from ratelimit_service.checks import Check
from ratelimit_service.handler import RateLimiter
from ratelimit_service.memo import Memo
from ratelimit_service.model import Algorithm
from ratelimit_service.reading import read
from ratelimit_service.wire import OVERALL_OK, quota

_COUNTS_AHEAD = (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.TOKEN_BUCKET)
_CANNOT = b""


class Granting:
    """A handler of ShouldRateLimit around the limiter's: each request that it allows asks for `ahead` more."""

    def __init__(
        self, limiter: RateLimiter, *, ahead: int, clock: Callable[[], float], memo_size: int = 16_384
    ) -> None:
        self._limiter = limiter
        self._ahead = ahead
        self._clock = clock
        self._bodies: Memo[bytes, bytes] = Memo(memo_size)

    def __call__(self, body: bytes, call: Call) -> None:
        """Answers one request."""
        self._limiter(body, _Continued(call, lambda answer: self._ask_ahead(body, answer, call), call.fail))

    def _ask_ahead(self, body: bytes, answer: bytes, call: Call) -> None:
        found = self._reset_s(answer) if answer.startswith(OVERALL_OK) else None
        asked = self._body_ahead(body) if found is not None else _CANNOT
        if found is None or not asked:
            call.done(answer)
            return
        limits, reset_s = found

        def tell(ahead: bytes) -> None:
            granted = self._reset_s(ahead, left=0) if ahead.startswith(OVERALL_OK) else None
            # Without its store a limit allows, and has not counted.
            is_counted = granted is not None and granted[0] == limits
            call.done(answer + quota(self._ahead, int(self._clock()) + reset_s) if is_counted else answer)

        self._limiter(asked, _Continued(call, tell, lambda code, message: call.done(answer)))

    def _reset_s(self, answer: bytes, *, left: int | None = None) -> tuple[int, int] | None:
        """Returns how many limits apply, and when the first of them resets; None unless each has so much left."""
        least = self._ahead if left is None else left
        statuses = [each for each in rls_pb2.RateLimitResponse.FromString(answer).statuses if each.code == 1]
        limited = [each for each in statuses if each.HasField("current_limit")]
        if not limited or any(each.limit_remaining < least for each in limited):
            return None
        return len(limited), min(each.duration_until_reset.seconds for each in limited)

    def _body_ahead(self, body: bytes) -> bytes:
        """Returns the request for the hits ahead; nothing where they cannot be counted so."""
        plan = self._limiter.planned(body)
        if plan is None or not all(_can_be_ahead(check) for check in plan.checks):
            return _CANNOT
        asked = self._bodies.get(body)
        if asked is None:
            request = read(body)
            request.hits_addend = self._ahead
            for descriptor in request.descriptors:
                descriptor.ClearField("hits_addend")
            asked = request.SerializeToString()
            self._bodies.put(body, asked)
        return asked


def _can_be_ahead(check: Check) -> bool:
    # A client takes one off its quota for each request, whatever that costs here.
    return check.hits == 1 and check.limit.rule.algorithm in _COUNTS_AHEAD


class _Continued:
    """A call whose answer goes on to somebody else."""

    __slots__ = ("_call", "_done", "_fail")

    def __init__(self, call: Call, done: Callable[[bytes], None], fail: Callable[[StatusCode, str], None]) -> None:
        self._call = call
        self._done = done
        self._fail = fail

    @property
    def deadline(self) -> float | None:
        return self._call.deadline

    @property
    def cancelled(self) -> bool:
        return self._call.cancelled

    def done(self, body: bytes) -> None:
        self._done(body)

    def fail(self, code: StatusCode, message: str) -> None:
        self._fail(code, message)
