"""A Redis Cluster of real servers on loopback, whose slots can be moved and whose nodes can be killed."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import redis.asyncio as redis_client

from tests.support.ports import free_port_with
from tests.support.redis import RedisServer
from tests.support.waiting import until

SLOTS = 16_384
_BUS = 10_000
"""How far above its port a node listens to the others."""


class ClusterNode(RedisServer):
    """A server in cluster mode; after a `kill` it comes back as the node that it was."""

    def __init__(self, *arguments: str, password: str | None = None) -> None:
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "1000"),
            *("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"),
            *arguments,
            password=password,
            port=free_port_with(_BUS),
        )

    def announce(self, port: int) -> None:
        """Has the cluster tell clients that this node, which is not started yet, is at another port: a relay's."""
        self._arguments = (*self._arguments, "--cluster-announce-port", str(port))

    async def run(self, *words: Any) -> Any:
        """Runs a command on this node."""
        async with redis_client.from_url(self.url) as client:
            return await client.execute_command(*words)

    async def id(self) -> str:
        """Returns what the cluster calls this node."""
        return (await self.run("CLUSTER", "MYID")).decode()

    async def facts(self) -> dict[str, str]:
        """Returns CLUSTER INFO."""
        found: bytes = await self.run("CLUSTER", "INFO")
        return dict(line.split(":", 1) for line in found.decode().split())


class RedisCluster:
    """`async with RedisCluster() as cluster`: `primaries` share the slots evenly; each has `replicas`, in step."""

    def __init__(self, *arguments: str, primaries: int = 3, replicas: int = 0, password: str | None = None) -> None:
        auth = ("--masterauth", password) if password else ()
        self.primaries = [ClusterNode(*arguments, *auth, password=password) for _ in range(primaries)]
        self.replicas = [ClusterNode(*arguments, *auth, password=password) for _ in range(primaries * replicas)]
        self._founders = primaries
        self._password = password
        self._stack = contextlib.AsyncExitStack()

    @property
    def nodes(self) -> list[ClusterNode]:
        """All nodes."""
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        """The URL of the store; it names two of the nodes."""
        credentials = f":{self._password}@" if self._password else ""
        return f"redis+cluster://{credentials}" + ",".join(f"127.0.0.1:{node.port}" for node in self.primaries[:2])

    async def __aenter__(self) -> RedisCluster:
        try:
            for node in self.nodes:
                await self._stack.enter_async_context(node)
            await self._join()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, fault, trace)

    def owner(self, slot: int) -> ClusterNode:
        """Returns the primary that was given a slot when the cluster was made."""
        return self.primaries[slot * self._founders // SLOTS]

    async def add(self) -> ClusterNode:
        """Adds a primary without slots."""
        node = ClusterNode(*(("--masterauth", self._password) if self._password else ()), password=self._password)
        await self._stack.enter_async_context(node)
        await self._meet(node)
        self.primaries.append(node)
        await until(self._acquainted, what="the new node to be known to all")
        await until(self._well, what="the cluster to be well")
        return node

    async def begin_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Opens a slot for its move: a new key is made at the target from now on."""
        await target.run("CLUSTER", "SETSLOT", slot, "IMPORTING", await source.id())
        await source.run("CLUSTER", "SETSLOT", slot, "MIGRATING", await target.id())

    async def end_move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Moves the keys of an open slot, then the slot."""
        auth = ("AUTH", self._password) if self._password else ()
        while keys := await source.run("CLUSTER", "GETKEYSINSLOT", slot, 100):
            await source.run("MIGRATE", "127.0.0.1", target.port, "", 0, 2000, *auth, "KEYS", *keys)
        for node in (target, source):
            await node.run("CLUSTER", "SETSLOT", slot, "NODE", await target.id())

    async def move(self, slot: int, source: ClusterNode, target: ClusterNode) -> None:
        """Moves a slot with its keys, as `redis-cli --cluster reshard` does."""
        await self.begin_move(slot, source, target)
        await self.end_move(slot, source, target)

    async def _join(self) -> None:
        count = len(self.primaries)
        for index, node in enumerate(self.primaries):
            slots = [slot for slot in range(SLOTS) if slot * count // SLOTS == index]
            await node.run("CLUSTER", "ADDSLOTS", *slots)
        for epoch, node in enumerate(self.nodes, 1):
            await node.run("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for node in self.nodes[1:]:
            await self._meet(node)
        await until(self._acquainted, what="the nodes to know one another", within_s=15)
        for index, node in enumerate(self.replicas):
            await node.run("CLUSTER", "REPLICATE", await self.primaries[index % count].id())
        await until(self._well, what="the cluster to be well", within_s=15)

    async def _meet(self, node: ClusterNode) -> None:
        await self.primaries[0].run("CLUSTER", "MEET", "127.0.0.1", node.port)

    async def _acquainted(self) -> bool:
        return all([int((await node.facts())["cluster_known_nodes"]) == len(self.nodes) for node in self.nodes])

    async def _well(self) -> bool:
        for node in self.nodes:
            if (await node.facts())["cluster_state"] != "ok":
                return False
            # Every node must know of every replica, for one of them to be elected.
            known: bytes = await node.run("CLUSTER", "NODES")
            if known.count(b"slave") != len(self.replicas):
                return False
        for node in self.replicas:
            async with redis_client.from_url(node.url) as client:
                if (await client.info("replication"))["master_link_status"] != "up":
                    return False
        return True
