"""Policies and Plans, at random."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.support import manifests as m
from tests.unit.pipeline.edited_names import CREATED, JWKS, OURS, THEIRS, URIS, Manifest, one_of, stamped


def _target(kind: str, name: str, section: str | None = None) -> Manifest:
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return {**ref, "sectionName": section} if section else ref


TARGETS = [
    {"targetRefs": [_target("Gateway", "edge")]},
    {"targetRefs": [_target("Gateway", "edge", "l0")]},
    {"targetRefs": [_target("HTTPRoute", "r1")]},
    {"targetRefs": [_target("HTTPRoute", "r2"), _target("HTTPRoute", "r3")]},
    {"targetRefs": [_target("HTTPRoute", "r1", "rule-0")]},
    {"targetSelectors": [{"kind": "HTTPRoute", "matchLabels": {"tier": "gold"}}]},
    {"targetSelectors": [{"kind": "Gateway", "matchLabels": {"tier": "gold"}}]},
    {"targetRefs": [_target("GRPCRoute", "r1")]},
    {"targetRefs": [_target("ListenerSet", "set-1"), _target("ListenerSet", "set-2", "s0")]},
]


def provider(source: Manifest, name: str = "main", **more: Any) -> Manifest:
    return {"name": name, "issuer": "https://issuer.example", **source, **more}


KEY_SETS = [
    *({"localJWKS": {"type": "Inline", "inline": text}} for text in JWKS),
    {"localJWKS": {"type": "ValueRef", "valueRef": {"group": "", "kind": "ConfigMap", "name": "text"}}},
    *({"remoteJWKS": {"uri": uri}} for uri in URIS),
]
_tokens = st.builds(
    lambda source, claims, optional: {"jwt": {"optional": optional, "providers": [provider(source, **claims)]}},
    one_of(KEY_SETS),
    one_of([{}, {"claimToHeaders": [{"header": "x-user", "claim": "sub"}]}]),
    st.booleans(),
)
_api_keys = st.builds(
    lambda refs, forward: {"apiKeyAuth": {"credentialRefs": refs, "extractFrom": [{"headers": ["x-key"]}], **forward}},
    st.lists(one_of([{"name": "keys-1"}, {"name": "keys-2"}, {"name": "keys-1", "namespace": "other"}]), min_size=1),
    one_of([{}, {"forwardClientIDHeader": "x-client"}]),
)
_consumers = st.builds(lambda scopes: {"consumers": {"requiredScopes": scopes}}, one_of([[], ["read"]]))
_PRINCIPALS = [
    {"clientCIDRs": ["10.0.0.0/8"]},
    {"jwt": {"provider": "main", "scopes": ["read"]}},
    {"headers": [{"name": "x-user", "values": ["ann"]}]},
]
_authorizations = st.builds(
    lambda action, principal, default: {
        "authorization": {"defaultAction": default, "rules": [{"action": action, "principal": principal}]}
    },
    one_of(["Allow", "Deny"]),
    one_of(_PRINCIPALS),
    one_of(["Allow", "Deny"]),
)
_origins = st.builds(lambda origin: {"cors": {"allowOrigins": [origin]}}, one_of(["*", "https://a.example"]))
_FLAWS: list[Manifest] = [
    {"unknown": 1},  # of no known shape
    {"jwt": {"providers": [provider({"localJWKS": {"type": "Inline", "inline": "{}"}})]}},  # no key
    {"basicAuth": {"users": {"name": "keys-1"}}},  # not supported
]
_manners = one_of(
    [{}, {}, {}, {"mergeType": "Replace"}, {"allowRouteOverride": True}, {"dropParentAuthentication": True}]
)


@st.composite
def security(draw: st.DrawFn) -> Manifest:
    spec: Manifest = dict(draw(one_of(TARGETS)))
    for part in draw(
        st.lists(st.one_of(_tokens, _api_keys, _consumers, _authorizations, _origins), min_size=1, max_size=3)
    ):
        spec |= part
    spec |= draw(_manners)
    if draw(one_of([False, False, False, True])):
        spec |= draw(one_of(_FLAWS))
    api = draw(one_of([OURS, OURS, THEIRS]))
    return stamped(m.manifest(api, "SecurityPolicy", draw(one_of(["s1", "s2", "s3"])), spec), draw(one_of(CREATED)))


_SELECTORS: list[Manifest] = [
    {},
    {"clientSelectors": [{"headers": [{"name": "x-user", "type": "Distinct"}]}]},
    {"clientSelectors": [{"sourceCIDR": {"value": "10.0.0.0/8"}}]},
]


@st.composite
def limits(draw: st.DrawFn) -> Manifest:
    spec: Manifest = dict(draw(one_of(TARGETS)))
    rule = {"limit": {"requests": draw(one_of([1, 5])), "unit": "Minute"}, **draw(one_of(_SELECTORS))}
    kind = draw(one_of(["local", "global"]))
    if kind == "global" and draw(st.booleans()):
        rule["shared"] = True
    spec["rateLimit"] = {kind: {"rules": [rule]}}
    if kind == "global" and draw(st.booleans()):
        spec["rateLimit"]["global"] |= draw(one_of(_PLANNED))
    merges = [{"mergeType": each} for each in ("Replace", "StrategicMerge", "JSONMerge")]
    spec |= draw(one_of([{}, {}, *merges, {"retry": {"numRetries": 2}}, {"unknown": 1}]))
    api = draw(one_of([OURS, OURS, THEIRS]))
    return stamped(m.manifest(api, "BackendTrafficPolicy", draw(one_of(["t1", "t2"])), spec), draw(one_of(CREATED)))


_PLANNED: list[Manifest] = [
    {"plans": {"default": "free"}, "localShield": True},
    {"plans": {"default": "paid", "anonymous": "free", "identity": {"from": "Token"}}},
    {"plans": {"default": "far", "refs": [{"name": "free"}, {"name": "far", "namespace": "other"}]}},
    {
        "plans": {"default": "free", "identity": {"from": "Headers", "plan": "x-plan", "consumer": "x-user"}},
        "rules": [],
    },
    {"plans": {}},
]
plans = st.builds(
    lambda place, limits, more: m.manifest(OURS, "Plan", place[0], {"limits": limits, **more}, namespace=place[1]),
    one_of([("free", "demo"), ("paid", "demo"), ("far", "other")]),
    st.lists(
        st.builds(
            lambda requests, more: {"requests": requests, "unit": "Minute", **more},
            one_of([1, 5]),
            one_of([{}, {"per": "Tenant"}, {"per": "Plan"}, {"algorithm": "Concurrency"}, {"burst": 5}]),
        ),
        max_size=2,
    ),
    one_of([{}, {}, {"overrides": [{"consumers": ["ann"], "limits": [{"requests": 9, "unit": "Day"}]}]}]),
)
