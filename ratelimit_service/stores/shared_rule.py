"""How workers tell the one that counts for them what a limit is: the part of a rule that decisions depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache

from ratelimit_service.algorithms.registry import counting
from ratelimit_service.checks import Limit
from ratelimit_service.headers import HeaderWriter, ResponseHeaders
from ratelimit_service.model import Algorithm, Rule, Unit
from ratelimit_service.stats import RuleStats

FIELDS = ("unit", "unit_multiplier", "requests_per_unit", "algorithm", "burst", "delay_s", "lease_time_s", "refined")


@dataclass(frozen=True, slots=True)
class Written:
    """A rule as it is sent, and its digest, by which it is named from then on."""

    body: bytes
    digest: bytes


@lru_cache(maxsize=4096)
def written(rule: Rule) -> Written:
    """Writes a rule: rules that count alike are the same bytes."""
    told = {name: getattr(rule, name) for name in FIELDS}
    body = json.dumps(told | {"unit": rule.unit.name}, separators=(",", ":")).encode()
    return Written(body, digest(body))


def digest(body: bytes) -> bytes:
    """Names a rule that was written."""
    return hashlib.sha256(body).hexdigest()[:16].encode()


def read(body: bytes) -> Limit:
    """Reads what `written` wrote, as something to count against; raises ValueError for anything else."""
    try:
        told = json.loads(body)
        rule = Rule(
            domain="",
            path="",
            unit=Unit[told["unit"]],
            requests_per_unit=int(told["requests_per_unit"]),
            unit_multiplier=int(told["unit_multiplier"]),
            algorithm=Algorithm(told["algorithm"]),
            burst=int(told["burst"]),
            delay_s=float(told["delay_s"]),
            lease_time_s=float(told["lease_time_s"]),
            refined=bool(told["refined"]),
        )
    except (KeyError, TypeError, ValueError):
        raise ValueError("not a rule") from None
    return bare_limit(rule, RuleStats(), near_ratio=1.0)


def bare_limit(rule: Rule, stats: RuleStats, *, near_ratio: float) -> Limit:
    """Returns a limit that nobody is told of."""
    writer = HeaderWriter(ResponseHeaders.NONE)
    return Limit(rule, counting(rule.algorithm), stats, near_ratio=near_ratio, headers=writer)
