"""ListenerSets, seen through a real Envoy: listeners of other teams on a Gateway, and who has what two of them want."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.support.gateway import GATEWAY_CLASS, Gateway
from tests.support.http import Connection
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


def listener(name: str, hostname: str | None = None, port: int = 80, **more: Any) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    allowed = {"allowedRoutes": {"namespaces": {"from": "All"}}}
    return {"name": name, "port": port, "protocol": "HTTP", **host, **allowed, **more}


def secure(name: str, hostname: str, secret: str, **ref: str) -> dict[str, Any]:
    tls = {"certificateRefs": [{"name": secret, **ref}]}
    return listener(name, hostname, 443, protocol="HTTPS", tls=tls)


def listener_set(name: str, *listeners: Any, namespace: str = "demo", parent: str = "edge", **metadata: Any) -> Any:
    spec = {"parentRef": {"name": parent, "namespace": "demo"}, "listeners": [*listeners]}
    return m.manifest(m.GATEWAY_API, "ListenerSet", name, spec, namespace=namespace, metadata=metadata)


def routed(name: str, *parents: Any) -> m.Manifest:
    """A route whose requests say its name to the backend."""
    edit = {"set": [{"name": "x-route", "value": name}]}
    rule = m.to_backend(f"/{name}", "echo", filters=[{"type": "RequestHeaderModifier", "requestHeaderModifier": edit}])
    return m.manifest(m.GATEWAY_API, "HTTPRoute", name, {"parentRefs": [*parents], "rules": [rule]})


def gateway(allowed: Any, *listeners: Any) -> m.Manifest:
    document = m.gateway(listeners=[*listeners])
    document["spec"]["allowedListeners"] = {"namespaces": allowed}
    return document


def of_set(name: str, section: str | None = None, namespace: str = "demo") -> dict[str, Any]:
    ref = {"kind": "ListenerSet", "name": name, "namespace": namespace}
    return {**ref, "sectionName": section} if section else ref


EDGE = {"name": "edge", "namespace": "demo"}
DOCUMENTS: list[Any] = [
    GATEWAY_CLASS,
    gateway({"from": "All"}, listener("edge", "edge.example.com")),
    listener_set(
        "red",
        listener("one", "one.red.com"),
        listener("two", "two.red.com"),
        listener("taken", "edge.example.com"),
        secure("secure", "secure.red.com", "red"),
        listener("elsewhere", port=8080),
        namespace="red",
        creationTimestamp="2020-01-01T00:00:00Z",
    ),
    listener_set(
        "blue",
        listener("own", "blue.com"),
        listener("taken", "one.red.com"),
        secure("borrowed", "secure.blue.com", "red", namespace="red"),
        namespace="blue",
        creationTimestamp="2021-01-01T00:00:00Z",
    ),
    m.grant("red", to="Secret", source="blue", source_kind="ListenerSet"),
    routed("gateway", EDGE),
    routed("everywhere", EDGE, of_set("red", namespace="red"), of_set("blue", namespace="blue")),
    routed("red", of_set("red", namespace="red")),
    routed("red-one", of_set("red", "one", "red")),
    routed("blue", of_set("blue", namespace="blue")),
    routed("astray", {**EDGE, "sectionName": "one"}),
]


@dataclass
class Scene:
    gateway: Gateway
    tls: ssl.SSLContext

    async def status(self, host: str, path: str, port: int = 80) -> int:
        if port != 443:
            return (await self.gateway.get(path, host=host, port=port)).status
        async with await Connection.to(self.gateway.port(443), tls=self.tls, sni=host) as connection:
            return (await connection.request(path, host=host)).status


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scene() -> AsyncIterator[Scene]:
    authority = Authority()
    secret = authority.leaf("secure.red.com", "secure.blue.com").secret("red", "red")
    async with Upstream() as upstream:
        documents = [*DOCUMENTS, secret, m.backend("echo", upstream.port)]
        async with Gateway({"all.yaml": documents}) as started:
            yield Scene(started, authority.client_context())


@pytest.mark.parametrize(
    ("host", "paths"),
    [
        ("edge.example.com", {"gateway", "everywhere"}),
        ("one.red.com", {"everywhere", "red", "red-one"}),
        ("two.red.com", {"everywhere", "red"}),
        ("blue.com", {"everywhere", "blue"}),
        ("nobody.com", set[str]()),
    ],
)
async def test_a_route_is_served_by_the_listeners_of_its_parents_alone(
    scene: Scene, host: str, paths: set[str]
) -> None:
    every = ("gateway", "everywhere", "red", "red-one", "blue", "astray")
    found = {path for path in every if await scene.status(host, f"/{path}") == 200}
    assert found == paths


async def test_a_listener_set_may_open_a_further_port(scene: Scene) -> None:
    assert await scene.status("any.com", "/red", port=8080) == 200
    assert await scene.status("any.com", "/blue", port=8080) == 404


@pytest.mark.parametrize(("host", "path"), [("secure.red.com", "/red"), ("secure.blue.com", "/blue")])
async def test_certificates_are_those_of_the_set_or_granted_to_it(scene: Scene, host: str, path: str) -> None:
    assert await scene.status(host, path, port=443) == 200
    assert await scene.status(host, "/gateway", port=443) == 404


async def test_what_others_have_is_told_to_who_comes_later(scene: Scene) -> None:
    await scene.gateway.found("ListenerSet red/red", "spec.listeners[2].hostname", "a listener that comes before")
    await scene.gateway.found("ListenerSet blue/blue", "spec.listeners[1].hostname", "a listener that comes before")


async def test_a_gateway_lets_nobody_join_unless_it_says_so() -> None:
    own = listener("edge", "edge.example.com")
    joins = [
        listener_set("joins", listener("own", "joins.com"), namespace="team"),
        routed("joins", of_set("joins", namespace="team"), EDGE),
    ]
    namespace = m.manifest("v1", "Namespace", "team", None, namespace=None, metadata={"labels": {"listeners": "yes"}})
    async with Upstream() as upstream:
        rest = [GATEWAY_CLASS, namespace, m.backend("echo", upstream.port), *joins]
        async with Gateway({"rest.yaml": rest, "gateway.yaml": [m.gateway(listeners=[own])]}) as started:
            await started.answers("/joins", host="edge.example.com")
            await started.found("ListenerSet team/joins", "does not let ListenerSets")
            await started.answers("/joins", 404, host="joins.com")
            selector = {"from": "Selector", "selector": {"matchLabels": {"listeners": "yes"}}}
            started.write("gateway.yaml", [gateway(selector, own)])
            await started.answers("/joins", host="joins.com")
            started.write("gateway.yaml", [gateway({"from": "Same"}, own)])
            await started.answers("/joins", 404, host="joins.com")
            await started.answers("/joins", host="edge.example.com")


async def test_when_the_older_set_goes_the_next_has_what_it_wanted() -> None:
    older = listener_set("older", listener("own", "shared.com"), creationTimestamp="2020-01-01T00:00:00Z")
    newer = listener_set("newer", listener("own", "shared.com"), creationTimestamp="2021-01-01T00:00:00Z")
    async with Upstream() as upstream:
        rest = [
            GATEWAY_CLASS,
            gateway({"from": "Same"}, listener("edge", "edge.example.com")),
            m.backend("echo", upstream.port),
            newer,
            routed("older", of_set("older")),
            routed("newer", of_set("newer")),
        ]
        async with Gateway({"rest.yaml": rest, "older.yaml": [older]}) as started:
            await started.answers("/older", host="shared.com")
            await started.answers("/newer", 404, host="shared.com")
            started.remove("older.yaml")
            await started.answers("/newer", host="shared.com")
            await started.answers("/older", 404, host="shared.com")
