# pyright: standard, reportAttributeAccessIssue=false
"""A route laid together from parts is the route, whatever policies are in force on it."""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route

from controlplane import ir
from controlplane.translate import routes
from controlplane.translate.overlays import base, overlay

_MATCH = ir.Match(ir.PathMatch("PathPrefix", "/a"), headers=(ir.ValueMatch("x-a", "1"),))
_ACTION = ir.Respond(200, "here")
_CORS = ir.Cors(("https://a.example",))
_PLAIN = ir.Rule("one", (_MATCH,), _ACTION, request_headers=ir.HeaderEdit(set=(("x-b", "2"),)))
_WITH_CORS = ir.Rule("one", (_MATCH,), _ACTION, cors=ir.Cors(("*",)))
_APART = ir.GlobalLimit("demo/limits", (ir.LimitRule(5, "Minute"),))
_SHARED = ir.GlobalLimit("demo/limits", (ir.LimitRule(5, "Minute", shared=True),))


def _laid(rule: ir.Rule, policies: ir.Policies, *, scope: str = "") -> Route:
    made = base("HTTPRoute/demo/r/one", _MATCH, rule, port=80, https=False)
    return Route.FromString(overlay(policies).over(made, scope=scope))


def test_what_is_inherited_leaves_the_route_as_it_is_and_enables_filters() -> None:
    bare, laid = _laid(_PLAIN, ir.Policies()), _laid(_PLAIN, ir.Policies(cors=_CORS))
    assert (bare.name, bare.match.path_separated_prefix) == ("HTTPRoute/demo/r/one", "/a")
    assert [each.header.key for each in bare.request_headers_to_add] == ["x-b"]
    assert set(laid.typed_per_filter_config) == {"envoy.filters.http.cors"}
    laid.ClearField("typed_per_filter_config")
    assert laid == bare


def test_cors_of_the_rule_itself_stays_in_place_of_that_of_a_policy() -> None:
    assert _laid(_WITH_CORS, ir.Policies(cors=_CORS)) == _laid(_WITH_CORS, ir.Policies())


def test_a_denial_takes_the_place_of_the_action_and_of_what_it_does_to_headers() -> None:
    denied = _laid(_PLAIN, ir.Policies(deny=ir.Deny(503, "no keys"), cors=_CORS, global_limit=_APART))
    assert denied.direct_response.status == 503
    assert not denied.request_headers_to_add
    assert [each.header.key for each in denied.response_headers_to_add] == ["content-type"]
    assert set(denied.typed_per_filter_config) == {"envoy.filters.http.cors"}


def test_a_limit_that_counts_for_each_route_apart_names_the_route() -> None:
    apart = ir.Policies(global_limit=_APART)
    one, other = (_laid(_PLAIN, apart, scope=scope) for scope in ("HTTPRoute/demo/r", "HTTPRoute/demo/s"))
    assert one != other
    assert overlay(apart).apart == _APART
    assert overlay(ir.Policies(global_limit=_SHARED)).apart is None
    as_data = ir.Route("HTTPRoute/demo/r/one", _MATCH, _PLAIN, ir.Policies(global_limit=_APART, limit_scope="x"), "")
    assert Route.FromString(routes.route(as_data, port=80, https=False)) == _laid(_PLAIN, apart, scope="x")
