# pyright: standard, reportAttributeAccessIssue=false
"""Limits that each Envoy enforces by the share that the rate limit service assigns to it: Envoy's rate_limit_quota.

Its per-route settings are not implemented in Envoy 1.40: a route can turn the filter on, but not say what it is to
count. So a route names its limits in the filter state, and the filter's own settings, which come by ECDS, tell from
that, and from the rules' selectors, which bucket a request belongs to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.grpc_service_pb2 import GrpcService
from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.http.rate_limit_quota.v3.rate_limit_quota_pb2 import (
    RateLimitQuotaBucketSettings,
    RateLimitQuotaFilterConfig,
    RateLimitQuotaOverride,
)
from envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2 import Config
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.extensions.matching.common_inputs.network.v3.network_inputs_pb2 import FilterStateInput, SourceIPInput
from envoy.extensions.matching.input_matchers.ip.v3.ip_pb2 import Ip
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput, HttpRequestQueryParamMatchInput
from envoy.type.v3.ratelimit_strategy_pb2 import RateLimitStrategy
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from xds.core.v3.extension_pb2 import TypedExtensionConfig as XdsExtension
from xds.type.matcher.v3.matcher_pb2 import Matcher

from controlplane import ir
from controlplane.translate.counting import SECONDS
from controlplane.translate.descriptors import ROUTE_KEY, address_range, entry, levels
from controlplane.translate.filters.discovery import discovered, extension
from controlplane.translate.paths import path_regex
from controlplane.translate.services import QUOTA_CLUSTER
from controlplane.translate.wire import duration, packed

NAME: str = "dragoman/quota"
KEY_NAME: str = "dragoman/quota-key"
DOMAIN_KEY = "dragoman.domain"
"""The entry of a bucket's id that tells the service which limits it is about: all are reported on one stream."""

_STREAM_DOMAIN = "dragoman"
_LIMITS = "dragoman.quota.limits"
_SCOPE = "dragoman.quota.scope"
# Envoy 1.40 reports every five seconds, whatever is said here.
_REPORT_S = 5
_Predicate: Any = Matcher.MatcherList.Predicate


class KeyFilter:
    """Names a route's limits, and whose requests count together towards them, for the filter that follows."""

    NAME = KEY_NAME

    def listener_filter(self) -> HttpFilter:
        """Returns the filter as it stands on every listener, disabled."""
        return HttpFilter(name=KEY_NAME, typed_config=packed(Config()), disabled=True)

    def route_config(self, rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
        """Returns the names."""
        limit = policies.global_limit
        if limit is None or not limit.has_quotas:
            return None
        values = [_state(_LIMITS, limit.domain)]
        if policies.limit_scope:
            values.append(_state(_SCOPE, policies.limit_scope))
        return packed(Config(on_request_headers=values))


class QuotaFilter:
    """Counts requests into buckets, and refuses what is beyond this Envoy's share."""

    NAME = NAME

    def listener_filter(self) -> HttpFilter:
        """Returns the filter as it stands on every listener, disabled."""
        return discovered(NAME, RateLimitQuotaFilterConfig, disabled=True)

    def route_config(self, rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
        """Returns what turns the filter on."""
        limit = policies.global_limit
        if limit is None or not limit.has_quotas:
            return None
        # Envoy refuses any settings of a route for this filter, but for optional ones, which turn it on all the same.
        return packed(FilterConfig(is_optional=True, config=packed(RateLimitQuotaOverride())))


ALL = (KeyFilter(), QuotaFilter())


def extension_config(limits: Iterable[ir.GlobalLimit]) -> bytes:
    """Encodes the buckets of all the limits that routes of a Gateway may name."""
    matcher = Matcher()
    for limit in sorted(limits, key=lambda each: each.domain):
        matcher.matcher_tree.input.CopyFrom(_input(FilterStateInput(key=_LIMITS)))
        matcher.matcher_tree.exact_match_map.map[limit.domain].matcher.CopyFrom(_rules(limit))
    config = RateLimitQuotaFilterConfig(
        rlqs_server=GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=QUOTA_CLUSTER)),
        domain=_STREAM_DOMAIN,
        bucket_matchers=matcher,
    )
    return extension(NAME, config)


def _state(key: str, value: str) -> FilterStateValue:
    # A name may hold what would be a command of the formatter.
    text = SubstitutionFormatString(text_format_source={"inline_string": value.replace("%", "%%")})
    return FilterStateValue(object_key=key, factory_key="envoy.string", format_string=text)


def _rules(limit: ir.GlobalLimit) -> Matcher:
    """The first rule that matches counts a request: one for all requests is the last."""
    matcher = Matcher()
    for index, rule in enumerate(limit.rules):
        if not rule.counting.quota:
            continue
        action = Matcher.OnMatch(
            action=XdsExtension(name="bucket", typed_config=packed(_bucket(limit, index, rule))),
        )
        wanted = [*_predicates(rule)]
        if not wanted:
            matcher.on_no_match.CopyFrom(action)
            break
        both = _Predicate(and_matcher={"predicate": wanted}) if len(wanted) > 1 else wanted[0]
        matcher.matcher_list.matchers.append(Matcher.MatcherList.FieldMatcher(predicate=both, on_match=action))
    return matcher


def bucket_id(limit: ir.GlobalLimit, index: int, rule: ir.LimitRule) -> Iterator[tuple[str, str | None]]:
    """Yields the entries of the id of the bucket of the rule at `index`; None for the value that the route says."""
    yield from ((DOMAIN_KEY, limit.domain), entry(index, rule), *levels(rule))
    if not rule.shared:
        yield ROUTE_KEY, rule.scope or None


def passes_without_share(limit: ir.GlobalLimit, rule: ir.LimitRule) -> bool:
    """Says whether an Envoy that no share is assigned to lets the requests of a rule pass."""
    return (rule.counting.on_store_error or ("Allow" if limit.fail_open else "Deny")) != "Deny"


def _bucket(limit: ir.GlobalLimit, index: int, rule: ir.LimitRule) -> RateLimitQuotaBucketSettings:
    settings = RateLimitQuotaBucketSettings(reporting_interval=duration(_REPORT_S))
    entries = settings.bucket_id_builder.bucket_id_builder
    for key, value in bucket_id(limit, index, rule):
        if value is not None:
            entries[key].string_value = value
        else:
            scope = TypedExtensionConfig(name="scope", typed_config=packed(FilterStateInput(key=_SCOPE)))
            entries[key].custom_value.CopyFrom(scope)
    # Only ever all or nothing: with a token bucket here, Envoy 1.40 crashes.
    passes = passes_without_share(limit, rule)
    blanket = RateLimitStrategy.ALLOW_ALL if passes else RateLimitStrategy.DENY_ALL
    settings.no_assignment_behavior.fallback_rate_limit.blanket_rule = blanket
    retry_s = math.ceil(SECONDS[rule.unit] / max(1, rule.requests))
    header = HeaderValueOption(header=HeaderValue(key="retry-after", value=str(retry_s)))
    settings.deny_response_settings.response_headers_to_add.append(header)
    return settings


def _predicates(rule: ir.LimitRule) -> Iterator[Any]:
    """Yields what must hold for the rule to be about a request."""
    for each in rule.headers:
        yield _text(HttpRequestHeaderMatchInput(header_name=each.name), each.kind, each.value, invert=each.invert)
    for path in rule.paths:
        found = _text(HttpRequestHeaderMatchInput(header_name=":path"), "RegularExpression", path_regex(path))
        yield _not(found) if path.invert else found
    for methods in rule.methods:
        one_of = [
            _text(HttpRequestHeaderMatchInput(header_name=":method"), "Exact", method, invert=invert)
            for method, invert in methods
        ]
        yield _Predicate(or_matcher={"predicate": one_of}) if len(one_of) > 1 else one_of[0]
    for each in rule.query:
        yield _text(HttpRequestQueryParamMatchInput(query_param=each.name), each.kind, each.value, invert=each.invert)
    for source in rule.sources:
        found = _single(SourceIPInput())
        ranges = [address_range(source.cidr)]
        within = XdsExtension(name="ip", typed_config=packed(Ip(cidr_ranges=ranges, stat_prefix="quota")))
        found.single_predicate.custom_match.CopyFrom(within)
        yield _not(found) if source.invert else found


def _text(input_: Message, kind: str, value: str, *, invert: bool = False) -> Any:
    found = _single(input_)
    if kind == "RegularExpression":
        found.single_predicate.value_match.safe_regex.regex = value
        found.single_predicate.value_match.safe_regex.google_re2.SetInParent()
    else:
        found.single_predicate.value_match.exact = value
    return _not(found) if invert else found


def _single(input_: Message) -> Any:
    return _Predicate(single_predicate={"input": _input(input_)})


def _not(predicate: Any) -> Any:
    return _Predicate(not_matcher=predicate)


def _input(input_: Message) -> XdsExtension:
    return XdsExtension(name=input_.DESCRIPTOR.name, typed_config=packed(input_))
