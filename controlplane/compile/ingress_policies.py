"""The policies that annotations of an Ingress ask for: who is let in, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from controlplane.api.ingress import Ingress
from controlplane.api.meta import GATEWAY_GROUP, POLICY_GROUP
from controlplane.compile.ingress_annotations import Settings, field_of
from controlplane.compile.ingress_documents import Made, Place, document, placed

_MAX_TARGETS: Final = 64
_EVERY_ADDRESS: Final = ("0.0.0.0/0", "::/0")


def policies(ingress: Ingress, asked: Settings, routes: Sequence[Made]) -> Iterator[Made]:
    """Yields the policies of the routes that forward."""
    for index in range(0, len(routes), _MAX_TARGETS):
        some = routes[index : index + _MAX_TARGETS]
        refs = [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "name": each.key.name} for each in some]
        targets = {"targetRefs": refs}
        if (asked.allow is not None or asked.deny) and not asked.blocked:
            name = "whitelist-source-range" if asked.allow is not None else "denylist-source-range"
            spec = {**targets, "authorization": _authorization(asked)}
            yield _policy(ingress, "SecurityPolicy", f"sources-{index // _MAX_TARGETS}", spec, name)
        if asked.limits:
            name = "limit-rps" if asked.limits[0][0] == "Second" else "limit-rpm"
            spec = {**targets, "rateLimit": {"local": {"rules": _limits(asked)}}}
            yield _policy(ingress, "BackendTrafficPolicy", f"limits-{index // _MAX_TARGETS}", spec, name)


def _policy(ingress: Ingress, kind: str, part: str, spec: Mapping[str, Any], annotation: str) -> Made:
    made = document(ingress, POLICY_GROUP, kind, part, spec)
    return placed(made, [("", Place(ingress.key, field_of(annotation)))])


def _authorization(asked: Settings) -> Mapping[str, Any]:
    rules: list[Mapping[str, Any]] = []
    if asked.deny:
        rules.append({"action": "Deny", "principal": {"clientCIDRs": list(asked.deny)}})
    if asked.allow:
        rules.append({"action": "Allow", "principal": {"clientCIDRs": list(asked.allow)}})
    return {"rules": rules, "defaultAction": "Allow" if asked.allow is None else "Deny"}


def _limits(asked: Settings) -> list[Mapping[str, Any]]:
    return [
        {
            "clientSelectors": [{"sourceCIDR": {"type": "Distinct", "value": addresses}}],
            "limit": {"requests": requests, "unit": unit},
        }
        for unit, requests in asked.limits
        for addresses in _EVERY_ADDRESS
    ]
