"""Answers a request: from its verdicts to the bytes of a RateLimitResponse."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service import wire
from ratelimit_service.algorithms.base import Verdict
from ratelimit_service.checks import Check, Plan
from ratelimit_service.model import OnStoreError

STORE_RETRY_AFTER_S = 1
"""What a client is told that is refused because the store cannot be asked."""


def answer_one(plan: Plan, check: Check, verdict: Verdict | None, *, headers: bool) -> bytes:
    """Answers a request with one descriptor; no verdict means that the store could not be asked."""
    if verdict is None:
        return answer(plan, (None,), headers=headers)
    over, remaining, reset_s = verdict
    parts = check.limit.parts
    if over and check.limit.rule.shadow_mode:
        check.limit.stats.shadow += check.hits
        over = False
    body = (wire.OVERALL_OVER if over else wire.OVERALL_OK) + parts.status(over, remaining, reset_s)
    if headers:
        numbers = wire.remaining_header(remaining), wire.reset_header(reset_s)
        body = b"%b%b%b%b" % (body, plan.limit_headers[0], *numbers)
    return body + parts.refusal(reset_s) if over else body


def answer(plan: Plan, verdicts: Sequence[Verdict | None], *, headers: bool) -> bytes:
    """Answers a request with any number of descriptors; `verdicts` are in the order of the plan's checks."""
    statuses: list[bytes] = []
    least = longest = -1
    failed = False
    for index, (check, verdict) in enumerate(zip(plan.checks, verdicts, strict=True)):
        rule, stats = check.limit.rule, check.limit.stats
        if verdict is None:
            stats.errors += check.hits
            denied = rule.on_store_error is OnStoreError.DENY and not rule.shadow_mode
            failed = failed or denied
            statuses.append(wire.STATUS_OVER if denied else wire.STATUS_OK)
            continue
        over, remaining, reset_s = verdict
        if over and rule.shadow_mode:
            stats.shadow += check.hits
            over = False
        statuses.append(check.limit.parts.status(over, remaining, reset_s))
        if over and (longest < 0 or reset_s > _reset(verdicts, longest)):
            longest = index
        if least < 0 or remaining < _remaining(verdicts, least):
            least = index
    body = b"".join(wire.STATUS_OK if position < 0 else statuses[position] for position in plan.positions)
    if headers and least >= 0:
        body += plan.limit_headers[least]
        body += wire.remaining_header(_remaining(verdicts, least)) + wire.reset_header(_reset(verdicts, least))
    if longest >= 0:
        refusal = plan.checks[longest].limit.parts.refusal(_reset(verdicts, longest))
        return wire.OVERALL_OVER + body + refusal
    if failed:
        return wire.OVERALL_OVER + body + wire.unavailable(STORE_RETRY_AFTER_S)
    return wire.OVERALL_OK + body


def _remaining(verdicts: Sequence[Verdict | None], index: int) -> int:
    verdict = verdicts[index]
    return verdict[1] if verdict else 0


def _reset(verdicts: Sequence[Verdict | None], index: int) -> int:
    verdict = verdicts[index]
    return verdict[2] if verdict else 0
