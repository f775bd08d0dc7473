from __future__ import annotations

import pytest

from tests.unit.api.manifests import accept, fault, read

META = "metadata: {name: a, namespace: demo}"
GATEWAY_API = "apiVersion: gateway.networking.k8s.io/"


def test_the_other_kinds_of_route_are_read_whole() -> None:
    grpc = accept(
        read(f"""
{GATEWAY_API}v1
kind: GRPCRoute
{META}
spec:
  parentRefs: [{{name: edge, sectionName: grpc}}]
  hostnames: [grpc.example.com]
  rules:
  - name: cart
    matches: [{{method: {{service: shop.v1.Cart, method: Add}}, headers: [{{name: a, value: b}}]}}]
    filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{remove: [x]}}}}]
    backendRefs: [{{name: cart, port: 50051, weight: 3}}]
""")
    )
    assert grpc.spec.rules[0].matches[0].method.service == "shop.v1.Cart"
    tls = accept(
        read(f"""
{GATEWAY_API}v1alpha2
kind: TLSRoute
{META}
spec: {{parentRefs: [{{name: edge}}], rules: [{{backendRefs: [{{name: a, port: 443}}]}}]}}
""")
    )
    assert tls.spec.hostnames == ()
    for kind in ("TCPRoute", "UDPRoute"):
        each = accept(
            read(
                f"{{{GATEWAY_API}v1alpha2, kind: {kind}, {META}, spec: {{rules: [{{backendRefs: "
                "[{name: a, port: 53}]}]}}"
            )
        )
        assert each.spec.rules[0].backend_refs[0].port == 53


def test_listener_sets_grants_and_backend_tls_are_read_whole() -> None:
    listeners = accept(
        read(
            f"{{{GATEWAY_API}v1, kind: ListenerSet, {META}, spec: {{parentRef: {{name: edge}}, "
            "listeners: [{name: b, port: 81, protocol: HTTP}]}}"
        )
    )
    assert listeners.spec.parent_ref.kind == "Gateway"
    grant = accept(
        read(
            f"{{{GATEWAY_API}v1beta1, kind: ReferenceGrant, {META}, spec: {{from: [{{group: '', kind: A, "
            "namespace: b}], to: [{group: '', kind: Service}]}}"
        )
    )
    assert (grant.spec.from_[0].namespace, grant.spec.to[0].name) == ("b", None)
    tls = accept(
        read(
            f"{{{GATEWAY_API}v1, kind: BackendTLSPolicy, {META}, spec: {{targetRefs: [{{group: '', kind: Service, "
            "name: a}], validation: {hostname: a.example, wellKnownCACertificates: System, subjectAltNames: "
            "[{type: URI, uri: 'spiffe://a/b'}]}}}"
        )
    )
    assert tls.spec.validation.well_known_ca_certificates == "System"


@pytest.mark.parametrize(
    ("kind", "version", "spec", "path", "message"),
    [
        (
            "GRPCRoute",
            "v1",
            "rules: [{matches: [{method: {}}]}]",
            "spec.rules[0].matches[0].method",
            "set service, meth",
        ),
        (
            "GRPCRoute",
            "v1",
            "rules: [{matches: [{method: {service: a/b}}]}]",
            "spec.rules[0].matches[0].method.service",
            "full name of a gRPC service",
        ),
        ("TLSRoute", "v1", "rules: [{backendRefs: [{name: a, port: 1}]}]", "spec.hostnames", "at least one host name"),
        ("TCPRoute", "v1", "rules: []", "spec.rules", "expected at least 1 entry"),
        ("UDPRoute", "v1", "rules: [{backendRefs: []}]", "spec.rules[0].backendRefs", "expected at least 1 entry"),
        ("ReferenceGrant", "v1", "{from: [], to: [{group: '', kind: A}]}", "spec.from", "expected at least 1 entry"),
        (
            "BackendTLSPolicy",
            "v1",
            "{targetRefs: [{group: '', kind: Service, name: a}], validation: {hostname: a}}",
            "spec.validation.caCertificateRefs",
            "set either caCertificateRefs or wellKnownCACertificates",
        ),
        (
            "BackendTLSPolicy",
            "v1",
            "{targetRefs: [{group: '', kind: Service, name: a}, {group: '', kind: Service, name: a}], "
            "validation: {hostname: a, wellKnownCACertificates: System}}",
            "spec.targetRefs[1]",
            "duplicate reference to Service 'a'",
        ),
    ],
)
def test_other_kinds_are_checked_too(kind: str, version: str, spec: str, path: str, message: str) -> None:
    document = read(f"{{{GATEWAY_API}{version}, kind: {kind}, {META}}}")
    found_path, found_message = fault({**document, "spec": read(spec)})
    assert found_path == path
    assert message in found_message


def test_services_and_their_endpoints_are_read() -> None:
    service = accept(
        read("""
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  clusterIP: 10.0.0.1
  ipFamilies: [IPv4]
  ports: [{name: http, port: 80, targetPort: web, appProtocol: kubernetes.io/h2c}, {name: b, port: 81, targetPort: 1}]
""")
    )
    assert [port.target_port for port in service.spec.ports] == ["web", 1]
    slice_ = accept(
        read("""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: demo, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- addresses: [10.1.0.1]
  conditions: {ready: true}
  targetRef: {kind: Pod, name: web-1}
- addresses: [10.1.0.2]
""")
    )
    assert slice_.service_name == "web"
    assert [endpoint.conditions.ready for endpoint in slice_.endpoints] == [True, None]
