"""Answers a request: from its verdicts to the bytes of a RateLimitResponse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ratelimit_service import wire
from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.checks import Check, Limit, Plan
from ratelimit_service.headers import HeaderNames, HeaderWriter, ResponseHeaders
from ratelimit_service.metadata import violations
from ratelimit_service.model import OnStoreError, Rule

STORE_RETRY_AFTER_S = 1
"""What a client is told that is refused because the store cannot be asked."""


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What answers carry, and what holds for all limits."""

    headers: ResponseHeaders = ResponseHeaders.DRAFT_03
    header_names: HeaderNames = field(default_factory=HeaderNames)
    metadata: bool = False
    """Whether answers carry dynamic metadata."""
    shadow_mode: bool = False
    """No request is refused; what each limit says is in its status."""
    quota_mode: bool = False
    """Every limit is in quota mode: it never refuses, and what is over is in the dynamic metadata."""


class Answers:
    """Encodes answers as the options ask."""

    def __init__(self, options: AnswerOptions = AnswerOptions()) -> None:
        self.writer = HeaderWriter(options.headers, options.header_names)
        self.shadowed = 0
        """Requests that were let through because no request is refused (`shadow_mode` of the options)."""
        self.metadata = options.metadata
        self._shadow_mode = options.shadow_mode
        self._quota_mode = options.quota_mode
        self._strict = not (options.shadow_mode or options.quota_mode)

    @property
    def enforces(self) -> bool:
        """Whether limits refuse requests, if they say that they do."""
        return self._strict

    def one(self, plan: Plan, check: Check, verdict: Verdict | None) -> bytes:
        """Answers a request with one descriptor; no verdict means that the store could not be asked."""
        if verdict is None:
            return self.several(plan, (None,))
        over, remaining, reset_s = verdict
        limit = check.limit
        if over:
            return self._one_over(plan, check, verdict)
        numbers = limit.numbers(limit.item, remaining, reset_s)
        body = limit.parts.allowed(remaining, reset_s, limit.header, numbers)
        return body + wire.metadata(plan.metadata) if plan.metadata else body

    def _one_over(self, plan: Plan, check: Check, verdict: Verdict) -> bytes:
        rule, parts = check.limit.rule, check.limit.parts
        if plan.metadata or rule.shadow_mode or rule.quota_mode or not self._strict:
            return self.several(plan, (verdict,))
        if parts.known_verdict != verdict:
            _, remaining, reset_s = verdict
            numbers = check.limit.numbers(check.limit.item, remaining, reset_s)
            status, refusal = parts.status(True, remaining, reset_s), parts.refusal(reset_s)
            parts.known_refusal = wire.OVERALL_OVER + status + check.limit.header + numbers + refusal
            parts.known_verdict = verdict
        return parts.known_refusal

    def several(self, plan: Plan, verdicts: Sequence[Verdict | None]) -> bytes:
        """Answers a request with any number of descriptors; `verdicts` are in the order of the plan's checks."""
        outcome = _Outcome()
        for index, (check, verdict) in enumerate(zip(plan.checks, verdicts, strict=True)):
            if verdict is None:
                outcome.unknown(check, lenient=self._is_lenient(check.limit.rule))
            elif verdict[0]:
                outcome.over(index, check, verdict, self._violates(check.limit.rule))
            else:
                outcome.allowed(index, check.limit, verdict)
        statuses = outcome.statuses
        body = b"".join([statuses[at] if at >= 0 else _UNCHECKED[at] for at in plan.shape.positions])
        told = outcome.longest
        if told < 0 or plan.checks[told].limit.rule.hidden:
            told = outcome.least
        if told >= 0:
            body += plan.shape.limit_headers[told] + self.writer.several(told, plan.shape.items, verdicts)
        if plan.metadata:
            over = tuple(position for position, at in enumerate(plan.shape.positions) if at in outcome.violated)
            body += wire.metadata(plan.metadata + violations(over) if over else plan.metadata)
        return self._overall(plan, outcome, body)

    def plain(self, statuses: bytes, metadata: bytes, *, over: bool = False) -> bytes:
        """Answers a request for which nothing is counted."""
        body = statuses + wire.metadata(metadata) if metadata else statuses
        if over and not self._shadow_mode:
            return wire.OVERALL_OVER + body + wire.unavailable(STORE_RETRY_AFTER_S)
        return wire.OVERALL_OK + body

    def too_large(self) -> bytes:
        """Answers a request that is too large to be looked at: an error would be let through, whatever its limits."""
        return wire.OVERALL_OVER + wire.too_large() if self._strict else wire.OVERALL_OK

    def _overall(self, plan: Plan, outcome: _Outcome, body: bytes) -> bytes:
        refused = outcome.longest >= 0
        if (refused or outcome.failed) and self._shadow_mode:
            self.shadowed += 1
            return wire.OVERALL_OK + body
        if refused:
            return wire.OVERALL_OVER + body + plan.checks[outcome.longest].limit.parts.refusal(outcome.longest_s)
        if outcome.failed:
            return wire.OVERALL_OVER + body + wire.unavailable(STORE_RETRY_AFTER_S)
        return wire.OVERALL_OK + body

    def _violates(self, rule: Rule) -> bool:
        return rule.quota_mode or self._quota_mode

    def _is_lenient(self, rule: Rule) -> bool:
        return rule.shadow_mode or self._violates(rule)


class _Outcome:
    """What comes of several verdicts."""

    __slots__ = ("failed", "least", "least_left", "longest", "longest_s", "statuses", "violated")

    def __init__(self) -> None:
        self.statuses: list[bytes] = []
        self.violated: list[int] = []
        """The checks that are over a limit in quota mode."""
        self.failed = False
        """Whether a limit refuses because the store cannot be asked."""
        self.least, self.least_left = -1, 0
        """The check with the least left, of those that clients are told of."""
        self.longest, self.longest_s = -1, 0
        """The check that refuses for the longest."""

    def unknown(self, check: Check, *, lenient: bool) -> None:
        check.limit.stats.errors += abs(check.hits)
        denied = check.limit.rule.on_store_error is OnStoreError.DENY and not lenient and check.hits >= 0
        self.failed = self.failed or denied
        self.statuses.append(wire.STATUS_OVER if denied else wire.STATUS_OK)

    def over(self, index: int, check: Check, verdict: Verdict, violates: bool) -> None:
        _, remaining, reset_s = verdict
        limit = check.limit
        if limit.rule.shadow_mode:
            limit.stats.shadow += check.hits
            self.allowed(index, limit, verdict)
            return
        if violates:
            limit.stats.quota += check.hits
            self.violated.append(index)
            self.allowed(index, limit, verdict)
            return
        self.statuses.append(limit.parts.status(True, remaining, reset_s))
        if self.longest < 0 or reset_s > self.longest_s:
            self.longest, self.longest_s = index, reset_s
        self._told(index, limit, remaining)

    def allowed(self, index: int, limit: Limit, verdict: Verdict) -> None:
        _, remaining, reset_s = verdict
        self.statuses.append(limit.parts.status(False, remaining, reset_s))
        self._told(index, limit, remaining)

    def _told(self, index: int, limit: Limit, remaining: int) -> None:
        if (self.least < 0 or remaining < self.least_left) and not limit.rule.hidden:
            self.least, self.least_left = index, remaining


NO_LIMIT, UNLIMITED = -1, -2
"""What stands in a plan's positions for a descriptor that is not checked."""
_UNCHECKED = {NO_LIMIT: wire.STATUS_OK, UNLIMITED: wire.STATUS_UNLIMITED}
