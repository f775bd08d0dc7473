"""What a Gateway needs is made in a cluster, kept as it should be, and taken away again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.provisioning import Provisioning

KINDS = "serviceaccount,configmap,service,deployment,daemonset,hpa,pdb"
SELECTOR = "app.kubernetes.io/managed-by=dragoman"


class Desk:
    """A provisioner, and Gateways for it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.provisioning = Provisioning(cluster)
        self.want = self.provisioning.want

    def gateway(self, name: str = "edge", *, namespace: str = "", **spec: Any) -> dict[str, Any]:
        listener = {"name": "http", "protocol": "HTTP", "port": 80}
        # Of a class that nobody else serves: these tests are the controller.
        spec = {"gatewayClassName": "other", "listeners": [listener], **spec}
        metadata = {"namespace": namespace or self.namespace, "name": name}
        document = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}
        return self.cluster.api.apply(document)

    def settled(self, name: str = "edge", *, namespace: str = "", reason: str | None = None) -> dict[str, Any]:
        """Waits until a Gateway has what it needs (or the trouble that is given), and returns what is known of it."""

        def done() -> dict[str, Any]:
            state = self.provisioning.state(f"{namespace or self.namespace}/{name}")
            trouble = state.get("trouble") or {}
            return state if state and trouble.get("reason") == reason else {}

        return self.cluster.wait(done, what=f"{name} to settle ({reason})", detail=self.detail)

    def detail(self) -> str:
        return f"{self.provisioning.state(f'{self.namespace}/edge')}\n{self.provisioning.log()}"

    def objects(self) -> dict[str, dict[str, Any]]:
        """Returns what was made in the namespace, by kind."""
        found = self.cluster.kubectl("get", KINDS, "-n", self.namespace, "-l", SELECTOR, "-o", "json")
        return {each["kind"]: each for each in json.loads(found)["items"]}

    def read(self, document: dict[str, Any]) -> dict[str, Any]:
        """Returns an object of the cluster that is there."""
        found = self.cluster.api.read(document)
        assert found is not None, document
        return found

    def object(self, kind: str, api_version: str = "v1") -> dict[str, Any]:
        metadata = {"namespace": self.namespace, "name": "dragoman-edge"}
        return {"apiVersion": api_version, "kind": kind, "metadata": metadata}


@pytest.fixture
async def desk(cluster: Cluster, namespace: str) -> AsyncIterator[Desk]:
    made = Desk(cluster, namespace)
    made.want()
    made.provisioning.start()
    try:
        yield made
    finally:
        await made.provisioning.stop()


def test_all_that_is_made_is_owned_by_the_gateway_and_bears_its_labels(desk: Desk) -> None:
    infrastructure = {"labels": {"team": "a"}, "annotations": {"pool": "blue"}}
    gateway = desk.gateway(infrastructure=infrastructure)
    desk.want((gateway, {"provider": {"kubernetes": {"envoyHpa": {"maxReplicas": 3}}}}))
    state = desk.settled()
    found = desk.objects()
    assert set(found) == {
        "ServiceAccount",
        "ConfigMap",
        "Service",
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
    }
    for each in found.values():
        metadata = each["metadata"]
        assert metadata["name"] == "dragoman-edge"
        assert metadata["labels"]["team"] == "a"
        assert metadata["labels"]["gateway.networking.k8s.io/gateway-name"] == "edge"
        assert metadata["annotations"]["pool"] == "blue"
        (owner,) = metadata["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (gateway["metadata"]["uid"], True)
    template = found["Deployment"]["spec"]["template"]["metadata"]
    assert (template["labels"]["team"], template["annotations"]["pool"]) == ("a", "blue")
    ((type_, address),) = state["addresses"]
    assert (type_, address) == ("IPAddress", found["Service"]["status"]["loadBalancer"]["ingress"][0]["ip"])


def test_what_is_made_goes_with_the_gateway(desk: Desk) -> None:
    gateway = desk.gateway()
    desk.want((gateway, {}))
    desk.settled()
    desk.cluster.delete(gateway)
    desk.want()
    desk.cluster.wait(lambda: not desk.objects(), what="nothing to be left", detail=desk.detail)


def test_a_gateway_that_moves_to_another_class_leaves_nothing_behind(desk: Desk) -> None:
    desk.want((desk.gateway(), {}))
    desk.settled()
    desk.want()
    desk.cluster.wait(lambda: not desk.objects(), what="nothing to be left", detail=desk.detail)


async def test_who_leads_next_writes_nothing_again(desk: Desk) -> None:
    # Numbers that the API server spells in its own way are no difference either, after they were looked at once.
    deployment = {"container": {"resources": {"requests": {"cpu": "0.1", "memory": "64Mi"}}}}
    desk.want((desk.gateway(), {"provider": {"kubernetes": {"envoyDeployment": deployment}}}))
    desk.settled()
    versions = _versions(desk)
    await desk.provisioning.stop()
    desk.provisioning.start()
    desk.settled()
    desk.want((desk.gateway(), {"provider": {"kubernetes": {"envoyDeployment": deployment}}}), (desk.gateway("b"), {}))
    desk.settled("b")
    assert {kind: version for kind, version in _versions(desk).items() if kind in versions} == versions


def test_what_somebody_else_changes_or_deletes_is_put_right(desk: Desk) -> None:
    desk.want((desk.gateway(), {"provider": {"kubernetes": {"envoyDeployment": {"replicas": 1}}}}))
    desk.settled()
    deployment, service = desk.object("Deployment", "apps/v1"), desk.object("Service")
    # What was not applied is nobody's business.
    desk.cluster.api.patch(deployment, {"spec": {"minReadySeconds": 1}})
    desk.cluster.api.patch(deployment, {"spec": {"replicas": 0}})
    desk.cluster.api.delete(service)
    found = desk.cluster.wait_for(deployment, lambda each: each["spec"]["replicas"] == 1)
    assert found["spec"]["minReadySeconds"] == 1
    desk.cluster.wait_for(service, lambda each: "deletionTimestamp" not in each["metadata"])


def test_what_is_wanted_no_more_is_deleted_and_what_is_held_stays(desk: Desk) -> None:
    gateway = desk.gateway()
    desk.want((gateway, {"provider": {"kubernetes": {"envoyHpa": {"maxReplicas": 3}}}}))
    desk.settled()
    assert "HorizontalPodAutoscaler" in desk.objects()
    desk.want((gateway, {}))
    desk.cluster.wait(lambda: "HorizontalPodAutoscaler" not in desk.objects(), what="no autoscaler", detail=desk.detail)
    before = _versions(desk)
    desk.want((gateway, {}), held=[f"{desk.namespace}/edge"])
    desk.want((gateway, {}), (desk.gateway("b"), {}), held=[f"{desk.namespace}/edge"])
    desk.settled("b")
    assert set(before) <= set(desk.objects())
    assert desk.settled()["addresses"]


def test_an_autoscaler_takes_over_the_number_of_replicas_as_it_is(desk: Desk) -> None:
    gateway = desk.gateway()
    desk.want((gateway, {"provider": {"kubernetes": {"envoyDeployment": {"replicas": 3}}}}))
    desk.settled()
    scaled = {"envoyDeployment": {"replicas": 3}, "envoyHpa": {"minReplicas": 2, "maxReplicas": 5}}
    desk.want((gateway, {"provider": {"kubernetes": scaled}}))
    desk.cluster.wait(lambda: "HorizontalPodAutoscaler" in desk.objects(), what="the autoscaler", detail=desk.detail)
    deployment = desk.object("Deployment", "apps/v1")
    assert desk.read(deployment)["spec"]["replicas"] == 3
    # And from then on it is not the provisioner's to say.
    desk.cluster.api.patch(deployment, {"spec": {"replicas": 4}})
    desk.want((gateway, {"provider": {"kubernetes": scaled}, "concurrency": 1}))
    found = desk.cluster.wait_for(deployment, lambda each: each["metadata"]["generation"] > 3)
    assert found["spec"]["replicas"] == 4


def test_an_object_of_somebody_else_is_left_alone(desk: Desk) -> None:
    service = {**desk.object("Service"), "spec": {"ports": [{"port": 1}]}}
    theirs = desk.cluster.api.create(service)
    desk.want((desk.gateway(), {}))
    trouble = desk.settled(reason="Invalid")["trouble"]
    assert "was not made for this Gateway" in trouble["message"]
    assert desk.read(service)["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    desk.cluster.delete(service)
    desk.settled()


def test_a_quota_of_one_namespace_holds_up_no_other(desk: Desk) -> None:
    other = f"{desk.namespace[:50]}-free"
    desk.cluster.namespace(other)
    quota = {**desk.object("ResourceQuota"), "spec": {"hard": {"services.loadbalancers": "0"}}}
    desk.cluster.api.create(quota)
    # No controller counts in the rig; what is admitted goes by the status.
    status = {"hard": quota["spec"]["hard"], "used": {"services.loadbalancers": "0"}}
    desk.cluster.api.patch(quota, {"status": status}, subresource="status")
    desk.want((desk.gateway(), {}), (desk.gateway(namespace=other), {}))
    desk.settled(namespace=other)
    trouble = desk.settled(reason="NoResources")["trouble"]
    assert "exceeded quota" in trouble["message"]
    desk.cluster.delete(quota)
    desk.settled()
    desk.cluster.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": other}})


def test_what_the_api_server_refuses_is_told_with_its_words(desk: Desk) -> None:
    deployment = {"pod": {"affinity": {"nodeAffinity": {"unknown": 1}}}}
    desk.want((desk.gateway(), {"provider": {"kubernetes": {"envoyDeployment": deployment}}}))
    trouble = desk.settled(reason="Invalid")["trouble"]
    assert "field not declared in schema" in trouble["message"]


def test_addresses_that_are_asked_for_are_had_or_named_as_unusable(desk: Desk) -> None:
    unusable, usable = {"value": "192.0.2.1"}, {"value": "10.98.200.7"}
    desk.want((desk.gateway(addresses=[unusable, usable]), {}))
    # At first neither is there; then the rig's load balancer has given what it gives, the first of them.
    desk.cluster.wait(
        lambda: "10.98.200.7" in desk.settled(reason="AddressNotUsable")["trouble"]["message"],
        what="the address that was not given to be named",
        detail=desk.detail,
    )
    desk.want((desk.gateway(addresses=[usable]), {}))
    assert desk.settled()["addresses"] == [["IPAddress", "10.98.200.7"]]
    desk.want((desk.gateway(addresses=[{"type": "IPAddress"}]), {}))
    assert desk.settled()["addresses"]


def test_a_service_of_another_type_gives_the_addresses_that_it_has(desk: Desk) -> None:
    gateway = desk.gateway()
    desk.want((gateway, {"provider": {"kubernetes": {"envoyService": {"type": "ClusterIP"}}}}))
    service = desk.cluster.wait_for(desk.object("Service"), lambda each: each["spec"]["type"] == "ClusterIP")
    own = [["IPAddress", service["spec"]["clusterIP"]]]
    desk.cluster.wait(lambda: desk.settled()["addresses"] == own, what="its own address", detail=desk.detail)
    desk.want((gateway, {"provider": {"kubernetes": {"envoyService": {"type": "NodePort"}}}}))
    nodes = [["IPAddress", "10.99.0.1"]]
    desk.cluster.wait(lambda: desk.settled()["addresses"] == nodes, what="the node's address", detail=desk.detail)
    desk.want((gateway, {"provider": {"kubernetes": {"envoyService": {"loadBalancerClass": "example.com/none"}}}}))
    assert "no load balancer" in desk.settled(reason="AddressNotAssigned")["trouble"]["message"]


def test_more_listeners_or_replicas_restart_no_pod(desk: Desk) -> None:
    desk.want((desk.gateway(), {}))
    desk.settled()
    deployment = desk.object("Deployment", "apps/v1")
    before = desk.read(deployment)["spec"]["template"]
    listeners = [
        {"name": "http", "protocol": "HTTP", "port": 80},
        {"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "high", "protocol": "TCP", "port": 60000},
    ]
    two = {"provider": {"kubernetes": {"envoyDeployment": {"replicas": 2}}}}
    desk.want((desk.gateway(listeners=listeners), two))
    found = desk.cluster.wait_for(deployment, lambda each: each["spec"]["replicas"] == 2)
    assert found["spec"]["template"] == before
    service = desk.cluster.wait_for(desk.object("Service"), lambda each: len(each["spec"]["ports"]) == 3)
    assert {(p["protocol"], p["port"], p["targetPort"]) for p in service["spec"]["ports"]} == {
        ("TCP", 80, 10080),
        ("UDP", 53, 10053),
        ("TCP", 60000, 5488),
    }


def test_many_gateways_are_made_side_by_side(desk: Desk) -> None:
    gateways = [desk.gateway(f"g-{number}") for number in range(50)]
    # Without pods, of which the machine has not so many, and without the rig's load balancers, which take their time.
    none = {"provider": {"kubernetes": {"envoyDeployment": {"replicas": 0}, "envoyService": {"type": "ClusterIP"}}}}
    desk.want(*((each, none) for each in gateways))
    for number in range(50):
        desk.settled(f"g-{number}")


def _versions(desk: Desk) -> dict[str, str]:
    """The time of the last write of each object by the provisioner: a no-op leaves it as it is."""
    versions: dict[str, str] = {}
    found = desk.cluster.kubectl(
        "get", KINDS, "-n", desk.namespace, "-l", "gateway.networking.k8s.io/gateway-name=edge",
        "--show-managed-fields", "-o", "json",
    )  # fmt: skip
    for each in json.loads(found)["items"]:
        managed = each["metadata"]["managedFields"]
        versions[each["kind"]] = next(field["time"] for field in managed if field["manager"] == "dragoman")
    return versions
