"""Faults of policies that their schema cannot see: what Envoy or a service would refuse, or cannot be meant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from controlplane.api.authorization import Authorization, PathMatch
from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.faults import Fault
from controlplane.api.plans import PlanIdentity
from controlplane.api.ratelimit import ClaimMatch, HeaderMatch, QueryParamMatch, RateLimitRule
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.compile import jwks
from controlplane.compile.counting import faults_of
from controlplane.compile.regex import fault_of

# Headers that frame or route a request, or carry credentials. An identity is never written into one: it would be taken
# from all requests of the Gateway, those of other routes too.
_FRAMING: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "te", "upgrade", "cookie", "authorization")
)
# Each change between allowing and denying nests one expression deeper.
_MAX_TURNS: Final = 16
# Envoy parses expressions of so many characters, and no deeper.
_MAX_EXPRESSION: Final = 100_000
_MAX_CLAIM_STEPS: Final = 8
_MAX_PROVIDERS: Final = 4
# What stands before the name of a claim, each time: where its provider's claims are.
_CLAIMS_AT: Final = 80


def check_security(policy: SecurityPolicy) -> Iterator[Fault]:
    """Yields what is wrong with a SecurityPolicy that its schema accepts."""
    spec = policy.spec
    for index, provider in enumerate(spec.jwt.providers if spec.jwt is not None else ()):
        field = f"spec.jwt.providers[{index}]"
        inline = provider.local_jwks.inline if provider.local_jwks is not None else None
        fault = jwks.fault_of(inline) if inline is not None else None
        if fault is not None:
            yield Fault(f"{field}.localJWKS.inline", f"expected a usable JSON Web Key Set; got one with {fault}")
        for position, each in enumerate(provider.claim_to_headers):
            yield from _identity_header(each.header, f"{field}.claimToHeaders[{position}].header")
    for name, keys in (("apiKeyAuth", spec.api_key_auth), ("consumers", spec.consumers)):
        if keys is not None and keys.forward_client_id_header is not None:
            yield from _identity_header(keys.forward_client_id_header, f"spec.{name}.forwardClientIDHeader")
    for index, each in enumerate(spec.consumers.metadata_to_headers if spec.consumers is not None else ()):
        yield from _identity_header(each.header, f"spec.consumers.metadataToHeaders[{index}].header")
    if spec.authorization is not None:
        providers = [each.name for each in spec.jwt.providers] if spec.jwt is not None else None
        yield from _authorization(spec.authorization, providers)


def check_limits(policy: BackendTrafficPolicy) -> Iterator[Fault]:
    """Yields what is wrong with a BackendTrafficPolicy that its schema accepts."""
    limit = policy.spec.rate_limit
    if limit is not None and limit.global_ is not None:
        for index, rule in enumerate(limit.global_.rules):
            field = f"spec.rateLimit.global.rules[{index}]"
            yield from _selectors(rule, field)
            if rule.cost is not None and rule.cost.response is not None and rule.algorithm != "FixedWindow":
                # The others count only what they let through, and a response has been let through already.
                yield Fault(
                    f"{field}.cost.response", f"only FixedWindow counts what responses cost; got {rule.algorithm}"
                )
            limit_field = f"{field}.limit.requests"
            yield from faults_of(rule, requests=rule.limit.requests, field=field, limit_field=limit_field)
        if limit.global_.plans is not None:
            yield from _plan_identity(limit.global_.plans.identity)
    if limit is not None and limit.local is not None:
        general = 0
        for index, rule in enumerate(limit.local.rules):
            field = f"spec.rateLimit.local.rules[{index}]"
            yield from _selectors(rule, field)
            general += not rule.client_selectors
            if general > 1 and not rule.client_selectors:
                yield Fault(
                    f"{field}.clientSelectors", "only one local rule can be for all requests; give this one some"
                )
            if rule.limit.requests == 0:
                yield Fault(f"{field}.limit.requests", "expected at least 1 for a local limit; got 0")
            if rule.cost is not None and rule.cost.request is not None and rule.cost.request.number == 0:
                # Envoy's bucket takes it for a request that finds no token.
                yield Fault(f"{field}.cost.request.number", "expected at least 1 for a local limit; got 0")


def _plan_identity(identity: PlanIdentity) -> Iterator[Fault]:
    for name, value in (("plan", identity.plan), ("consumer", identity.consumer), ("tenant", identity.tenant)):
        field = f"spec.rateLimit.global.plans.identity.{name}"
        if value is not None and identity.from_ == "Headers":
            yield from _identity_header(value, field)
        elif value is not None and identity.from_ == "Token":
            yield from _claim_name(value, field)


def _identity_header(name: str, field: str) -> Iterator[Fault]:
    if name.lower() in _FRAMING:
        yield Fault(field, f"the header {name} frames or routes requests, and cannot tell an identity")


def _authorization(spec: Authorization, providers: Sequence[str] | None) -> Iterator[Fault]:
    for index, rule in enumerate(spec.rules):
        field = f"spec.authorization.rules[{index}]"
        if rule.operation is not None and rule.operation.path is not None:
            yield from _path(rule.operation.path, f"{field}.operation.path")
        jwt = rule.principal.jwt
        if jwt is not None and providers is not None and jwt.provider not in providers:
            known = ", ".join(providers)
            yield Fault(
                f"{field}.principal.jwt.provider", f"no provider of jwt is called {jwt.provider!r}; got {known}"
            )
    turns = sum(1 for _ in groupby(rule.action for rule in spec.rules)) - 1
    if turns > _MAX_TURNS:
        message = f"the rules change {turns} times between Allow and Deny; at most {_MAX_TURNS} times are supported"
        yield Fault("spec.authorization.rules", message)


def _selectors(rule: RateLimitRule, field: str) -> Iterator[Fault]:
    for index, each in enumerate(rule.client_selectors):
        at = f"{field}.clientSelectors[{index}]"
        yield from _values(each.headers, f"{at}.headers")
        yield from _values(each.query_params, f"{at}.queryParams")
        if each.path is not None:
            yield from _path(each.path, f"{at}.path")
        for position, claim in enumerate(each.claims):
            yield from _claim(claim, f"{at}.claims[{position}]")


def _claim(match: ClaimMatch, field: str) -> Iterator[Fault]:
    yield from _claim_name(match.name, f"{field}.name")
    claim = _CLAIMS_AT + len(match.name) + 4 * match.name.count(".")
    presence = 2 * claim * (match.name.count(".") + 3)
    array = claim + len(" || in ") if match.value_type == "StringArray" else 0
    values = sum(_literals(each) * (len(json.dumps(each, ensure_ascii=False)) + 4 + array) for each in match.values)
    # All providers of a route may have it, unless one is named.
    most = (presence + values) * (1 if match.provider is not None else _MAX_PROVIDERS)
    if most > _MAX_EXPRESSION:
        message = f"the values make an expression of up to {most} characters, and Envoy takes {_MAX_EXPRESSION}"
        hint = "" if match.provider is not None else "; with provider it would be a quarter"
        yield Fault(f"{field}.values", message + hint)


def _literals(text: str) -> int:
    """Returns how often a value stands in an expression: also as a number or truth value, if it may be one."""
    return 2 if text in ("true", "false") or text[-1:].isdigit() else 1


def _claim_name(name: str, field: str) -> Iterator[Fault]:
    steps = name.count(".") + 1
    if steps > _MAX_CLAIM_STEPS:
        yield Fault(field, f"a claim {steps} levels deep; at most {_MAX_CLAIM_STEPS} are supported")


def _values(matches: Sequence[HeaderMatch | QueryParamMatch], field: str) -> Iterator[Fault]:
    for index, each in enumerate(matches):
        if each.type == "RegularExpression" and not each.value:
            # Envoy takes no empty one.
            yield Fault(f"{field}[{index}].value", "expected a regular expression; for an empty value, use type Exact")
        elif each.type == "RegularExpression":
            yield from _regex(each.value or "", f"{field}[{index}].value")


def _path(path: PathMatch, field: str) -> Iterator[Fault]:
    if path.type == "RegularExpression":
        yield from _regex(path.value, f"{field}.value")


def _regex(pattern: str, field: str) -> Iterator[Fault]:
    reason = fault_of(pattern)
    if reason is not None:
        yield Fault(field, f"expected a regular expression of RE2's syntax; got {pattern!r}: {reason}")
