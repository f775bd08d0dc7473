"""What is made in Kubernetes for a Gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.provision.address import TcpAddress
from controlplane.provision.binary import find_envoy
from controlplane.provision.kubernetes.plan import plan
from controlplane.provision.kubernetes.wanted import Defaults, ListenerPort, WantedGateway

DEFAULTS = Defaults(xds=TcpAddress("10.0.0.1", 18000), image="example.com/dragoman:1")
SECURE = Defaults(
    xds=TcpAddress("dragoman.system.svc", 18000),
    image="example.com/dragoman:1",
    server_name="dragoman.system.svc",
    ca_certificate="PEM",
)


def made(config: dict[str, Any] | None = None, *, defaults: Defaults = DEFAULTS, **more: Any) -> dict[str, Any]:
    """The documents by kind."""
    return {each["kind"]: each for each in documents(config, defaults=defaults, **more)}


def documents(config: dict[str, Any] | None = None, *, defaults: Defaults = DEFAULTS, **more: Any) -> list[Any]:
    given = {"key": ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge"), "uid": "u-1", "ports": (ListenerPort(80),)}
    wanted = WantedGateway(**{**given, "config": ProxyConfigSpec.model_validate(config or {}), **more})
    return list(plan(wanted, defaults))


def kubernetes(**parts: Any) -> dict[str, Any]:
    return {"provider": {"type": "Kubernetes", "kubernetes": parts}}


def containers(found: dict[str, Any], kind: str = "Deployment") -> dict[str, Any]:
    return {each["name"]: each for each in found[kind]["spec"]["template"]["spec"]["containers"]}


def test_what_pods_need_comes_before_them() -> None:
    kinds = [each["kind"] for each in documents()]
    assert kinds == ["ServiceAccount", "ConfigMap", "Service", "Deployment", "PodDisruptionBudget"]


def test_everything_is_owned_by_the_gateway_and_labelled() -> None:
    for each in documents(labels={"team": "a"}, annotations={"pool": "blue"}):
        metadata = each["metadata"]
        assert (metadata["namespace"], metadata["name"]) == ("demo", "dragoman-edge")
        assert metadata["labels"] == {
            "team": "a",
            "app.kubernetes.io/managed-by": "dragoman",
            "app.kubernetes.io/name": "envoy",
            "gateway.networking.k8s.io/gateway-name": "edge",
        }
        assert metadata["annotations"]["pool"] == "blue"
        assert metadata["ownerReferences"][0]["uid"] == "u-1"


def test_labels_of_the_infrastructure_cannot_take_the_place_of_those_that_select() -> None:
    found = made(labels={"app.kubernetes.io/name": "other"})["Deployment"]["spec"]
    assert found["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == "envoy"


def test_a_gateway_with_a_name_longer_than_a_label_is_labelled_all_the_same() -> None:
    key = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "g" * 253)
    for each in documents(key=key):
        labels = each["metadata"]["labels"].values()
        assert all(len(value) <= 63 for value in [*labels, each["metadata"]["name"]])


def test_the_same_wish_makes_the_same_documents_and_another_one_another_hash() -> None:
    one, two = documents(), documents(kubernetes(envoyDeployment={"replicas": 2}))
    assert one == documents()
    differ = [a["kind"] for a, b in zip(one, two, strict=True) if a != b]
    assert differ == ["Deployment"]
    applied = [each["metadata"]["annotations"]["dragoman.dev/applied"] for each in (*one, *two)]
    assert len(set(applied)) == len(one) + 1


def test_pods_are_replaced_for_another_bootstrap_but_not_for_listeners_or_replicas() -> None:
    before = made()["Deployment"]["spec"]["template"]
    ports = (ListenerPort(80), ListenerPort(53, "UDP"))
    assert made(kubernetes(envoyDeployment={"replicas": 3}), ports=ports)["Deployment"]["spec"]["template"] == before
    other = Defaults(xds=TcpAddress("10.0.0.2", 18000), image=DEFAULTS.image)
    assert made(defaults=other)["Deployment"]["spec"]["template"] != before


def test_an_authority_that_is_replaced_replaces_no_pods() -> None:
    rotated = Defaults(
        xds=SECURE.xds, image=SECURE.image, server_name=SECURE.server_name, ca_certificate="PEM of another"
    )
    one, two = made(defaults=SECURE), made(defaults=rotated)
    assert one["Deployment"] == two["Deployment"]
    assert two["ConfigMap"]["data"]["ca.crt"] == "PEM of another"


def test_pods_have_no_privileges_and_one_token_which_is_for_the_control_plane() -> None:
    found = made(defaults=SECURE)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    for each in pod["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    (token,) = (each["projected"] for each in pod["volumes"] if each["name"] == "token")
    assert token["sources"] == [
        {"serviceAccountToken": {"audience": "dragoman", "expirationSeconds": 3600, "path": "token"}}
    ]


async def test_envoy_accepts_the_bootstrap(tmp_path: Path) -> None:
    envoy = find_envoy()
    if envoy is None:
        pytest.skip("no Envoy")
    path = tmp_path / "envoy.yaml"
    path.write_text(made(kubernetes(envoyDeployment=LIMITED))["ConfigMap"]["data"]["envoy.yaml"])
    command = [str(envoy), "--mode", "validate", "-c", str(path), "--log-level", "error"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()


LIMITED = {"container": {"resources": {"limits": {"cpu": "2500m", "memory": "1Gi"}}}}


def test_limits_of_the_container_are_limits_of_envoy() -> None:
    found = made(kubernetes(envoyDeployment=LIMITED))
    arguments = containers(found)["envoy"]["args"]
    assert arguments[arguments.index("--concurrency") + 1] == "3"
    bootstrap = yaml.safe_load(found["ConfigMap"]["data"]["envoy.yaml"])
    heap = bootstrap["overload_manager"]["resource_monitors"][1]["typed_config"]
    assert heap["max_heap_size_bytes"] == 2**30


def test_the_admin_endpoint_is_on_loopback() -> None:
    bootstrap = yaml.safe_load(made()["ConfigMap"]["data"]["envoy.yaml"])
    assert bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_envoy_ends_when_the_drain_process_says_so_and_the_pod_waits_for_it() -> None:
    found = made({"shutdown": {"drainTimeout": "90s", "minDrainDuration": "5s"}})
    both = containers(found)
    assert both["envoy"]["lifecycle"]["preStop"]["httpGet"] == {"path": "/drained", "port": 9903}
    assert "--timeout 90 --at-least 5" in " ".join(both["drain"]["args"])
    assert found["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > 90


def test_a_proxy_config_shapes_pods_and_envoy() -> None:
    pod = {
        "annotations": {"a": "b"},
        "labels": {"c": "d"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "topologySpreadConstraints": [],
        "volumes": [{"name": "more", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1000},
    }
    container = {
        "imageRepository": "registry.example:5000/envoy",
        "env": [{"name": "A", "value": "b"}],
        "volumeMounts": [{"name": "more", "mountPath": "/more"}],
    }
    config = kubernetes(envoyDeployment={"pod": pod, "container": container, "strategy": {"type": "Recreate"}})
    config |= {"logging": {"level": {"default": "info", "upstream": "debug"}}, "concurrency": 7, "extraArgs": ["--x"]}
    found = made(config)
    spec = found["Deployment"]["spec"]
    template = spec["template"]
    assert spec["strategy"] == {"type": "Recreate"}
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["c"] == "d"
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName", "imagePullSecrets"):
        assert template["spec"][field] == pod[field]
    assert template["spec"]["securityContext"] == {"runAsUser": 1000}
    assert "topologySpreadConstraints" not in template["spec"]
    assert template["spec"]["volumes"][-1] == {"name": "more", "emptyDir": {}}
    envoy = containers(found)["envoy"]
    assert envoy["image"] == "registry.example:5000/envoy:distroless-v1.40-latest"
    assert envoy["env"][-1] == {"name": "A", "value": "b"}
    assert envoy["volumeMounts"][-1] == {"name": "more", "mountPath": "/more"}
    arguments = " ".join(envoy["args"])
    assert "--concurrency 7 --log-level info --component-log-level misc:error,upstream:debug" in arguments
    assert envoy["args"][-1] == "--x"


def test_a_service_is_shaped_and_asks_for_the_address_of_the_gateway_first() -> None:
    service = {
        "loadBalancerIP": "192.0.2.9",
        "loadBalancerClass": "example.com/a",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
        "allocateLoadBalancerNodePorts": False,
        "externalTrafficPolicy": "Cluster",
        "annotations": {"pool": "x"},
        "labels": {"l": "m"},
    }
    found = made(kubernetes(envoyService=service))["Service"]
    assert found["metadata"]["annotations"]["pool"] == "x"
    assert found["metadata"]["labels"]["l"] == "m"
    for field in ("loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges", "externalTrafficPolicy"):
        assert found["spec"][field] == service[field]
    assert found["spec"]["allocateLoadBalancerNodePorts"] is False
    asked = made(kubernetes(envoyService=service), addresses=(("IPAddress", ""), ("IPAddress", "192.0.2.1")))["Service"]
    assert asked["spec"]["loadBalancerIP"] == "192.0.2.1"


def test_no_address_of_the_cluster_can_be_taken_by_a_gateway() -> None:
    config = kubernetes(envoyService={"type": "ClusterIP"})
    spec = made(config, addresses=(("IPAddress", "192.0.2.1"),))["Service"]["spec"]
    assert not {"externalIPs", "loadBalancerIP", "clusterIP", "externalTrafficPolicy"} & set(spec)


def test_a_gateway_without_ports_has_no_service() -> None:
    assert "Service" not in made(ports=())


def test_a_daemon_set_stands_in_for_the_deployment() -> None:
    found = made(kubernetes(envoyDaemonSet={"pod": {"nodeSelector": {"edge": "yes"}}}))
    assert set(found) == {"ServiceAccount", "ConfigMap", "Service", "DaemonSet"}
    assert found["DaemonSet"]["spec"]["template"]["spec"]["nodeSelector"] == {"edge": "yes"}


def test_an_autoscaler_decides_on_the_replicas() -> None:
    found = made(kubernetes(envoyDeployment={"replicas": 4}, envoyHpa={"minReplicas": 2, "maxReplicas": 9}))
    assert "replicas" not in found["Deployment"]["spec"]
    spec = found["HorizontalPodAutoscaler"]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (2, 9, "dragoman-edge")


@pytest.mark.parametrize(
    ("budget", "field", "value"),
    [
        (None, "maxUnavailable", 1),
        ({"minAvailable": "2"}, "minAvailable", 2),
        ({"maxUnavailable": "25%"}, "maxUnavailable", "25%"),
    ],
)
def test_a_budget_keeps_envoys_while_nodes_are_emptied(budget: Any, field: str, value: Any) -> None:
    found = made(kubernetes(envoyPDB=budget) if budget else None)["PodDisruptionBudget"]["spec"]
    assert {name: each for name, each in found.items() if name != "selector"} == {field: value}


def test_a_patch_changes_what_has_no_setting_and_not_whose_it_is() -> None:
    value = {
        "metadata": {"name": "other", "labels": {"x": "y", "app.kubernetes.io/name": "other"}},
        "spec": {
            "minReadySeconds": 5,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "spec": {"hostNetwork": True, "containers": [{"name": "envoy", "stdin": True}, {"name": "more"}]}
            },
        },
    }
    found = made(kubernetes(envoyDeployment={"patch": {"value": value}}))["Deployment"]
    assert found["metadata"]["name"] == "dragoman-edge"
    assert found["metadata"]["labels"]["x"] == "y"
    assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "envoy"
    assert found["spec"]["minReadySeconds"] == 5
    assert "a" not in found["spec"]["selector"]["matchLabels"]
    pod = found["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True
    assert [each["name"] for each in pod["containers"]] == ["envoy", "drain", "more"]
    assert pod["containers"][0]["stdin"] is True
    assert pod["containers"][0]["args"]
