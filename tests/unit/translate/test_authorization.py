# pyright: standard, reportAttributeAccessIssue=false
"""Rules in order and the one expression that Envoy gets let the same requests in."""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.http.rbac.v3.rbac_pb2 import RBACPerRoute
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane import ir
from controlplane.translate.filters import authorization

RULE = ir.Rule("r", (), ir.Respond(200))
Request = dict[str, str]

_rules = st.builds(
    lambda allow, headers, methods: ir.AuthorizationRule(allow, headers=tuple(headers.items()), methods=tuple(methods)),
    st.booleans(),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([("1",), ("2",), ("1", "2")]), max_size=2),
    st.lists(st.sampled_from(["GET", "PUT"]), max_size=2, unique=True),
)
_authorizations = st.builds(
    lambda rules, default: ir.Authorization(tuple(rules), default), st.lists(_rules, max_size=8), st.booleans()
)
_requests = st.fixed_dictionaries(
    {":method": st.sampled_from(["GET", "PUT"])},
    optional={"a": st.sampled_from(["1", "2"]), "b": st.sampled_from(["1", "2"])},
)


def first_match(found: ir.Authorization, request: Request) -> bool:
    for rule in found.rules:
        values = [*rule.headers, *([(":method", rule.methods)] if rule.methods else [])]
        if all(request.get(name) in wanted for name, wanted in values):
            return rule.allow
    return found.default_allow


def holds(principal: Any, request: Request) -> bool:
    kind = principal.WhichOneof("identifier")
    if kind == "and_ids":
        return all(holds(each, request) for each in principal.and_ids.ids)
    if kind == "or_ids":
        return any(holds(each, request) for each in principal.or_ids.ids)
    if kind == "not_id":
        return not holds(principal.not_id, request)
    if kind == "header":
        return request.get(principal.header.name) == principal.header.string_match.exact
    assert kind == "any"
    return True


@settings(max_examples=500, deadline=None, derandomize=True)
@given(_authorizations, _requests)
def test_the_expression_lets_in_whom_the_first_matching_rule_lets_in(found: ir.Authorization, request: Request) -> None:
    config = authorization.route_config(RULE, ir.Policies(authorization=found))
    assert config is not None
    policies = RBACPerRoute.FromString(config.value).rbac.rules.policies
    admitted = any(holds(principal, request) for policy in policies.values() for principal in policy.principals)
    assert admitted == first_match(found, request)
