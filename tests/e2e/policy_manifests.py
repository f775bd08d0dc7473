"""Manifests of policies for tests, and a Gateway whose routes they are about."""

from __future__ import annotations

import json
from typing import Any

from tests.support import manifests as m
from tests.support.gateway import GATEWAY_CLASS
from tests.support.tokens import SigningKey, jwks
from tests.support.upstream import Upstream

OURS = "dragoman.dev/v1alpha1"
ENVOY_GATEWAY = "gateway.envoyproxy.io/v1alpha1"
Manifest = dict[str, Any]


def target(kind: str, name: str, section: str | None = None) -> Manifest:
    ref = {"group": "gateway.networking.k8s.io", "kind": kind, "name": name}
    return {**ref, "sectionName": section} if section else ref


def security(name: str, *targets: Manifest, api: str = OURS, **spec: Any) -> Manifest:
    return m.manifest(api, "SecurityPolicy", name, {"targetRefs": list(targets or [target("HTTPRoute", name)]), **spec})


def limits(name: str, rate_limit: Manifest, *targets: Manifest, api: str = OURS) -> Manifest:
    refs = list(targets or [target("HTTPRoute", name)])
    return m.manifest(api, "BackendTrafficPolicy", name, {"targetRefs": refs, "rateLimit": rate_limit})


def secret(name: str, **data: str) -> Manifest:
    return m.manifest("v1", "Secret", name, None, stringData={key.replace("_", "-"): data[key] for key in data})


def provider(key: SigningKey, name: str = "main", **more: Any) -> Manifest:
    inline = {"type": "Inline", "inline": json.dumps(jwks(key))}
    return {"name": name, "issuer": "https://issuer.example", "localJWKS": inline, **more}


def routes(upstream: Upstream, *names: str) -> list[Any]:
    """A Gateway with one route per name, `/NAME` to the upstream."""
    address = {"ip": {"address": "127.0.0.1", "port": upstream.port}}
    backend = m.manifest(OURS, "Backend", "echo", {"endpoints": [address]})
    return [GATEWAY_CLASS, m.gateway(), backend, *(route(name) for name in names)]


def route(name: str, *paths: str) -> Manifest:
    ref = {"group": "dragoman.dev", "kind": "Backend", "name": "echo"}
    rules = [
        {"name": path.strip("/"), "matches": [{"path": {"value": path}}], "backendRefs": [ref]}
        for path in paths or (f"/{name}",)
    ]
    return m.route(name, rules)
