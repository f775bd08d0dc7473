# pyright: standard, reportAttributeAccessIssue=false
"""Reads a RateLimitRequest and finds the limits that apply to its descriptors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from envoy.extensions.common.ratelimit.v3 import ratelimit_pb2
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.message import DecodeError

from dragoman.grpc_worker import StatusCode
from ratelimit_service import wire
from ratelimit_service.algorithms.registry import counting
from ratelimit_service.answers import NO_LIMIT, UNLIMITED, Answers
from ratelimit_service.checks import Check, Counter, Limit, Plan, Shape
from ratelimit_service.forms import Forms
from ratelimit_service.memo import Memo
from ratelimit_service.metadata import metadata_of
from ratelimit_service.model import Config, Domain, OnStoreError, Rule, Unit
from ratelimit_service.named import counted_values, metric_path, path_of
from ratelimit_service.newer import gives_back, multiplier_of
from ratelimit_service.reading import DONE_KEY, MAX_HITS, Asked, Entries, asked, read
from ratelimit_service.stats import MAX_PATH, StatsRegistry
from ratelimit_service.stores.local import Local
from ratelimit_service.versions import Versions

MAX_DESCRIPTORS = 1024
DOUBTED_S = 1.0
"""For how long a limit to which hits are given back is taken to be over, without asking the store."""
MAX_KEY_BYTES = 512
_MAX_SHAPED = 16
"""Descriptors of a request whose shape is remembered."""

_UNITS = {unit.wire: unit for unit in Unit}


class Refusal(Exception):  # noqa: N818  (an answer, not an error of ours)
    """The request is refused with a gRPC status."""

    def __init__(self, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Planner:
    """Plans requests against one configuration. A new configuration gets a new planner, which takes over from `before`
    what has not changed, so that one domain's change costs the others nothing; it may be made in another thread.
    """

    def __init__(
        self,
        config: Config,
        stats: StatsRegistry,
        *,
        answers: Answers | None = None,
        local: Local | None = None,
        key_prefix: str = "",
        near_ratio: float = 0.8,
        unknown_domain: OnStoreError | None = OnStoreError.ALLOW,
        memo_size: int = 16_384,
        before: Planner | None = None,
    ) -> None:
        self._config = config
        self._versions = Versions(config)
        self._stats = stats
        self._answers = answers or Answers()
        self._local = local
        self._key_prefix = key_prefix
        self._near_ratio = near_ratio
        self._unknown_domain = unknown_domain
        self._counters: Memo[bytes, Counter] = before._counters if before else Memo(memo_size)
        self._forms = before._forms if before else Forms()
        same = before.unchanged(config) if before else frozenset[str]()
        self._brought: Memo[tuple[str, str, int, int, int, int], Limit] = (
            before._brought.kept(lambda key, _: key[0] in same) if before else Memo(1024)
        )
        self._detailed: Memo[tuple[Limit, str], Limit] = before._detailed if before else Memo(4096)
        self._shapes: Memo[tuple[tuple[int, ...], tuple[Limit, ...]], Shape] = before._shapes if before else Memo(1024)
        # By domain, and by the rule's identity: made when a request first asks for it.
        self._limits: dict[str, dict[int, Limit]] = {
            name: before._limits[name] if before and name in same else before._limits_of(domain) if before else {}
            for name, domain in config.domains.items()
        }

    def unchanged(self, config: Config) -> frozenset[str]:
        """Returns the names of the domains that are the same objects in another configuration."""
        ours = self._config.domains
        return frozenset(name for name, domain in config.domains.items() if ours.get(name) is domain)

    def dismiss(self, after: Planner) -> None:
        """Lets go of the limits that the planner after this one has not taken over, one by one."""
        self._brought.dismiss()
        for name, limits in self._limits.items():
            if after._limits.get(name) is not limits:
                while limits:
                    limits.popitem()

    def _limits_of(self, domain: Domain) -> dict[int, Limit]:
        """Returns the limits of those rules of a changed domain that it has kept."""
        limits = self._limits.get(domain.name, {}).copy()
        return {id(rule): limits[id(rule)] for rule in domain.root.rules() if id(rule) in limits}

    def plan(self, body: bytes) -> Plan:
        """Returns what to do for a request; raises Refusal for one that makes no sense."""
        name, descriptors, request = self._read(body)
        domain = self._config.domains.get(name)
        if domain is None:
            domain = self._versions.closest(name, [each.entries for each in descriptors])
            if domain is None:
                return self._of_unknown_domain(request, name, len(descriptors))
            # Not to be remembered: the domain itself may come.
            self._stats.other_version += 1
            return replace(self._plan_in(domain, request, descriptors), once=True)
        return self._plan_in(domain, request, descriptors)

    def _of_unknown_domain(self, request: rls_pb2.RateLimitRequest | None, name: str, count: int) -> Plan:
        if self._unknown_domain is None and self._answers.enforces:
            self._stats.count_unknown(name, count)
            raise Refusal(StatusCode.UNAVAILABLE, "no limits of this domain have come from the control plane")
        denied = self._unknown_domain is OnStoreError.DENY
        statuses = (wire.STATUS_OVER if denied else wire.STATUS_OK) * count
        reply = self._answers.plain(statuses, self._metadata(request, ()), over=denied)
        return Plan(reply=reply, unknown=(name, count))

    def _plan_in(self, domain: Domain, request: rls_pb2.RateLimitRequest | None, descriptors: list[Asked]) -> Plan:
        if len(descriptors) == 1:
            return self._plan_of_one(request, domain, descriptors[0])
        found = [self._find(domain, descriptor) for descriptor in descriptors]
        replaced = {name for limit in found if limit is not None for name in limit.rule.replaces}
        checks: list[Check] = []
        places: dict[tuple[Limit, bytes, bytes], int] = {}
        positions: list[int] = []
        for descriptor, limit in zip(descriptors, found, strict=True):
            position = _position(descriptor, limit)
            if limit is not None and position >= 0:
                counted = limit.rule.name not in replaced
                position = _add(checks, places, self._check(domain, descriptor, limit)) if counted else NO_LIMIT
            positions.append(position)
        return self._planned(request, checks, positions, once=any(descriptor.caller for descriptor in descriptors))

    def _read(self, body: bytes) -> tuple[str, list[Asked], rls_pb2.RateLimitRequest | None]:
        """Returns the domain and the descriptors; and the message, if the answer is to tell of it."""
        known = None if self._answers.metadata else self._forms.read(body)
        if known is not None:
            return *known, None
        request, name, descriptors = _parsed(body)
        self._forms.learn(request, body)
        return name, descriptors, request

    def _plan_of_one(self, request: rls_pb2.RateLimitRequest | None, domain: Domain, descriptor: Asked) -> Plan:
        """The same for one descriptor: nothing replaces its limit or adds to its hits."""
        limit = self._find(domain, descriptor)
        position = _position(descriptor, limit)
        checks = (self._check(domain, descriptor, limit),) if limit is not None and position >= 0 else ()
        return self._planned(request, checks, (position,), once=bool(descriptor.caller))

    def _planned(
        self,
        request: rls_pb2.RateLimitRequest | None,
        checks: Sequence[Check],
        positions: Sequence[int],
        *,
        once: bool,
    ) -> Plan:
        metadata = self._metadata(request, checks)
        if not checks:
            statuses = b"".join(wire.STATUS_UNLIMITED if at == UNLIMITED else wire.STATUS_OK for at in positions)
            return Plan(reply=self._answers.plain(statuses, metadata), once=once)
        shape = self._shape(checks, positions)
        plan = Plan(tuple(checks), shape, checks[0] if shape.is_plain else None, b"", metadata, None, once)
        return plan if request is None else self._giving(plan)

    def _giving(self, plan: Plan) -> Plan:
        """Sees to a request that gives hits back, unless it takes as many from the same counters."""
        given = [check.limit for check in plan.checks if check.hits < 0]
        if given:
            for limit in given:
                self._doubt(limit)
            plan.shape = replace(plan.shape, is_plain=False, conditional=True, gives=True)
            plan.only = None
        return plan

    def _doubt(self, limit: Limit) -> None:
        """Has what this process knows to be over be so for a moment only: others may be told that it is not any more.

        That holds for all values of a rule to which hits are given back, from the first time on.
        """
        if limit.counting.needs_caller:
            message = f"is_negative_hits does not apply to what is in flight: {DONE_KEY} says that a request has ended"
            raise Refusal(StatusCode.INVALID_ARGUMENT, message)
        if limit.known_s > DOUBTED_S:
            rule = limit.rule
            apart = [each for each in self._detailed.values() if each.rule is rule]
            for each in (limit, self._limits[rule.domain].get(id(rule), limit), *apart):
                each.known_s = DOUBTED_S

    def _shape(self, checks: Sequence[Check], positions: Sequence[int]) -> Shape:
        if len(positions) == 1:
            return checks[0].limit.alone
        key = tuple(positions), tuple([check.limit for check in checks])
        shape = self._shapes.get(key)
        if shape is None:
            shape = Shape.of(key[1], key[0], self._answers.writer)
            if len(positions) <= _MAX_SHAPED:
                self._shapes.put(key, shape)
        return shape

    def _metadata(self, request: rls_pb2.RateLimitRequest | None, checks: Sequence[Check]) -> bytes:
        if request is None or not self._answers.metadata:
            return b""
        return metadata_of(request, quota_mode=any(check.limit.rule.quota_mode for check in checks))

    def _check(self, domain: Domain, descriptor: Asked, limit: Limit) -> Check:
        entries, hits, _, caller, ends = descriptor
        prefix = self._prefix(limit.rule, domain, entries) + limit.key_part
        counter = self._counters.get(prefix)
        if counter is None or counter.limit is not limit:
            counter = Counter(limit, prefix)
            # What is leased for a counter would be lost with it.
            if limit.alone.leased:
                self._counters.put(prefix, counter)
            elif not self._counters.offer(prefix, counter):
                counter.home = self._counters
        return Check(counter, limit, hits, caller, ends)

    def _find(self, domain: Domain, descriptor: Asked) -> Limit | None:
        brought = descriptor.limit
        if brought is not None and not domain.refines:
            return self._brought_limit(domain, descriptor.entries, brought, None)
        rule = domain.root.rule_of(descriptor.entries)
        if rule is None:
            return None
        if brought is not None:
            return self._brought_limit(domain, descriptor.entries, brought, rule)
        limits = self._limits[domain.name]
        limit = limits.get(id(rule))
        if limit is None:
            limit = limits[id(rule)] = self._limit(rule, rule.path)
        if rule.detailed_metric or rule.value_to_metric:
            return self._detailed_limit(limit, metric_path(domain, rule, descriptor.entries)[:MAX_PATH])
        return limit

    def _brought_limit(
        self,
        domain: Domain,
        entries: Entries,
        given: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride,
        configured: Rule | None,
    ) -> Limit:
        # As in envoyproxy/ratelimit, a limit that the request brings stands for whatever is configured, unless the
        # domain says otherwise.
        unit = _UNITS.get(given.unit)
        if unit is None:
            raise Refusal(StatusCode.INVALID_ARGUMENT, "the limit of a descriptor has no known unit")
        times = _multiplier_of(given)
        path = configured.path if configured is not None else path_of(entries)[:MAX_PATH]
        # Two rules may have the same path: `a.b`, and `b` below `a`.
        key = domain.name, path, given.requests_per_unit, given.unit, times, id(configured)
        limit = self._brought.get(key)
        if limit is None:
            plain = Rule(domain.name, path, unit, given.requests_per_unit, times, on_store_error=domain.on_store_error)
            fault = plain.fault()
            if fault is not None:
                raise Refusal(StatusCode.INVALID_ARGUMENT, f"the limit of a descriptor: {': '.join(fault)}")
            limit = self._limit(_refined(configured, plain) if configured is not None else plain, path)
            self._brought.put(key, limit)
        return limit

    def _detailed_limit(self, limit: Limit, path: str) -> Limit:
        if path == limit.rule.path:
            return limit
        detailed = self._detailed.get((limit, path))
        if detailed is None:
            detailed = self._limit(limit.rule, path)
            detailed.known_s = limit.known_s
            self._detailed.put((limit, path), detailed)
        return detailed

    def _limit(self, rule: Rule, path: str) -> Limit:
        stats = self._stats.of(rule.domain, path, rule.path)
        writer = self._answers.writer
        enforced = self._answers.enforces
        count = counting(rule.algorithm)
        limit = Limit(rule, count, stats, near_ratio=self._near_ratio, headers=writer, enforced=enforced)
        limit.local = self._local if rule.on_store_error is OnStoreError.LOCAL else None
        return limit

    def _prefix(self, rule: Rule, domain: Domain, entries: Entries) -> bytes:
        if rule.shared:
            values = counted_values(rule, entries)
            named = "".join(f"{key}_{value}_" for (key, _), value in zip(entries, values, strict=True))
        else:
            named = "".join([f"{key}_{value}_" for key, value in entries])
        name = named if domain.counters_without_domain else f"{domain.name}_{named}"
        encoded = f"{self._key_prefix}{name}".encode()
        if len(encoded) <= MAX_KEY_BYTES:
            return encoded
        digest = hashlib.sha256(encoded).hexdigest()
        return f"{self._key_prefix}{name[:64]}_sha256:{digest}_".encode()


def _parsed(body: bytes) -> tuple[rls_pb2.RateLimitRequest, str, list[Asked]]:
    """Returns the request, its domain and its descriptors."""
    try:
        request = read(body)
    except DecodeError:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "not a RateLimitRequest") from None
    domain, descriptors = request.domain, request.descriptors
    if not domain:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "rate limit domain must not be empty")
    if not descriptors:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "rate limit descriptor list must not be empty")
    if len(descriptors) > MAX_DESCRIPTORS:
        raise Refusal(StatusCode.INVALID_ARGUMENT, f"more than {MAX_DESCRIPTORS} descriptors")
    given = gives_back(request, body)
    found = asked(descriptors, request.hits_addend or 1, body)
    for at in given:
        # What has ended is given back whole.
        if not found[at].ends:
            found[at] = found[at]._replace(hits=-found[at].hits)
    return request, domain, found


def _refined(configured: Rule, brought: Rule) -> Rule:
    """Returns what is configured with the number and units that a request brought; without a burst, a number too."""
    made = replace(
        configured,
        unit=brought.unit,
        requests_per_unit=brought.requests_per_unit,
        unit_multiplier=brought.unit_multiplier,
        unlimited=False,
        burst=0,
    )
    # More than a bucket can hold: nobody else finds out that early.
    return made if made.fault() is None else replace(brought, shadow_mode=configured.shadow_mode)


def _position(descriptor: Asked, limit: Limit | None) -> int:
    """Returns what stands for a descriptor that nothing is counted for; 0 where there is something to count."""
    if limit is None:
        return NO_LIMIT
    if limit.rule.unlimited:
        return UNLIMITED
    return NO_LIMIT if descriptor.ends and not (descriptor.caller and limit.counting.needs_caller) else 0


def _multiplier_of(limit: ratelimit_pb2.RateLimitDescriptor.RateLimitOverride) -> int:
    try:
        return multiplier_of(limit)
    except DecodeError:
        raise Refusal(StatusCode.INVALID_ARGUMENT, "not a RateLimitRequest") from None


def _add(checks: list[Check], places: dict[tuple[Limit, bytes, bytes], int], check: Check) -> int:
    """Adds a check; returns its index. What counts hits only if it admits them gets all hits on a counter at once."""
    if check.limit.script is not None:
        at = places.setdefault((check.limit, check.counter.prefix, check.caller), len(checks))
        if at < len(checks):
            before = checks[at]
            hits = max(-MAX_HITS, min(check.hits + before.hits, MAX_HITS))
            checks[at] = check._replace(hits=hits, ends=check.ends or before.ends)
            return at
    checks.append(check)
    return len(checks) - 1
