"""HTTPRouteFilter: what a rule refers to with a filter of type ExtensionRef."""

from __future__ import annotations

from controlplane.api.httproutefilter import HTTPRouteFilter
from controlplane.api.meta import ENVOY_GATEWAY_GROUP, POLICY_GROUP, LocalObjectReference, ObjectKey
from controlplane.compile.view import View
from controlplane.conditions import Condition, false
from controlplane.ir import PathRewrite

_GROUPS = (POLICY_GROUP, ENVOY_GATEWAY_GROUP)


def path_rewrite(view: View, namespace: str, ref: LocalObjectReference, field: str) -> PathRewrite | Condition:
    """Returns how the filter rewrites paths, or why the rule cannot do what it asks for and answers with 500."""
    key = ObjectKey(ref.group, ref.kind, namespace, ref.name)
    if key.group not in _GROUPS or key.kind != "HTTPRouteFilter":
        return _fault(f"{key.kind} is not a kind of filter; expected an HTTPRouteFilter", f"{field}.kind")
    found = view.get(key)
    if not isinstance(found, HTTPRouteFilter):
        return _fault(f"{key} does not exist, or never was valid", f"{field}.name")
    spec = found.spec
    if spec.direct_response is not None or spec.credential_injection is not None or spec.url_rewrite is None:
        return _fault(f"{key} asks for what is not supported yet", f"{field}.name")
    if spec.url_rewrite.hostname is not None or spec.url_rewrite.path is None:
        return _fault(f"{key} asks for what is not supported yet", f"{field}.name")
    change = spec.url_rewrite.path.replace_regex_match
    return PathRewrite("ReplaceRegexMatch", change.substitution, change.pattern)


def _fault(message: str, field: str) -> Condition:
    return false("Accepted", "UnsupportedValue", f"{message}; the rule answers with 500", field)
