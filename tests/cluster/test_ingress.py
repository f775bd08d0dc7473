"""Ingresses in a cluster: served by the Gateway that their class names, told where that is, and what has no effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.certificates import Authority
from tests.support.cluster import Cluster
from tests.support.cluster_scene import Scene, echo, manifest
from tests.support.ingress import carrier, ingress, ingress_class, path, rule

HOST = "shop.example.com"


@pytest.fixture
def class_name(product: Cluster, namespace: str) -> Iterator[str]:
    """A class whose Ingresses the Gateway `edge` of the test's namespace carries."""
    made = ingress_class(namespace, namespace=namespace)
    product.apply([made])
    yield namespace
    product.delete(made)


async def carried(product: Cluster, namespace: str) -> Scene:
    """Returns the Gateway that carries the Ingresses, once it has an address."""
    wanted = carrier(namespace=namespace)
    product.apply([*echo(namespace), wanted])
    product.wait_rollout(namespace, "echo")
    found = product.wait_for(wanted, lambda found: found.get("status", {}).get("addresses"), what="an address")
    return Scene(product, namespace, found["status"]["addresses"][0]["value"])


def events_about(product: Cluster, namespace: str, name: str) -> list[dict[str, Any]]:
    found = product.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return [each for each in found if (each["regarding"]["kind"], each["regarding"]["name"]) == ("Ingress", name)]


async def test_an_ingress_is_served_and_has_the_address_of_its_gateway(
    product: Cluster, namespace: str, class_name: str, authority: Authority
) -> None:
    product.apply([authority.leaf(HOST).secret(namespace, "cert")])
    scene = await carried(product, namespace)
    wanted = ingress(
        "shop",
        rule(HOST, path("/api(/|$)(.*)", type_="ImplementationSpecific", port="http")),
        rule("open.example.com", path("/")),
        namespace=namespace,
        class_name=class_name,
        annotations={"rewrite-target": "/$2"},
        tls=[{"hosts": [HOST], "secretName": "cert"}],
    )
    product.apply([wanted])
    response = await scene.answers("/api/items", port=443, host=HOST, tls=authority.client_context())
    assert response.json()["path"] == "/items"
    await scene.answers("/api/items", 308, host=HOST)
    await scene.answers("/any", host="open.example.com")

    def addresses(found: Any) -> list[str]:
        return [each["ip"] for each in found["status"].get("loadBalancer", {}).get("ingress", [])]

    product.wait_for(wanted, lambda found: addresses(found) == [scene.address], what="the address of the Gateway")
    assert events_about(product, namespace, "shop") == []
    product.delete(wanted)
    await scene.answers("/any", 404, host="open.example.com")


async def test_what_of_an_ingress_has_no_effect_is_told_once_by_events(
    product: Cluster, namespace: str, class_name: str
) -> None:
    await carried(product, namespace)
    wanted = ingress(
        "shop",
        rule(HOST, path("/", "nothing")),
        namespace=namespace,
        class_name=class_name,
        annotations={"proxy-body-size": "8m"},
    )
    product.apply([wanted])

    def told() -> set[str]:
        return {each["note"] for each in events_about(product, namespace, "shop")}

    product.wait(lambda: len(told()) == 2, what="two events", within_s=30)
    assert any("proxy-body-size" in note for note in told())
    assert any("spec.rules[0].http.paths[0].backend.service" in note and "nothing" in note for note in told())
    # What is put right is not told again, and neither is what stays as it was.
    product.apply([manifest("Service", namespace, "nothing", {"ports": [{"port": 80}]}, api="v1")])
    changed = {**wanted, "metadata": {**wanted["metadata"], "labels": {"changed": "yes"}}}
    product.apply([changed])
    product.wait(lambda: len(told()) == 2, what="the same events", within_s=5)
    assert [each["type"] for each in events_about(product, namespace, "shop")] == ["Warning", "Warning"]


async def test_an_ingress_of_another_controller_is_left_alone(product: Cluster, namespace: str) -> None:
    scene = await carried(product, namespace)
    theirs = ingress_class(f"{namespace}-other", namespace=namespace, controller="example.com/other")
    wanted = ingress("theirs", rule(HOST, path("/", "nothing")), namespace=namespace, class_name=f"{namespace}-other")
    product.apply([theirs, wanted])
    own = ingress_class(namespace, namespace=namespace)
    try:
        product.apply(
            [own, ingress("own", rule("own.example.com", path("/")), namespace=namespace, class_name=namespace)]
        )
        await scene.answers("/", host="own.example.com")
        await scene.answers("/", 404, host=HOST)
        assert not product.api.get(product.api.path(wanted))["status"].get("loadBalancer")
        assert events_about(product, namespace, "theirs") == []
    finally:
        product.delete(theirs, own)
