"""Replicas in one process, each with servers of its own: TLS, tokens of one issuer, and one Lease among them."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from controlplane.api.load import key_of
from controlplane.api.meta import ObjectKey
from controlplane.engine import Step
from controlplane.kube.lease import Holder
from controlplane.provision.binding import bind
from controlplane.replicas import METHOD
from controlplane.replicas.replicas import Replicas
from controlplane.server import ControlPlane
from controlplane.sources.changes import Changes, Origin, RawObject
from controlplane.xds.authentication import Authenticated
from controlplane.xds.credentials import KeyPair, ServerTls
from controlplane.xds.identity import RATE_LIMIT_OWNER, Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.resources import CLUSTER, ENDPOINT, LISTENER, ROUTE
from controlplane.xds.server import Context, End
from controlplane.xds.tokens import ServiceAccountTokens
from dragoman.xds_credentials import XdsCredentials
from tests.support.certificates import Authority
from tests.support.manifests import Manifest, endpoint_slice, gateway, gateway_class, route, rule, service
from tests.support.ports import free_port
from tests.support.waiting import until
from tests.unit.xds.accounts import Issuer, shown
from tests.unit.xds.wire_clients import DeltaClient

NAME = "dragoman.system.svc"
ACCOUNT = ("system", "dragoman-controlplane")
LIMITER = ("system", "dragoman-ratelimit")
OWNER = "demo/edge"
SERVED: tuple[Manifest, ...] = (
    gateway_class(),
    gateway(),
    service("web"),
    endpoint_slice("web", "10.0.0.1"),
    route("open", [rule("/open", "web")]),
)


class Source:
    """Objects that a test puts in."""

    def __init__(self, documents: Iterable[Manifest]) -> None:
        self._first = tuple(documents)
        self._queue: asyncio.Queue[Changes] = asyncio.Queue()

    def read(self) -> Changes:
        return Changes(tuple(raw(each) for each in self._first))

    def put(self, *documents: Manifest) -> None:
        self._queue.put_nowait(Changes(tuple(raw(each) for each in documents)))

    async def watch(self, stop: asyncio.Event) -> AsyncIterator[Changes]:
        while not stop.is_set():
            yield await self._queue.get()


def raw(document: Manifest) -> RawObject:
    key = key_of(document)
    assert key is not None
    return RawObject(key, document, Origin(""))


class World:
    """The Lease, the authority of certificates and the issuer of tokens."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.issuer = Issuer()
        self.holder: Holder | None = None
        self.replicas: list[Replica] = []
        self.folder = tempfile.TemporaryDirectory(prefix="dgm-replicas-")

    def leads(self, leader: Replica | None) -> None:
        """Hands the Lease over."""
        self.holder = Holder(leader.identity, leader.address) if leader is not None else None
        for each in self.replicas:
            each.look_who_leads()

    async def replica(
        self, stack: contextlib.AsyncExitStack, name: str, *documents: Manifest, account: tuple[str, str] = ACCOUNT
    ) -> Replica:
        """Starts a replica."""
        return await stack.enter_async_context(Replica(self, name, documents or SERVED, account))


class Replica:
    """A control plane and its part among replicas, joined as in a cluster; `moved` are the owners it was told of."""

    def __init__(self, world: World, name: str, documents: Iterable[Manifest], account: tuple[str, str]) -> None:
        self.world = world
        self.identity = name
        self.address = f"127.0.0.1:{free_port()}"
        self.source = Source(documents)
        self.moved: list[str] = []
        self.registry = CollectorRegistry()
        self.expected: frozenset[str] | None = None
        leaf = world.authority.leaf(NAME)
        tls = ServerTls(KeyPair(leaf.cert_pem.encode(), leaf.key_pem.encode()))
        tokens = ServiceAccountTokens(world.issuer.fetch, services={LIMITER: "ratelimit"}, replicas=ACCOUNT)
        admission = Authenticated(tokens, tls)
        self.token = Path(world.folder.name) / name
        self.token.write_text(world.issuer.token(*account))
        self.plane = ControlPlane(
            self.source,
            bind=bind,
            listen={self.address: admission},
            on_step=self._stepped,
            on_nack=lambda nack: self._moved(nack.owner),
            on_settled=self._moved,
            on_stream=lambda event: self.replicas.came_or_went(event),
            on_key_set=lambda uri: self.replicas.fetched(uri),
            methods={METHOD: self._attend},
            may_begin=lambda: self.replicas.may_begin(),
            policies_settled_elsewhere=lambda: self.replicas.policies_settled(),
            fetch_key_sets=False,
            metrics=XdsMetrics(self.registry),
        )
        self.replicas = Replicas(
            self.plane,
            self,
            identity=name,
            address=name,
            reached_at=self.address,
            metadata=XdsCredentials(token=self.token).metadata,
            others=self._others,
            on_change=self.moved.append,
        )
        self.replicas.trust(world.authority.cert_pem, NAME)
        self._led = False
        self._stack = contextlib.AsyncExitStack()

    # The election, as seen from here

    @property
    def leading(self) -> bool:
        return self.world.holder is not None and self.world.holder.identity == self.identity

    @property
    def holder(self) -> Holder | None:
        return self.world.holder

    async def look(self) -> Holder | None:
        return self.world.holder

    def look_who_leads(self) -> None:
        if self.leading != self._led:
            self._led = self.leading
            self.replicas.lead(self._led)

    async def _others(self) -> frozenset[str] | None:
        return self.expected

    async def __aenter__(self) -> Replica:
        await self._stack.enter_async_context(self.plane)
        running = asyncio.create_task(self.replicas.run())
        self._stack.push_async_callback(_end, running)
        self.world.replicas.append(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Ends it; the Lease stays as it is."""
        if self in self.world.replicas:
            self.world.replicas.remove(self)
        await self._stack.aclose()

    async def _attend(self, context: Context, principal: Principal) -> End | None:
        return await self.replicas.attend(context, principal)

    def _stepped(self, step: Step) -> None:
        self.replicas.stepped(step)

    def _moved(self, owner: str) -> None:
        self.replicas.moved(owner)
        self.moved.append(owner)

    # What a test looks at

    def envoy(self, node_id: str = "envoy") -> Envoy:
        """Returns an Envoy of the Gateway, not connected yet."""
        return Envoy(self, node_id)

    def limiter(self) -> Peer:
        """Returns a worker of the rate limit service, not connected yet."""
        return Peer(self, RATE_LIMIT_OWNER, "limiter", LIMITER)

    async def knows(self, *node_ids: str, settled: bool = True) -> None:
        """Waits until exactly these clients of the Gateway are known, and settled or not."""

        def known() -> bool:
            clients = self.replicas.clients(OWNER)
            as_awaited = all(client.settled == settled and ROUTE in client.types for client in clients)
            return as_awaited and sorted(client.node_id for client in clients) == sorted(node_ids)

        detail = lambda: str(self.replicas.clients(OWNER))  # noqa: E731
        await until(known, what=f"{node_ids} to be known at {self.identity}", detail=detail)

    def refused(self) -> float:
        """How many streams were refused to those who are not who they should be."""
        return self.registry.get_sample_value("dragoman_xds_refused_streams_total", {"reason": "identity"}) or 0

    def overdue(self, awaited: str) -> float:
        """How many pushes went on although what they waited for had not come."""
        return self.registry.get_sample_value("dragoman_xds_overdue_total", {"awaited": awaited}) or 0

    def following(self) -> bool:
        """Whether it has heard everything from who leads."""
        return self.replicas.follows

    def key_set(self, uri: str) -> str | None:
        return self.plane.engine.pipeline.objects.key_sets.peek(uri)

    def accepted(self, key: ObjectKey) -> Any:
        return self.plane.engine.pipeline.objects.accepted.peek(key)


class Peer(DeltaClient):
    """Comes by TLS and shows the token of a service account."""

    def __init__(self, replica: Replica, owner: str, node_id: str, account: tuple[str, str]) -> None:
        super().__init__(replica.address, owner, node_id=node_id)
        self._world = replica.world
        self._account = account

    async def __aenter__(self) -> Any:
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        credentials = grpc.ssl_channel_credentials(self._world.authority.cert_pem.encode())
        self._channel = grpc.aio.secure_channel(self._address, credentials, options=options)
        token = self._world.issuer.token(*self._account)
        self._call = self._channel.stream_stream(self.method)(metadata=shown(token))
        return self


class Envoy(Peer):
    """Subscribes to what Envoys do, and accepts what comes when it is told to."""

    def __init__(self, replica: Replica, node_id: str) -> None:
        super().__init__(replica, OWNER, node_id, ("demo", "dragoman-edge"))

    async def settle(self) -> None:
        """Subscribes and accepts."""
        clusters = await self.fetch(CLUSTER)
        await self.fetch(ENDPOINT, [each.name for each in clusters.resources])
        await self.fetch(LISTENER)
        await self.fetch(ROUTE, [f"{OWNER}/80"])


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
