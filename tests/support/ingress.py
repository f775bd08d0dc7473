"""Ingresses, their class and the Gateway that carries them, as data."""

from __future__ import annotations

from typing import Any

from tests.support import manifests as m

NETWORKING = "networking.k8s.io/v1"
NGINX = "nginx.ingress.kubernetes.io/"


def carrier(name: str = "edge", *, namespace: str = "demo", listeners: list[Any] | None = None) -> m.Manifest:
    """The Gateway: Ingresses of every namespace are on its listeners, and bring their certificates."""
    everybody = {"namespaces": {"from": "All"}}
    http = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": everybody}
    spec = {"gatewayClassName": "dragoman", "allowedListeners": everybody, "listeners": listeners or [http]}
    return m.manifest(m.GATEWAY_API, "Gateway", name, spec, namespace=namespace)


def ingress_class(
    name: str = "dragoman",
    *,
    gateway: str | None = "edge",
    namespace: str = "demo",
    default: bool = False,
    controller: str = "dragoman.dev/ingress-controller",
) -> m.Manifest:
    """A class of ours, whose Ingresses a Gateway carries."""
    ref = {"apiGroup": "gateway.networking.k8s.io", "kind": "Gateway", "scope": "Namespace"}
    spec = {
        "controller": controller,
        **({"parameters": {**ref, "name": gateway, "namespace": namespace}} if gateway else {}),
    }
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    return m.manifest(NETWORKING, "IngressClass", name, spec, namespace=None, metadata={"annotations": annotations})


def backend(service: str, port: int | str = 80) -> dict[str, Any]:
    """Where requests go: a port of a Service, by number or name."""
    return {"service": {"name": service, "port": {"name": port} if isinstance(port, str) else {"number": port}}}


def path(value: str, service: str = "echo", *, type_: str = "Prefix", port: int | str = 80) -> dict[str, Any]:
    """One path."""
    return {"path": value, "pathType": type_, "backend": backend(service, port)}


def rule(host: str | None, *paths: dict[str, Any]) -> dict[str, Any]:
    """The paths of a host, or of every one."""
    return {**({"host": host} if host else {}), "http": {"paths": [*paths]}}


def ingress(
    name: str,
    *rules: dict[str, Any],
    namespace: str = "demo",
    class_name: str | None = "dragoman",
    annotations: dict[str, str] | None = None,
    created: str | None = None,
    **spec: Any,
) -> m.Manifest:
    """An Ingress; `annotations` are those of ingress-nginx, by their names without its prefix."""
    metadata: dict[str, Any] = {"annotations": {f"{NGINX}{key}": value for key, value in (annotations or {}).items()}}
    if created:
        metadata["creationTimestamp"] = created
    class_ = {"ingressClassName": class_name} if class_name else {}
    whole = {**class_, **({"rules": [*rules]} if rules else {}), **spec}
    return m.manifest(NETWORKING, "Ingress", name, whole, namespace=namespace, metadata=metadata)
