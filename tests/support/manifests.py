"""Manifests for tests of the pipeline, as data."""

from __future__ import annotations

from typing import Any

GATEWAY_API = "gateway.networking.k8s.io/v1"
Manifest = dict[str, Any]


def manifest(api: str, kind: str, name: str, spec: Any, *, namespace: str | None = "demo", **more: Any) -> Manifest:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {}), **more.pop("metadata", {})}
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": metadata,
        **({"spec": spec} if spec is not None else {}),
        **more,
    }


def gateway_class(controller: str = "dragoman.dev/gateway-controller") -> Manifest:
    return manifest(GATEWAY_API, "GatewayClass", "dragoman", {"controllerName": controller}, namespace=None)


def gateway(name: str = "edge", *, listeners: list[Any] | None = None) -> Manifest:
    default = [{"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}]
    spec = {"gatewayClassName": "dragoman", "listeners": listeners or default}
    return manifest(GATEWAY_API, "Gateway", name, spec)


def route(
    name: str, rules: list[Any], *, hostnames: list[str] | None = None, parent: str = "edge", namespace: str = "demo"
) -> Manifest:
    spec = {"parentRefs": [{"name": parent, "namespace": "demo"}], "hostnames": hostnames or [], "rules": rules}
    return manifest(GATEWAY_API, "HTTPRoute", name, spec, namespace=namespace)


def rule(path: str, service: str, *, port: int = 80, namespace: str | None = None, kind: str = "PathPrefix") -> Any:
    ref = {"name": service, "port": port, **({"namespace": namespace} if namespace else {})}
    return {"matches": [{"path": {"type": kind, "value": path}}], "backendRefs": [ref]}


def service(name: str, *, port: int = 80, namespace: str = "demo", protocol: str | None = None) -> Manifest:
    ports = [{"port": port, **({"appProtocol": protocol} if protocol else {})}]
    return manifest("v1", "Service", name, {"ports": ports}, namespace=namespace)


def endpoint_slice(service_name: str, *addresses: str, namespace: str = "demo", suffix: str = "a") -> Manifest:
    return manifest(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        f"{service_name}-{suffix}",
        None,
        namespace=namespace,
        metadata={"labels": {"kubernetes.io/service-name": service_name}},
        addressType="IPv4",
        ports=[{"port": 3000}],
        endpoints=[{"addresses": [address]} for address in addresses],
    )


def grant(namespace: str, *, to: str = "Service", source: str = "demo", source_kind: str = "HTTPRoute") -> Manifest:
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": source_kind, "namespace": source}],
        "to": [{"group": "", "kind": to}],
    }
    return manifest(GATEWAY_API, "ReferenceGrant", f"from-{source}", spec, namespace=namespace)


def backend(name: str, port: int, *, address: str = "127.0.0.1") -> Manifest:
    endpoints = [{"ip": {"address": address, "port": port}}]
    return manifest("dragoman.dev/v1alpha1", "Backend", name, {"endpoints": endpoints})


def to_backend(path: str, *names: str, **more: Any) -> Any:
    refs = [{"group": "dragoman.dev", "kind": "Backend", "name": name} for name in names]
    return {"matches": [{"path": {"value": path}}], "backendRefs": refs, **more}
