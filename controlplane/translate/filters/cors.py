# pyright: standard, reportAttributeAccessIssue=false
"""Cross-origin resource sharing, by Envoy's cors filter."""

from __future__ import annotations

import re

from envoy.config.core.v3.base_pb2 import RuntimeFractionalPercent
from envoy.extensions.filters.http.cors.v3.cors_pb2 import Cors, CorsPolicy
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from envoy.type.matcher.v3.string_pb2 import StringMatcher
from envoy.type.v3.percent_pb2 import FractionalPercent
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.wire import packed

NAME: str = "envoy.filters.http.cors"


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    return HttpFilter(name=NAME, typed_config=packed(Cors()), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns the CORS policy of a route: that of its own filter, else that of a policy."""
    cors = rule.cors or policies.cors
    return packed(_policy(cors)) if cors is not None else None


def _policy(cors: ir.Cors) -> CorsPolicy:
    policy = CorsPolicy(
        allow_origin_string_match=[_origin(each) for each in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.expose),
        allow_credentials={"value": cors.credentials},
        filter_enabled=RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100)),
        forward_not_matching_preflights={"value": False},
    )
    if cors.max_age_s is not None:
        policy.max_age = str(cors.max_age_s)
    return policy


def _origin(origin: str) -> StringMatcher:
    if origin == "*":
        return StringMatcher(safe_regex=RegexMatcher(regex=".*"))
    if "*" in origin:
        pattern = re.escape(origin).replace(r"\*", ".*")
        return StringMatcher(safe_regex=RegexMatcher(regex=pattern))
    return StringMatcher(exact=origin)
