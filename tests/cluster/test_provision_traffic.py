"""Envoys that are provisioned in a cluster are replaced while clients are connected, and no request fails."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.provision.binary import find_envoy
from tests.support.cluster import Cluster
from tests.support.cluster_traffic import Traffic
from tests.support.provisioning import Provisioning
from tests.support.waiting import until

NODE = "10.99.0.1"
XDS_PORT = 18000
# Short, so that the tests are: nothing but the rig's own forwarding has to learn that a pod is going.
SHUTDOWN = {"drainTimeout": "20s", "minDrainDuration": "2s"}


@dataclass
class Gateway:
    """A Gateway whose Envoys are served by a control plane on the node."""

    cluster: Cluster
    provisioning: Provisioning
    namespace: str
    document: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.namespace}/edge"

    def want(self, **config: Any) -> None:
        self.provisioning.want((self.document, {"shutdown": SHUTDOWN, **config}))

    def address(self) -> str:
        found = self.provisioning.state(self.name).get("addresses") or []
        return found[0][1] if found else ""

    async def serves(self) -> str:
        """Waits until the Gateway answers, and returns its address."""
        detail = self.provisioning.log
        address = self.cluster.wait(self.address, what="an address", detail=detail)

        async def answered() -> bool:
            return (await self.cluster.network.fetch(80, "/", address=address)).status == 200

        await until(answered, what="an answer", within_s=30)
        return address

    def pods(self) -> set[str]:
        selector = "gateway.networking.k8s.io/gateway-name=edge"
        found = self.cluster.kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "name")
        return set(found.split())


@pytest.fixture
async def gateway(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    """One Envoy before an echo server, as a Deployment; what is wanted further is for the test to say."""
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    document = _object("Gateway", "edge", namespace, {"gatewayClassName": "other", "listeners": [listener]})
    document = cluster.api.apply(document)
    provisioning = Provisioning(cluster, xds=f"{NODE}:{XDS_PORT}")
    made = Gateway(cluster, provisioning, namespace, document)
    echo = cluster.spawn(sys.executable, "-m", "dragoman.echo", "--listen", f"{NODE}:18080", log="echo.log")
    plane = _control_plane(cluster, namespace, tmp_path)
    provisioning.start()
    try:
        made.want()
        yield made
    finally:
        await provisioning.stop()
        await plane.stop(within_s=10)
        await echo.stop(within_s=10)


async def test_rolling_restarts_lose_no_request_on_new_and_kept_connections(gateway: Gateway) -> None:
    address, before = await gateway.serves(), gateway.pods()
    async with Traffic(gateway.cluster.network, address, 80) as traffic:
        await traffic.goes_on(100)
        for round_ in range(2):
            gateway.want(provider={"kubernetes": {"envoyDeployment": {"pod": {"annotations": {"round": str(round_)}}}}})
            await _replaced(gateway, before)
            before = gateway.pods()
        await traffic.goes_on(200)
        await traffic.stop()
    traffic.assert_none_failed()


async def test_rolling_restarts_lose_no_request_on_http2_connections(gateway: Gateway, tmp_path: Path) -> None:
    address, before = await gateway.serves(), gateway.pods()
    client = _http2_client(gateway.cluster, address, tmp_path)
    try:
        await until(lambda: gateway.cluster.network.fetch(18081, address=NODE), what="the HTTP/2 client")
        async with Traffic(gateway.cluster.network, NODE, 18081) as traffic:
            await traffic.goes_on(100)
            gateway.want(concurrency=1)
            await _replaced(gateway, before)
            await traffic.goes_on(200)
            await traffic.stop()
        traffic.assert_none_failed()
    finally:
        await client.stop(within_s=10)


async def test_a_daemon_set_takes_over_from_a_deployment_without_a_failed_request(gateway: Gateway) -> None:
    address, before = await gateway.serves(), gateway.pods()
    async with Traffic(gateway.cluster.network, address, 80) as traffic:
        await traffic.goes_on(100)
        # The rig's node has a taint, which its own scheduler passes over.
        pod = {"tolerations": [{"operator": "Exists"}]}
        gateway.want(provider={"kubernetes": {"envoyDaemonSet": {"pod": pod}}})
        await _replaced(gateway, before)
        await traffic.goes_on(200)
        await traffic.stop()
    traffic.assert_none_failed()
    kinds = gateway.cluster.kubectl("get", "deploy,ds,pdb", "-n", gateway.namespace, "-o", "name")
    assert kinds.split() == ["daemonset.apps/dragoman-edge"]


async def test_an_envoy_is_ready_when_it_has_its_config_and_shows_others_nothing_more(gateway: Gateway) -> None:
    await gateway.serves()
    cluster = gateway.cluster
    pods = cluster.api.get(f"/api/v1/namespaces/{gateway.namespace}/pods")["items"]
    (address,) = {pod["status"]["podIP"] for pod in pods}
    fetch = cluster.network.fetch
    assert (await fetch(9902, "/ready", address=address)).text == "LIVE\n"
    assert (await fetch(9902, "/live", address=address)).status == 200
    assert "envoy_listener_downstream_cx_total" in (await fetch(9902, "/stats/prometheus", address=address)).text
    for path, method in (("/config_dump", "GET"), ("/quitquitquit", "POST"), ("/ready", "POST"), ("/", "GET")):
        assert (await fetch(9902, path, method=method, address=address)).status == 404, path
    with pytest.raises(ConnectionRefusedError):
        await fetch(9901, "/ready", address=address)


async def test_an_envoy_without_a_control_plane_waits_and_is_not_ready(cluster: Cluster, namespace: str) -> None:
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    spec = {"gatewayClassName": "other", "listeners": [listener]}
    document = cluster.api.apply(_object("Gateway", "edge", namespace, spec))
    provisioning = Provisioning(cluster, xds=f"{NODE}:1")
    provisioning.start()
    try:
        provisioning.want((document, {}))

        def running() -> Any:
            pods = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
            statuses = [each for pod in pods for each in pod["status"].get("containerStatuses", [])]
            return {each["name"]: each for each in statuses if "running" in each["state"]}

        cluster.wait(lambda: len(running()) == 2, what="both containers")
        cluster.wait(lambda: running()["drain"]["ready"], what="the drain process")
        envoy = running()["envoy"]
        assert (envoy["ready"], envoy["restartCount"]) == (False, 0)
    finally:
        await provisioning.stop()


async def _replaced(gateway: Gateway, before: set[str]) -> None:
    def done() -> bool:
        now = gateway.pods()
        return bool(now) and not now & before and _all_ready(gateway)

    await until(done, what="the pods to be replaced", within_s=60, every_s=0.2)


def _all_ready(gateway: Gateway) -> bool:
    pods = gateway.cluster.api.get(f"/api/v1/namespaces/{gateway.namespace}/pods")["items"]
    conditions = [each for pod in pods for each in pod["status"].get("conditions", []) if each["type"] == "Ready"]
    return len(conditions) == len(pods) and all(each["status"] == "True" for each in conditions)


def _control_plane(cluster: Cluster, namespace: str, folder: Path) -> Any:
    """A control plane of a folder: what it tells Envoys to bind is what they bind in a pod."""
    listener = {"name": "http", "protocol": "HTTP", "port": 80}
    everywhere = [{"type": "IPAddress", "value": "0.0.0.0"}]
    gateway = {"gatewayClassName": "dragoman", "listeners": [listener], "addresses": everywhere}
    backend = {"group": "dragoman.dev", "kind": "Backend", "name": "echo"}
    documents = [
        _object("GatewayClass", "dragoman", "", {"controllerName": "dragoman.dev/gateway-controller"}),
        _object("Gateway", "edge", namespace, gateway),
        _object(
            "HTTPRoute", "all", namespace, {"parentRefs": [{"name": "edge"}], "rules": [{"backendRefs": [backend]}]}
        ),
        {
            **_object("Backend", "echo", namespace, {"endpoints": [{"ip": {"address": NODE, "port": 18080}}]}),
            "apiVersion": "dragoman.dev/v1alpha1",
        },
    ]
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "all.yaml").write_text(yaml.safe_dump_all(documents))
    command = [sys.executable, "-m", "dragoman", "serve", "--config", str(manifests), "--xds-insecure"]
    options = ["--xds", f"0.0.0.0:{XDS_PORT}", "--http", "127.0.0.1:18001"]
    return cluster.spawn(*command, *options, log="serve.log", env={"HOME": str(folder)})


def _http2_client(cluster: Cluster, address: str, folder: Path) -> Any:
    """An Envoy that takes requests on the node and sends them over HTTP/2, each once."""
    extensions = "type.googleapis.com/envoy.extensions"
    http2 = {
        "@type": f"{extensions}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    router = {"@type": f"{extensions}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "client",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "gateway"}}],
                }
            ]
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 80}}}}
    listener = {
        "address": {"socket_address": {"address": NODE, "port_value": 18081}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    cluster_ = {
        "name": "gateway",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {"cluster_name": "gateway", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    path = folder / "client.yaml"
    path.write_text(yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": [cluster_]}}))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    return cluster.spawn(str(find_envoy()), "-c", str(path), *options, log="client.log")


def _object(kind: str, name: str, namespace: str, spec: Any) -> dict[str, Any]:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata, "spec": spec}
