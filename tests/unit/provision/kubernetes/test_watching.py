"""What is known of the objects that were made for Gateways, from an API server that lists and watches."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from controlplane.kube.access import fixed_access
from controlplane.kube.client import Api
from controlplane.provision.kubernetes.watching import DEPLOYMENT, KINDS, SERVICE, Document, Id, Watched
from tests.support.kube_api import FakeKubeApi, Refusal
from tests.support.waiting import until

NAME = "dragoman-edge"


def service(name: str = NAME, **spec: Any) -> Document:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "demo", "name": name}, "spec": spec}


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[None]:
    task = asyncio.create_task(watched.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def server() -> AsyncIterator[tuple[FakeKubeApi, Api]]:
    async with FakeKubeApi() as fake:
        for kind in KINDS:
            group, slash, version = kind.api_version.partition("/")
            if slash:
                fake.define(kind.kind, version, group=group)
        fake.define("ServiceAccount", "v1", group="")
        async with Api.over(fixed_access(fake.url)) as api:
            yield fake, api


async def test_what_was_made_is_known_and_what_went_unseen_is_gone() -> None:
    told: list[tuple[Id, bool, bool]] = []
    id_ = Id(SERVICE, "demo", NAME)
    async with server() as (fake, api):
        watched = Watched(api, on_change=lambda id_, before, after: told.append((id_, bool(before), bool(after))))
        fake.put(service(type="ClusterIP"))
        async with running(watched):
            await asyncio.wait_for(watched.synced.wait(), 10)
            assert watched.get(id_) is not None
            fake.put(service(type="NodePort"))
            await until(lambda: (watched.get(id_) or {}).get("spec") == {"type": "NodePort"}, what="the change")
            fake.delete("Service", "demo", NAME, tell=False)
            fake.compact()
            fake.cut("services")
            await until(lambda: watched.get(id_) is None, what="a list that lacks it")
    assert told == [(id_, False, True), (id_, True, True), (id_, True, False)]
    selecting = {parameters.get("labelSelector") for verb, _, parameters in fake.requests if verb in ("list", "watch")}
    assert selecting == {"app.kubernetes.io/managed-by=dragoman,app.kubernetes.io/name=envoy"}


async def test_a_kind_that_may_not_be_listed_is_not_waited_for() -> None:
    async with server() as (fake, api):
        fake.refusals[f"list {DEPLOYMENT.path()}"] = Refusal(403, "Forbidden")
        watched = Watched(api, on_change=lambda *_: None)
        async with running(watched):
            await asyncio.wait_for(watched.synced.wait(), 10)


class Ending:
    """An API whose watches end at once, without a word."""

    def __init__(self) -> None:
        self.watches: Counter[str] = Counter()

    async def get(self, path: str, **_: Any) -> Document:
        return {"metadata": {"resourceVersion": "1"}, "items": []}

    async def lines(self, path: str, **_: Any) -> AsyncGenerator[bytes]:
        self.watches[path] += 1
        for line in ():
            yield line


async def test_watches_that_end_at_once_are_asked_for_more_and_more_seldom() -> None:
    api = Ending()
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await Watched(cast("Api", api), on_change=lambda *_: None).run()
    assert len(api.watches) == len(KINDS)
    assert max(api.watches.values()) < 10
