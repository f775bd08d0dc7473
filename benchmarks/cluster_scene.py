"""The scene of a measurement in a cluster: the product installed by its chart, a Gateway, and N routes on it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from benchmarks.manifests import BACKENDS, backend, route
from controlplane.kube.access import find_access
from controlplane.kube.client import Api
from tests.support import cluster_scene
from tests.support.cluster import Cluster
from tests.support.cluster_faults import Faults
from tests.support.cluster_scene import condition, control_planes, echo, parent, pods
from tests.support.http import Connection

NAMESPACE = "bench"
ECHO_PORT = 3000
POLL_S = 0.002
_ROUTES_A_HOST = 10


@dataclass
class Moments:
    """When a watch has told what, by name: which generation of an object is there, and which its status is about."""

    there: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    accepted: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def take(self, document: dict[str, Any], at: float) -> None:
        """Takes in an HTTPRoute as a watch has it."""
        name, generation = document["metadata"]["name"], document["metadata"]["generation"]
        if self.there.get(name, (0, 0.0))[0] < generation:
            self.there[name] = generation, at
        told = condition(parent(document), "Accepted")
        observed = told.get("observedGeneration", 0) if told.get("status") == "True" else 0
        if self.accepted.get(name, (0, 0.0))[0] < observed:
            self.accepted[name] = observed, at
        async with self.news:
            self.news.notify_all()

    async def until_accepted(self, names: Iterable[str], generation: int, *, within_s: float = 300.0) -> float:
        """Waits until the status of each says of this generation that it is accepted; returns when the last did."""
        wanted = list(names)
        missing = list(wanted)

        def done() -> bool:
            # From the end, and never from the beginning again: it is asked at every event.
            while missing and self.accepted.get(missing[-1], (0, 0.0))[0] >= generation:
                missing.pop()
            return not missing

        async with asyncio.timeout(within_s), self.news:
            await self.news.wait_for(done)
        return max(self.accepted[name][1] for name in wanted)


@dataclass(frozen=True, slots=True)
class ClusterScene:
    """A Gateway that serves; `api` speaks with the API server as an administrator, without a proxy between."""

    scene: cluster_scene.Scene
    api: Api
    moments: Moments

    @property
    def cluster(self) -> Cluster:
        """The cluster with its helpers."""
        return self.scene.cluster

    def route(self, index: int, path: str) -> dict[str, Any]:
        """Returns a route of this benchmark with one rule for a path."""
        return route(index, host(index), path)

    async def create(self, documents: Iterable[dict[str, Any]]) -> None:
        """Creates objects, as many at once as the client allows."""
        paths = self.cluster.api

        async def one(document: dict[str, Any]) -> None:
            await self.api.create(paths.path(document).rpartition("/")[0], document)

        await asyncio.gather(*map(one, documents))

    async def connect(self, address: str = "") -> Connection:
        """Opens a connection to the Gateway, or to another."""
        return await self.cluster.network.connect(80, address=address or self.scene.address)

    async def answers(
        self,
        path: str,
        *,
        host: str,
        by: str = "",
        address: str = "",
        connection: Connection | None = None,
        within_s: float = 120.0,
    ) -> float:
        """Polls until a path answers 200 (from the pod `by`); returns the moment (perf_counter)."""
        deadline = time.perf_counter() + within_s
        try:
            while True:
                try:
                    if connection is None or not connection.open:
                        connection = await self.connect(address)
                    response = await connection.request(path, host=host)
                    if response.status == 200 and (not by or response.json()["pod"] == by):
                        return time.perf_counter()
                except OSError:
                    connection = None
                if time.perf_counter() > deadline:
                    raise TimeoutError(f"{host}{path} still does not answer")
                await asyncio.sleep(POLL_S)
        finally:
            if connection is not None:
                connection.close()

    def control_plane(self) -> int:
        """Returns the process id of the control plane."""
        (pod,) = control_planes(self.cluster)
        return _pid(pod)

    def envoy(self) -> int:
        """Returns the process id of the Gateway's first Envoy."""
        return _pid(self.scene.envoys()[0], "envoy")

    def api_server(self) -> int:
        """Returns the process id of the API server."""
        return Faults(self.cluster).pid("kube-apiserver")


@asynccontextmanager
async def cluster_scene_of(cluster: Cluster) -> AsyncIterator[ClusterScene]:
    """Installs the product and sets the scene, with all backends and without routes but one."""
    cluster.install()
    cluster.namespace(NAMESPACE)
    cluster.apply(echo(NAMESPACE, name="other"))
    scene = await cluster_scene.Scene.make(cluster, NAMESPACE)
    cluster.wait_rollout(NAMESPACE, "other")
    address = pods(cluster, NAMESPACE, "app=echo")[0]["status"]["podIP"]
    access = await find_access(cluster.kubeconfig, None)
    async with Api.over(access, new_socket=lambda _: cluster.network.socket()) as api:
        made = ClusterScene(scene, api, Moments())
        await made.create(
            document for index in range(BACKENDS) for document in backend(index, ECHO_PORT, address=address)
        )
        watch = asyncio.create_task(_watch(api, cluster, made.moments))
        try:
            yield made
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


def host(index: int) -> str:
    """Returns the host name of a route."""
    return f"h{index // _ROUTES_A_HOST}.example.com"


def first_path(index: int) -> str:
    """Returns the path that a route has at first."""
    return f"/r{index % _ROUTES_A_HOST}"


async def _watch(api: Api, cluster: Cluster, moments: Moments) -> None:
    path = cluster.api.path_of(cluster_scene.GATEWAY_API, "HTTPRoute", NAMESPACE)
    version = "0"
    while True:
        # The API server ends the watch of who cannot keep up with it.
        async for line in api.lines(path, params={"resourceVersion": version, "timeoutSeconds": "3600"}):
            at = time.perf_counter()
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise RuntimeError(f"the watch was lost: {event['object'].get('message')}")
            version = event["object"]["metadata"]["resourceVersion"]
            await moments.take(event["object"], at)


def _pid(pod: dict[str, Any], container: str = "") -> int:
    statuses = pod["status"]["containerStatuses"]
    found = next(each for each in statuses if not container or each["name"] == container)
    return int(found["containerID"].rpartition("/")[2])
