"""Decides the checks of one request as one: what one limit refuses is not taken from the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ratelimit_service.checks import Check


def decide(checks: Sequence[Check], count: Callable[[Check], int | None]) -> list[int | None]:
    """Returns the replies to checks that are decided together; `count` has one check counted.

    Limits that count only what they admit take nothing if a check refuses, unless that limit is in shadow mode, and
    their reply is then that to no hits. Fixed windows count in any case. The same is in Lua in `scripts`.
    """
    replies = [count(check if check.limit.script is None else check._replace(take=False)) for check in checks]
    if any(not check.take for check in checks) or any(map(_refuses, checks, replies)):
        return replies
    return [reply if check.limit.script is None else count(check) for check, reply in zip(checks, replies, strict=True)]


def _refuses(check: Check, reply: int | None) -> bool:
    if reply is None or not check.limit.binding:
        return False
    return reply > check.limit.per_unit if check.limit.script is None else reply < 0
