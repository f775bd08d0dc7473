"""What is wrong and the API server cannot refuse gets a condition with its reason; its neighbours are undisturbed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.cluster_scene import Scene, condition, echo, gateway, leave, manifest, parent, route, rule

SPACE = "t-bad-objects"
POLICY = "dragoman.dev/v1alpha1"
Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Bad:
    """Objects of which the last one is told of: where its condition is, which it is, and words of its message."""

    documents: tuple[dict[str, Any], ...]
    read: Read
    type: str
    reason: str
    words: tuple[str, ...] = ()
    status: str = "False"


def of_parent(found: Any) -> Any:
    return parent(found) or parent(found, name="bad")


def of_object(found: Any) -> Any:
    return found.get("status")


def of_listener(found: Any) -> Any:
    return next(iter(found.get("status", {}).get("listeners", [])), None)


def of_ancestor(found: Any) -> Any:
    return next(iter(found.get("status", {}).get("ancestors", [])), None)


def bad_route(*rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made = route(SPACE, "bad", *rules)
    made["spec"] |= spec
    return made


def to(name: str, **ref: Any) -> dict[str, Any]:
    return rule("/bad") | {"backendRefs": [{"name": name, "port": 80, **ref}]}


def bad_gateway(listener: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made = gateway(SPACE, {"name": "one", "port": 9443, **listener}, name="bad")
    made["spec"] |= spec
    return made


def tls(secret: str, **more: Any) -> dict[str, Any]:
    ref = {"name": secret, **more}
    return {"protocol": "HTTPS", "hostname": "a.example.com", "tls": {"certificateRefs": [ref]}}


def secret(name: str, certificate: str, key: str) -> dict[str, Any]:
    data = {"tls.crt": certificate, "tls.key": key}
    encoded = {each: base64.b64encode(value.encode()).decode() for each, value in data.items()}
    return manifest("Secret", SPACE, name, None, api="v1", type="kubernetes.io/tls", data=encoded)


def policy(kind: str, target: str, name: str = "bad", **spec: Any) -> dict[str, Any]:
    ref = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": target}
    return manifest(kind, SPACE, name, {"targetRefs": [ref], **spec}, api=POLICY)


def backend_tls(ca: str) -> dict[str, Any]:
    spec = {
        "targetRefs": [{"group": "", "kind": "Service", "name": "other"}],
        "validation": {"hostname": "echo", "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": ca}]},
    }
    return manifest("BackendTLSPolicy", SPACE, "bad", spec)


def parent_ref(**ref: Any) -> dict[str, Any]:
    return {"parentRefs": [{"name": "edge", **ref}]}


JWKS = {
    "providers": [
        {"name": "one", "localJWKS": {"type": "ValueRef", "valueRef": {"group": "", "kind": "ConfigMap", "name": "no"}}}
    ]
}
ANY_PATH = {"path": {"type": "RegularExpression", "value": "/a(b"}}
BAD: dict[str, Bad] = {
    "a_backend_that_is_not_there": Bad(
        (bad_route(to("nothing")),), of_parent, "ResolvedRefs", "BackendNotFound", ("nothing",)
    ),
    "a_backend_of_an_unknown_kind": Bad(
        (bad_route(to("echo", group="example.com", kind="Thing")),),
        of_parent,
        "ResolvedRefs",
        "InvalidKind",
        ("Thing",),
    ),
    "a_backend_elsewhere_without_a_grant": Bad(
        (bad_route(to("kubernetes", namespace="default", port=443)),), of_parent, "ResolvedRefs", "RefNotPermitted"
    ),
    "a_port_that_the_service_does_not_have": Bad(
        (bad_route(to("echo", port=81)),), of_parent, "ResolvedRefs", "BackendNotFound", ("81",)
    ),
    "a_listener_that_the_gateway_does_not_have": Bad(
        (bad_route(to("echo"), **parent_ref(sectionName="none")),), of_parent, "Accepted", "NoMatchingParent"
    ),
    "a_port_that_no_listener_has": Bad(
        (bad_route(to("echo"), **parent_ref(port=81)),), of_parent, "Accepted", "NoMatchingParent"
    ),
    "a_regular_expression_that_is_none": Bad(
        (bad_route(rule("/bad", "echo") | {"matches": [ANY_PATH]}),),
        of_parent,
        "Accepted",
        "Invalid",
        ("spec.rules[0].matches[0].path.value",),
    ),
    "a_host_that_the_listener_does_not_serve": Bad(
        (
            bad_gateway({"protocol": "HTTP", "port": 9080, "hostname": "a.example.com"}),
            bad_route(to("echo"), hostnames=["b.example.com"], parentRefs=[{"name": "bad"}]),
        ),
        of_parent,
        "Accepted",
        "NoMatchingListenerHostname",
    ),
    "a_certificate_that_is_not_there": Bad(
        (bad_gateway(tls("nothing")),), of_listener, "ResolvedRefs", "InvalidCertificateRef", ("nothing",)
    ),
    "a_certificate_that_is_none": Bad(
        (secret("broken", "no certificate", "no key"), bad_gateway(tls("broken"))),
        of_listener,
        "ResolvedRefs",
        "InvalidCertificateRef",
        ("broken",),
    ),
    "a_certificate_elsewhere_without_a_grant": Bad(
        (bad_gateway(tls("any", namespace="default")),), of_listener, "ResolvedRefs", "RefNotPermitted"
    ),
    "a_protocol_that_nobody_knows": Bad(
        (bad_gateway({"protocol": "example.com/PIGEON"}),), of_listener, "Accepted", "UnsupportedProtocol"
    ),
    "a_kind_of_route_that_the_protocol_cannot_carry": Bad(
        (bad_gateway({"protocol": "HTTP", "allowedRoutes": {"kinds": [{"kind": "TCPRoute"}]}}),),
        of_listener,
        "ResolvedRefs",
        "InvalidRouteKinds",
    ),
    "parameters_that_are_not_there": Bad(
        (
            bad_gateway(
                {"protocol": "HTTP"},
                infrastructure={"parametersRef": {"group": "dragoman.dev", "kind": "ProxyConfig", "name": "none"}},
            ),
        ),
        of_object,
        "Accepted",
        "InvalidParameters",
        ("none",),
    ),
    "a_policy_for_a_route_that_is_not_there": Bad(
        (policy("SecurityPolicy", "nothing", jwt=JWKS),), of_ancestor, "Accepted", "TargetNotFound", ("nothing",)
    ),
    "keys_that_are_not_there": Bad(
        (bad_route(to("echo")), policy("SecurityPolicy", "bad", jwt=JWKS)),
        of_ancestor,
        "ResolvedRefs",
        "InvalidKeySet",
        ("spec.jwt",),
    ),
    "two_policies_of_a_kind_for_one_route": Bad(
        (
            bad_route(to("echo")),
            policy("BackendTrafficPolicy", "bad", name="aaa", timeout={"http": {"requestTimeout": "1s"}}),
            policy("BackendTrafficPolicy", "bad", name="zzz", timeout={"http": {"requestTimeout": "2s"}}),
        ),
        of_ancestor,
        "Accepted",
        "Conflicted",
        ("aaa",),
    ),
    "an_authority_for_a_backend_that_is_not_there": Bad(
        (*echo(SPACE, name="other", replicas=0), bad_route(to("other")), backend_tls("nothing")),
        of_ancestor,
        "ResolvedRefs",
        "InvalidCACertificateRef",
        ("nothing",),
    ),
    "a_listener_set_that_the_gateway_does_not_let_in": Bad(
        (
            manifest(
                "ListenerSet",
                SPACE,
                "bad",
                {"parentRef": {"name": "edge"}, "listeners": [{"name": "more", "port": 8081, "protocol": "HTTP"}]},
            ),
        ),
        of_object,
        "Accepted",
        "NotAllowed",
    ),
}


@pytest.fixture(scope="module")
def scene(product: Cluster) -> Iterator[Scene]:
    """One for all: that the neighbours are undisturbed is the point."""
    product.namespace(SPACE)
    yield asyncio.run(Scene.make(product, SPACE))
    leave(product, SPACE)


@pytest.mark.parametrize("name", BAD)
async def test_is_told_of(scene: Scene, name: str) -> None:
    bad = BAD[name]
    last = bad.documents[-1]

    def told(found: Any) -> bool:
        said = condition(bad.read(found), bad.type)
        return (said.get("status"), said.get("reason")) == (bad.status, bad.reason)

    scene.cluster.apply(bad.documents)
    try:
        found = scene.cluster.wait_for(last, told, what=f"{bad.type}={bad.status} because of {bad.reason}", within_s=20)
        said = condition(bad.read(found), bad.type)
        assert said["observedGeneration"] == found["metadata"]["generation"]
        assert all(word in said["message"] for word in bad.words), said["message"]
        assert (await scene.fetch("/steady")).status == 200
        neighbour = scene.accepted(route(SPACE, "steady", rule("/steady", "echo")))
        assert condition(parent(neighbour), "ResolvedRefs")["status"] == "True"
    finally:
        scene.cluster.delete(*reversed(bad.documents))


async def test_no_request_fails_while_all_of_it_comes_and_goes(scene: Scene) -> None:
    documents = [document for bad in BAD.values() for document in bad.documents]
    async with scene.traffic() as traffic:
        for _ in range(2):
            scene.cluster.apply(documents)
            await traffic.goes_on(100)
            scene.cluster.delete(*reversed(documents))
        await traffic.stop()
    traffic.assert_none_failed()
