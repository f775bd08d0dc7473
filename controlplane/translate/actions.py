# pyright: standard, reportAttributeAccessIssue=false
"""What a rule does with a request, as Envoy's route action, redirect or direct response."""

from __future__ import annotations

import json
import re

from envoy.config.core.v3.base_pb2 import DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent
from envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    RedirectAction,
    RetryPolicy,
    Route,
    RouteAction,
    WeightedCluster,
)
from envoy.type.matcher.v3.regex_pb2 import RegexMatchAndSubstitute, RegexMatcher
from envoy.type.v3.percent_pb2 import FractionalPercent

from controlplane.ir import (
    NO_EDIT,
    Action,
    Deny,
    Forward,
    HeaderEdit,
    Mirror,
    PathMatch,
    PathRewrite,
    Redirect,
    Respond,
    Retry,
    WeightedBackend,
)
from controlplane.translate.wire import duration

# The name of no cluster: requests that a weight sends there are answered with 500.
INVALID_BACKEND = "invalid-backend"
# What has not reached a backend may be sent again unasked; a route that asks for retries has them on every loss of a
# connection and every try that takes too long (Gateway API: HTTPRouteRetry).
_RETRY_UNASKED = "connect-failure,refused-stream,reset-before-request"
_RETRY_ON = "connect-failure,refused-stream,reset"
_REDIRECT_CODES = {
    301: RedirectAction.MOVED_PERMANENTLY,
    302: RedirectAction.FOUND,
    303: RedirectAction.SEE_OTHER,
    307: RedirectAction.TEMPORARY_REDIRECT,
    308: RedirectAction.PERMANENT_REDIRECT,
}
_WELL_KNOWN_PORTS = {"http": 80, "https": 443}
_APPEND = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_OVERWRITE = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD


def set_action(route: Route, action: Action, *, path: PathMatch, port: int, https: bool) -> None:
    """Puts the action into a route that matches `path` on a listener of this port."""
    if isinstance(action, Redirect):
        route.redirect.CopyFrom(_redirect(action, path, port, "https" if https else "http"))
    elif isinstance(action, Respond) or all(backend.cluster is None for backend in action.backends):
        route.direct_response.CopyFrom(_respond(action if isinstance(action, Respond) else _invalid(action)))
    else:
        _forward(route.route, action, path)


def set_denial(route: Route, deny: Deny) -> None:
    """Has a route answer that its guard is not in force; clients are not told why."""
    error = "unavailable" if deny.status == 503 else "misconfigured"
    body = json.dumps({"error": error, "message": "The gateway cannot decide on requests for this route now"})
    route.direct_response.CopyFrom(_respond(Respond(deny.status, f"{body}\n")))
    content_type = HeaderValue(key="content-type", value="application/json")
    route.response_headers_to_add.append(HeaderValueOption(header=content_type, append_action=_OVERWRITE))


def edit_headers(request: HeaderEdit, response: HeaderEdit, target: Route | WeightedCluster.ClusterWeight) -> None:
    """Puts header modifications into a route or a weighted cluster (Gateway API: HTTPHeaderFilter)."""
    if request is not NO_EDIT:
        target.request_headers_to_add.extend(_values(request))
        target.request_headers_to_remove.extend(request.remove)
    if response is not NO_EDIT:
        target.response_headers_to_add.extend(_values(response))
        target.response_headers_to_remove.extend(response.remove)


def default_retry_policy() -> RetryPolicy:
    """Returns the retries that are safe for every request: none of them has reached a backend."""
    return RetryPolicy(retry_on=_RETRY_UNASKED, num_retries={"value": 1})


def _values(edit: HeaderEdit) -> list[HeaderValueOption]:
    options = ((_OVERWRITE, edit.set), (_APPEND, edit.add))
    return [
        # A percent sign starts one of Envoy's command operators; a header's value is what is written.
        HeaderValueOption(header=HeaderValue(key=name, value=value.replace("%", "%%")), append_action=action)
        for action, values in options
        for name, value in values
    ]


def _forward(action: RouteAction, forward: Forward, path: PathMatch) -> None:
    action.cluster_not_found_response_code = (
        RouteAction.SERVICE_UNAVAILABLE if forward.grpc else RouteAction.INTERNAL_SERVER_ERROR
    )
    only = forward.backends[0] if len(forward.backends) == 1 else None
    if only is not None and only.request_headers == only.response_headers == NO_EDIT:
        action.cluster = str(only.cluster)
    else:
        action.weighted_clusters.clusters.extend(_weighted(backend) for backend in forward.backends)
    if forward.hostname is not None:
        action.host_rewrite_literal = forward.hostname
    if forward.path is not None:
        _rewrite_path(action, forward.path, path)
    action.request_mirror_policies.extend(_mirror(mirror) for mirror in forward.mirrors)
    _set_timeouts(action, forward)


def _weighted(backend: WeightedBackend) -> WeightedCluster.ClusterWeight:
    weight = WeightedCluster.ClusterWeight(
        name=INVALID_BACKEND if backend.cluster is None else str(backend.cluster), weight={"value": backend.weight}
    )
    edit_headers(backend.request_headers, backend.response_headers, weight)
    return weight


def _invalid(forward: Forward) -> Respond:
    """What is answered where no backend can be used; Envoy makes a gRPC status of it: 503 is UNAVAILABLE."""
    return Respond(503 if forward.grpc else 500)


def _set_timeouts(action: RouteAction, forward: Forward) -> None:
    request, backend = forward.request_timeout_s, forward.backend_timeout_s
    if forward.grpc:
        # A stream may be open for days; a deadline comes with the call, as `grpc-timeout`.
        action.timeout.CopyFrom(duration(0))
        action.max_stream_duration.grpc_timeout_header_max.CopyFrom(duration(0))
    if forward.retry is not None:
        action.retry_policy.CopyFrom(_retry(forward.retry))
        if backend:
            action.retry_policy.per_try_timeout.CopyFrom(duration(backend))
            # Envoy's 15 s for all tries together would cut off longer ones.
            request = request or 0.0
    elif backend:
        request = min(backend, request) if request else backend
    if request is not None:
        action.timeout.CopyFrom(duration(request))
    if forward.idle_timeout_s is not None:
        action.idle_timeout.CopyFrom(duration(forward.idle_timeout_s))


def _retry(retry: Retry) -> RetryPolicy:
    codes = ",retriable-status-codes" if retry.codes else ""
    policy = RetryPolicy(
        retry_on=f"{_RETRY_ON}{codes}", num_retries={"value": retry.attempts}, retriable_status_codes=retry.codes
    )
    if retry.backoff_s is not None:
        policy.retry_back_off.base_interval.CopyFrom(duration(max(retry.backoff_s, 0.001)))
        policy.retry_back_off.max_interval.CopyFrom(duration(max(retry.backoff_s * 10, 0.001)))
    return policy


def _mirror(mirror: Mirror) -> RouteAction.RequestMirrorPolicy:
    share = round(1_000_000 * mirror.numerator / mirror.denominator)
    return RouteAction.RequestMirrorPolicy(
        cluster=str(mirror.cluster),
        disable_shadow_host_suffix_append=True,
        runtime_fraction=RuntimeFractionalPercent(
            default_value=FractionalPercent(numerator=share, denominator=FractionalPercent.MILLION)
        ),
    )


def _rewrite_path(action: RouteAction | RedirectAction, rewrite: PathRewrite, matched: PathMatch) -> None:
    if rewrite.kind == "ReplaceFullPath":
        if isinstance(action, RedirectAction):
            action.path_redirect = rewrite.value
        else:
            action.regex_rewrite.CopyFrom(_substitute("^[^?]*", rewrite.value))
        return
    if rewrite.kind == "ReplaceRegexMatch":
        pattern = RegexMatcher(regex=rewrite.pattern)
        action.regex_rewrite.CopyFrom(RegexMatchAndSubstitute(pattern=pattern, substitution=rewrite.value))
        return
    new = rewrite.value.rstrip("/")
    if matched.value == "/":
        action.prefix_rewrite = f"{new}/"
    elif new:
        action.prefix_rewrite = new
    else:
        # `/foo/bar` becomes `/bar`, and `/foo` becomes `/`: the slash after the prefix goes with it.
        action.regex_rewrite.CopyFrom(_substitute(f"^{re.escape(matched.value)}/*", "/"))


def _substitute(pattern: str, value: str) -> RegexMatchAndSubstitute:
    return RegexMatchAndSubstitute(pattern=RegexMatcher(regex=pattern), substitution=value.replace("\\", r"\\"))


def _redirect(redirect: Redirect, path: PathMatch, port: int, listener_scheme: str) -> RedirectAction:
    action = RedirectAction(response_code=_REDIRECT_CODES[redirect.status])
    scheme = redirect.scheme or listener_scheme
    if redirect.scheme is not None:
        action.scheme_redirect = redirect.scheme
    if redirect.hostname is not None:
        action.host_redirect = redirect.hostname
    if redirect.path is not None:
        _rewrite_path(action, redirect.path, path)
    target = redirect.port or (_WELL_KNOWN_PORTS[redirect.scheme] if redirect.scheme else port)
    action.port_redirect = target
    if redirect.port is None and _WELL_KNOWN_PORTS[scheme] == target:
        action.port_redirect = 0
    return action


def _respond(respond: Respond) -> DirectResponseAction:
    action = DirectResponseAction(status=respond.status)
    if respond.body:
        action.body.CopyFrom(DataSource(inline_string=respond.body))
    return action
