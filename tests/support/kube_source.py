"""The source `kubernetes` under test: what it hands over, as an engine would have it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.kube.access import Access, fixed_access
from controlplane.kube.client import Api
from controlplane.sources.changes import Changes
from controlplane.sources.kubernetes import KubernetesSource, Tuning
from tests.support.kube_api import FakeKubeApi
from tests.support.waiting import until

QUICK = Tuning(first_wait_s=0.01, longest_wait_s=0.05, forbidden_wait_s=0.1, look_again_s=0.2, whole_patience_s=1.0)
GATEWAY_API = "gateway.networking.k8s.io"


class Reading:
    """What a source has handed over until now."""

    def __init__(self, source: KubernetesSource) -> None:
        self.source = source
        self.changes: list[Changes] = []
        self.times: list[float] = []
        self.objects: dict[ObjectKey, dict[str, Any]] = {}
        self.observed: list[ObjectKey] = []
        self.busy = asyncio.Event()
        """While cleared, whoever takes changes is busy with the last ones."""
        self.busy.set()
        source.on_observed = self._observe

    def _observe(self, keys: Iterable[ObjectKey]) -> None:
        self.observed += keys

    async def run(self, stop: asyncio.Event) -> None:
        """Takes all changes."""
        async for changes in self.source.watch(stop):
            self.changes.append(changes)
            self.times.append(time.perf_counter())
            # What was handed over is not the reader's to keep.
            self.objects |= {raw.key: json.loads(json.dumps(raw.document)) for raw in changes.upserted}
            for key in changes.removed:
                self.objects.pop(key, None)
            await self.busy.wait()

    def names(self, kind: str) -> set[str]:
        """Returns the names of all objects of a kind."""
        return {key.name for key in self.objects if key.kind == kind}

    async def until_names(self, kind: str, *names: str, within_s: float = 30.0) -> None:
        """Waits until exactly these objects of a kind are there."""
        await until(
            lambda: self.names(kind) == set(names),
            what=f"{kind} {', '.join(names)}",
            within_s=within_s,
            detail=lambda: f"{self.names(kind)}, trouble: {self.source.trouble}",
        )

    def refusals(self) -> dict[str, Any]:
        """Returns what the models refuse of the objects."""
        loaded = {str(key): load(document) for key, document in self.objects.items()}
        return {key: each.faults for key, each in loaded.items() if each.object is None}


@asynccontextmanager
async def reading(
    api: FakeKubeApi | Access, *, tuning: Tuning = QUICK, whole: bool = True, new_socket: Any = None, **arguments: Any
) -> AsyncGenerator[Reading]:
    """Reads from an API server; with `whole`, once all is read for the first time."""
    access = fixed_access(api.url, token="test") if isinstance(api, FakeKubeApi) else api
    async with Api.over(access, new_socket=new_socket) as client:
        found = Reading(KubernetesSource(client, tuning=tuning, **arguments))
        stop = asyncio.Event()
        task = asyncio.create_task(found.run(stop))
        try:
            if whole:
                detail = lambda: str(found.source.trouble)  # noqa: E731
                await until(lambda: found.changes, what="all objects", within_s=30, detail=detail)
            yield found
        finally:
            stop.set()
            async with asyncio.timeout(30):
                await task


def key(kind: str, namespace: str, name: str, group: str = GATEWAY_API) -> ObjectKey:
    return ObjectKey(group, kind, namespace, name)


def gateway(name: str = "gw", *secrets: str, namespace: str = "demo") -> dict[str, Any]:
    """A Gateway with an HTTPS listener for each Secret, or one for HTTP."""
    listeners: list[dict[str, Any]] = [
        {"name": f"l{i}", "port": 443 + i, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": secret}]}}
        for i, secret in enumerate(secrets)
    ]
    spec = {"gatewayClassName": "d", "listeners": listeners or [{"name": "http", "port": 80, "protocol": "HTTP"}]}
    metadata = {"namespace": namespace, "name": name}
    return {"apiVersion": f"{GATEWAY_API}/v1", "kind": "Gateway", "metadata": metadata, "spec": spec}


def route(name: str, host: str = "example.com", *, namespace: str = "demo", kind: str = "HTTPRoute") -> dict[str, Any]:
    """A route to the Gateway `gw`."""
    metadata = {"namespace": namespace, "name": name}
    spec = {"parentRefs": [{"name": "gw"}], "hostnames": [host]}
    return {"apiVersion": f"{GATEWAY_API}/v1", "kind": kind, "metadata": metadata, "spec": spec}


def secret(name: str, value: str = "one", *, namespace: str = "demo", kind: str = "Secret") -> dict[str, Any]:
    """A Secret (or ConfigMap) with one value."""
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "data": {"value": value},
    }
