# pyright: standard, reportAttributeAccessIssue=false
"""The rate limit service with limits of policies, asked as a route's descriptors ask it; no network before it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy.service.ratelimit.v3 import rls_pb2

from controlplane import ir
from controlplane.translate.descriptors import entry, levels
from controlplane.translate.services import rate_limit_config
from ratelimit_service.answers import AnswerOptions, Answers
from ratelimit_service.config_xds import parse_resource
from ratelimit_service.handler import RateLimiter
from ratelimit_service.headers import ResponseHeaders
from ratelimit_service.model import Config, OnStoreError
from ratelimit_service.planner import Planner
from ratelimit_service.stats import StatsRegistry
from ratelimit_service.stores.memory import MemoryStore
from tests.support.ratelimit import Clock, RecordedCall


def limits(policy: str, *rules: ir.LimitRule) -> ir.GlobalLimit:
    """Returns the limits of a policy, named as the control plane names them."""
    return ir.GlobalLimit(policy, tuple(replace(rule, home=policy, name=rule.counted) for rule in rules))


class PolicyService:
    """The service with these limits in force."""

    def __init__(
        self,
        *known: ir.GlobalLimit,
        headers: ResponseHeaders = ResponseHeaders.DRAFT_03,
        unknown_domain: OnStoreError | None = OnStoreError.ALLOW,
        shadow_mode: bool = False,
    ) -> None:
        self.stats = StatsRegistry()
        self._unknown_domain = unknown_domain
        self._answers = Answers(AnswerOptions(headers=headers, shadow_mode=shadow_mode))
        self._handler = RateLimiter(MemoryStore(), self.stats, clock=Clock(), answers=self._answers)
        self.use(*known)

    def use(self, *known: ir.GlobalLimit) -> None:
        """Puts others in force."""
        domains = {}
        for limit in known:
            domain, faults = parse_resource(rate_limit_config(limit), source="test")
            assert (faults, domain is None) == ([], False)
            domains[limit.domain] = domain
        unknown = self._unknown_domain
        self._handler.use(Planner(Config(domains), self.stats, answers=self._answers, unknown_domain=unknown))

    def ask(
        self, limit: ir.GlobalLimit, *positions: int, values: str = "", brought: tuple[int, int] | None = None
    ) -> Any:
        """Asks about a request that the rules at these positions match; returns the RateLimitResponse."""
        return self._asked(limit, *positions, values=values, brought=brought).response

    def failure(self, limit: ir.GlobalLimit, *positions: int) -> str:
        """Asks the same; returns the name of the status that the call fails with."""
        failed = self._asked(limit, *positions).failure
        assert failed is not None
        return failed[0].name

    def _asked(
        self, limit: ir.GlobalLimit, *positions: int, values: str = "", brought: tuple[int, int] | None = None
    ) -> RecordedCall:
        request = rls_pb2.RateLimitRequest(domain=limit.domain)
        for position in positions:
            rule = limit.rules[position]
            descriptor = request.descriptors.add()
            path = [entry(position, rule), *([] if rule.shared else [("route", rule.scope or "r")]), *levels(rule)]
            for key, value in path:
                descriptor.entries.add(key=key, value=value or values)
            if brought is not None:
                descriptor.limit.requests_per_unit, descriptor.limit.unit = brought
        call = RecordedCall()
        self._handler(request.SerializeToString(), call)
        return call
