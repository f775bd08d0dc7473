"""A Gateway in a cluster, with a backend and a route that answers: what tests of the whole product begin with."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.provision.names import resource_name
from tests.support.cluster import NAMESPACE, Cluster
from tests.support.cluster_traffic import Traffic
from tests.support.http import HeaderInput, Response
from tests.support.traffic import Target
from tests.support.waiting import until

GATEWAY_API = "gateway.networking.k8s.io/v1"
GATEWAY_CLASS = "dragoman"
HTTP: Mapping[str, Any] = {"name": "http", "port": 80, "protocol": "HTTP"}
CONTROL_PLANE = "app.kubernetes.io/component=controlplane"
STEADY = Target("/steady")


def manifest(kind: str, namespace: str, name: str, spec: Any, *, api: str = GATEWAY_API, **more: Any) -> dict[str, Any]:
    """Returns an object."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {}), **more}


def gateway(namespace: str, *listeners: Mapping[str, Any], name: str = "edge") -> dict[str, Any]:
    """Returns a Gateway of the product's class."""
    return manifest(
        "Gateway", namespace, name, {"gatewayClassName": GATEWAY_CLASS, "listeners": list(listeners or (HTTP,))}
    )


def rule(path: str, *backends: str, **more: Any) -> dict[str, Any]:
    """Returns a rule that sends a path to Services (port 80)."""
    refs = [{"name": name, "port": 80} for name in backends]
    return {"matches": [{"path": {"type": "PathPrefix", "value": path}}], "backendRefs": refs, **more}


def route(namespace: str, name: str, *rules: Mapping[str, Any], parents: Sequence[str] = ("edge",)) -> dict[str, Any]:
    """Returns an HTTPRoute."""
    spec = {"parentRefs": [{"name": parent} for parent in parents], "rules": list(rules)}
    return manifest("HTTPRoute", namespace, name, spec)


def echo(namespace: str, *, name: str = "echo", replicas: int = 1) -> list[dict[str, Any]]:
    """Returns a Deployment of a server that describes each request, and its Service."""
    labels = {"app": name}
    fields = {"POD_NAME": "metadata.name", "NAMESPACE": "metadata.namespace"}
    container = {
        "name": "echo",
        "image": "registry.k8s.io/gateway-api/echo-basic",
        "env": [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 3000}},
    }
    pod = {"containers": [container], "terminationGracePeriodSeconds": 0}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 3000}]
    return [
        manifest("Deployment", namespace, name, spec, api="apps/v1"),
        manifest("Service", namespace, name, {"selector": labels, "ports": ports}, api="v1"),
    ]


def condition(status: Mapping[str, Any] | None, type_: str) -> dict[str, Any]:
    """Returns a condition of a status, or of a part of one; empty where it is not there."""
    found = (status or {}).get("conditions", [])
    return next((each for each in found if each["type"] == type_), {})


@dataclass(frozen=True, slots=True)
class Scene:
    """A namespace with the Gateway `edge`, the backend `echo` and the route `steady` to it."""

    cluster: Cluster
    namespace: str
    address: str

    @staticmethod
    async def make(cluster: Cluster, namespace: str, *listeners: Mapping[str, Any]) -> Scene:
        """Sets everything up and waits until `/steady` answers."""
        cluster.apply([*echo(namespace), gateway(namespace, *listeners)])
        cluster.apply([route(namespace, "steady", rule("/steady", "echo"))])
        cluster.wait_rollout(namespace, "echo")
        # Not until it is Programmed: that is told by whoever leads, and this holds while nobody does.
        found = cluster.wait_for(
            gateway(namespace), lambda found: found.get("status", {}).get("addresses"), what="an address"
        )
        scene = Scene(cluster, namespace, found["status"]["addresses"][0]["value"])
        # Where an API server was killed before, its controllers may pause for two minutes before telling endpoints.
        await scene.answers("/steady", within_s=180.0)
        return scene

    def route(self, name: str, *rules: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a route of the Gateway."""
        return route(self.namespace, name, *rules)

    def traffic(self, *targets: Target, port: int = 80, **options: Any) -> Traffic:
        """Returns a stream of requests to the Gateway, not started yet."""
        return Traffic(self.cluster.network, self.address, port, targets or (STEADY,), **options)

    async def fetch(self, path: str, *, port: int = 80, **request: Any) -> Response:
        """Sends one request to the Gateway."""
        return await self.cluster.network.fetch(port, path, address=self.address, **request)

    async def answers(
        self,
        path: str,
        status: int = 200,
        *,
        within_s: float = 60.0,
        port: int = 80,
        host: str = "example.com",
        headers: HeaderInput = (),
        tls: ssl.SSLContext | None = None,
    ) -> Response:
        """Waits until a request is answered with this status, and returns the response."""
        last: list[Any] = [None]

        async def answered() -> Response | None:
            last[0] = await self.fetch(path, port=port, host=host, headers=headers, tls=tls)
            return last[0] if last[0].status == status else None

        what = f"{path} to answer {status}"
        found = await until(answered, what=what, within_s=within_s, every_s=0.02, detail=lambda: str(last[0]))
        assert found is not None
        return found

    def accepted(self, document: Mapping[str, Any], *, within_s: float = 60.0) -> Any:
        """Waits until our parent entry of a route says that it is accepted, of its present generation."""

        def said(found: Any) -> bool:
            told = condition(parent(found), "Accepted")
            return told.get("status") == "True" and told.get("observedGeneration") == found["metadata"]["generation"]

        return self.cluster.wait_for(document, said, what="an accepted route", within_s=within_s)

    def envoys(self) -> list[dict[str, Any]]:
        """Returns the pods of the Gateway."""
        return pods(self.cluster, self.namespace, "gateway.networking.k8s.io/gateway-name=edge")

    @property
    def deployment(self) -> str:
        """The name of the Deployment that runs the Gateway's Envoys."""
        return resource_name("edge")


def parent(found: Mapping[str, Any], *, name: str = "edge") -> dict[str, Any] | None:
    """Returns what our controller says of a route at a Gateway."""
    entries = found.get("status", {}).get("parents", [])
    ours = (e for e in entries if e["controllerName"] == "dragoman.dev/gateway-controller")
    return next((each for each in ours if each["parentRef"]["name"] == name), None)


def pods(cluster: Cluster, namespace: str, selector: str) -> list[dict[str, Any]]:
    """Returns the pods that labels select, but for those that are going."""
    found = cluster.api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def control_planes(cluster: Cluster) -> list[dict[str, Any]]:
    """Returns the pods of the control plane."""
    return pods(cluster, NAMESPACE, CONTROL_PLANE)


def leave(cluster: Cluster, namespace: str) -> None:
    """Deletes a namespace, but does not wait until it is gone.

    What CRDs define goes at once: Kubernetes leaves it behind when it clears a namespace while the API server comes
    back and knows no CRDs yet, and then it is in the way of whoever counts.
    """
    for kind in ("Gateway", "HTTPRoute"):
        path = cluster.api.path_of(GATEWAY_API, kind, namespace)
        cluster.wait(lambda path=path: cluster.api.request("DELETE", path, within_s=120), what=f"no {kind}")
    cluster.api.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})


def kill(cluster: Cluster, pod: Mapping[str, Any]) -> None:
    """Kills a pod's process at once, or where its processes are out of reach the pod."""
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
    if not cluster.ours:
        cluster.api.request("DELETE", path, {"gracePeriodSeconds": 0})
        return
    try:
        os.kill(pid_of(pod), signal.SIGKILL)
    except ProcessLookupError:
        # The pod was told of before the process that it has now was started.
        cluster.wait(lambda: _killed(cluster.api.get(path)), what=f"a process of {pod['metadata']['name']}")


def pid_of(pod: Mapping[str, Any]) -> int:
    """Returns the id of the process of a pod's first container."""
    return int(pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2])


def _killed(pod: Mapping[str, Any]) -> bool:
    os.kill(pid_of(pod), signal.SIGKILL)
    return True


def ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready."""
    return condition(pod.get("status"), "Ready").get("status") == "True"
