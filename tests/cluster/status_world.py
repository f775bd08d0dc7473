"""A status writer at work in a cluster: what it observes comes by watches, what it says is told by the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp

from controlplane.api.meta import ObjectKey
from controlplane.kube.access import find_access
from controlplane.kube.client import Api, ApiError
from controlplane.status.encode import Setting, encode
from controlplane.status.writer import Desired, StatusWriter
from tests.support.cluster import Cluster
from tests.support.waiting import until
from tests.unit.status.seen import CONTROLLER, Seen


@asynccontextmanager
async def api_of(cluster: Cluster) -> AsyncGenerator[Api]:
    """The product's own client, with its connections inside the cluster's network."""
    access = await find_access(cluster.kubeconfig, None)
    connector = aiohttp.TCPConnector(limit=0, socket_factory=lambda _: cluster.network.socket())
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Api(access, session)


class StatusWorld:
    """Watches collections, and writes statuses until left; `events` counts what the watches have brought."""

    def __init__(
        self, api: Api, collections: Mapping[str, str], *, controller: str = CONTROLLER, features: Sequence[str] = ()
    ) -> None:
        """`collections`: the path of each that is watched, and the kind of its objects."""
        self.observed: dict[ObjectKey, Seen] = {}
        self.desired: dict[ObjectKey, Desired] = {}
        self.events: Counter[ObjectKey] = Counter()
        self.say: Callable[[ObjectKey], Desired] = lambda key: self.desired.get(key, Desired(None))
        self.setting = Setting(controller, {"gateways.gateway.networking.k8s.io": "v1.6.3"}, features or ("Gateway",))
        self._api = api
        self._collections = collections
        self.writer = StatusWriter(
            api,
            observed=self.observed.get,
            desired=lambda key: self.say(key),
            keys=lambda: list(self.observed),
            setting=lambda: self.setting,
        )

    async def __aenter__(self) -> StatusWorld:
        started = [asyncio.Event() for _ in self._collections]
        self._tasks = [
            asyncio.create_task(self._watch(path, kind, event))
            for (path, kind), event in zip(self._collections.items(), started, strict=True)
        ]
        for event in started:
            await event.wait()
        self._tasks.append(asyncio.create_task(self.writer.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, desired: Mapping[ObjectKey, Desired]) -> None:
        self.desired.update(desired)
        self.writer.enqueue(desired)

    def wrong(self, keys: Iterable[ObjectKey] | None = None) -> list[ObjectKey]:
        """Returns the objects that have another status than they should, as far as the watches have brought them."""
        return [key for key in self.desired if (keys is None or key in keys) and not self._right(key)]

    async def converge(self, within_s: float = 60.0) -> None:
        await until(lambda: not self.wrong(), what="the statuses", within_s=within_s, every_s=0.05)

    async def quiet(self, for_s: float = 0.5) -> None:
        """Waits until no event has come for a while, and nothing waits to be written or is under way."""
        await asyncio.sleep(for_s)
        before = -1
        while before != sum(self.events.values()) or self._depth():
            before = sum(self.events.values())
            await asyncio.sleep(for_s)

    def _depth(self) -> float:
        return (
            next(each for each in self.writer.metrics.collect() if each.name == "dragoman_status_queue")
            .samples[0]
            .value
        )

    def _right(self, key: ObjectKey) -> bool:
        observed = self.observed.get(key)
        desired = self.say(key)
        return observed is not None and (
            encode(
                key,
                desired.status,
                observed,
                now=datetime.now(UTC),
                setting=self.setting,
                generation=desired.generation,
            )
            is None
        )

    async def _watch(self, path: str, kind: str, started: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(ApiError):
                found = await self._api.get(path)
                for item in found["items"]:
                    self._take("ADDED", item, kind, found["apiVersion"], path)
                started.set()
                version = found["metadata"]["resourceVersion"]
                async for line in self._api.lines(path, params={"resourceVersion": version}):
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    self._take(event["type"], event["object"], kind, found["apiVersion"], path)
            await asyncio.sleep(0.1)

    def _take(self, type_: str, item: Mapping[str, Any], kind: str, api_version: str, path: str) -> None:
        metadata = item["metadata"]
        group = api_version.rpartition("/")[0]
        key = ObjectKey(group, kind, metadata.get("namespace", ""), metadata["name"])
        before = self.observed.get(key)
        # A watch that was cut begins with what is known already.
        if type_ == "DELETED" or before is None or before.resource_version != metadata["resourceVersion"]:
            self.events[key] += 1
        if type_ == "DELETED":
            self.observed.pop(key, None)
        else:
            self.observed[key] = Seen(
                item.get("status", {}),
                metadata.get("generation", 1),
                metadata["resourceVersion"],
                metadata["uid"],
                api_version,
                path.rpartition("/")[2],
            )
        self.writer.enqueue((key,))
