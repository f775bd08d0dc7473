# pyright: standard, reportAttributeAccessIssue=false
"""A name for each request that counts towards a limit of concurrency, by Envoy's set_filter_state filter.

It has to be unique, and no client may choose it: whoever sends the name of another request would be counted as that.
So it is neither `x-request-id` nor any header, and it leaves Envoy in descriptors alone.
"""

from __future__ import annotations

from envoy.config.core.v3.substitution_format_string_pb2 import SubstitutionFormatString
from envoy.config.route.v3.route_components_pb2 import FilterConfig
from envoy.extensions.filters.common.set_filter_state.v3.value_pb2 import FilterStateValue
from envoy.extensions.filters.http.set_filter_state.v3.set_filter_state_pb2 import Config
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import HttpFilter
from google.protobuf.any_pb2 import Any as AnyMessage

from controlplane import ir
from controlplane.translate.requests import REQUEST_KEY
from controlplane.translate.wire import packed

NAME: str = "dragoman/request-id"


def listener_filter() -> HttpFilter:
    """Returns the filter as it stands on every listener, disabled."""
    unique = SubstitutionFormatString(text_format_source={"inline_string": "%UNIQUE_ID%"})
    value = FilterStateValue(object_key=REQUEST_KEY, factory_key="envoy.string", format_string=unique, read_only=True)
    return HttpFilter(name=NAME, typed_config=packed(Config(on_request_headers=[value])), disabled=True)


def route_config(rule: ir.Rule, policies: ir.Policies) -> AnyMessage | None:
    """Returns what enables the filter: that a limit counts requests until they end."""
    limit = policies.global_limit
    if limit is None or not limit.counts_until_done:
        return None
    return packed(FilterConfig(config=AnyMessage()))
