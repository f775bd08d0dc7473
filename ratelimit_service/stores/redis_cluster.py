"""Counters in a Redis Cluster, each on the node that serves its slot: one that is away is missed by its slots alone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence

from redis.crc import key_slot

from dragoman.batch import Batch
from ratelimit_service.checks import Check, all_fixed
from ratelimit_service.stores.base import Flight
from ratelimit_service.stores.redis_commands import decide, key_of
from ratelimit_service.stores.redis_connection import Question, Resent
from ratelimit_service.stores.redis_dial import RefusedError
from ratelimit_service.stores.redis_node import NodeOptions, RedisNode
from ratelimit_service.stores.redis_slots import SLOTS, Range, ask_for_slots, coverage, named
from ratelimit_service.stores.redis_url import RedisTarget, RedisUrl

_log = logging.getLogger(__name__)

_MAX_TRIES = 5
_TRY_AGAIN_S = 0.002
_PATIENT_TRIES = 2
_MAX_NODES = 1024
_REFRESH_S = 30.0
"""How old the map of slots gets when nothing happens."""
_TROUBLED_S = 0.15
"""How old it gets while a node is away."""
_SETTLE_S = 0.3
"""How long slots wait for the connection to the node that serves them now."""
_KEEP_S = 60.0
"""How long a node is kept that serves no slot: one that slots are moved to serves none at first."""
_LOG_EVERY_S = 10.0


class RedisClusterStore:
    """Follows the cluster's map of slots: anew when a node says so (MOVED), when one goes, and now and then."""

    def __init__(
        self,
        url: RedisUrl,
        *,
        timeout_s: float = 0.02,
        max_pending: int = 16_384,
        server_time: bool = True,
        batch: Batch | None = None,
    ) -> None:
        self._url = url
        self._options = NodeOptions(timeout_s=timeout_s, max_pending=max_pending, server_time=server_time, batch=batch)
        self._nodes: dict[RedisTarget, RedisNode] = {}
        self._unlisted: dict[RedisTarget, float] = {}
        self._slots: list[RedisNode | None] = [None] * SLOTS
        self._primaries: tuple[RedisNode, ...] = ()
        self._covered = 0
        self._stale = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._told_at = float("-inf")

    @property
    def available(self) -> bool:
        """Whether any node can be asked at present."""
        return any(node.available for node in self._primaries)

    @property
    def lack(self) -> str | None:
        """What is missing, in words."""
        away = sorted(node.name for node in self._primaries if not node.available)
        if not self._primaries or len(away) == len(self._primaries):
            return "cannot be asked"
        told = [f"{', '.join(away)} cannot be asked"] if away else []
        told += [f"{node.name} {node.lack}" for node in self._primaries if node.available and node.lack is not None]
        if self._covered < SLOTS:
            told.append(f"{SLOTS - self._covered} slots have no primary")
        return "; ".join(told) or None

    @property
    def nodes(self) -> Sequence[RedisNode]:
        """The primaries."""
        return self._primaries

    @property
    def whole(self) -> bool:
        """Whether every slot has a node that can be asked."""
        return self._covered == SLOTS and all(node.available for node in self._primaries)

    def start(self) -> None:
        """Begins to learn of the nodes and to connect."""
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Ends the connections."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for node in self._nodes.values():
            await node.close()

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Sends each check to its node; those whose node is away get no reply, and the others do.

        What is decided together is so where it shares a slot.
        """
        slots = self._slots
        flight.replies = [None] * len(checks)
        flight.asked_at = now
        flight.sent_at = time.monotonic()
        asked = self._together(checks, now) if flight.together else tuple(enumerate(checks))
        flight.left = len(asked)
        missed = 0
        for index, check in asked:
            node = slots[key_slot(key_of(check, now))]
            connection = node.connection if node is not None else None
            if node is not None and connection is not None and connection.usable:
                node.ask(connection, check, now, (flight, index, check))
            else:
                missed += 1
                if node is not None:
                    node.pass_over(1)
        if missed:
            flight.left -= missed
            if not flight.left:
                flight.settle()

    def _together(self, checks: Sequence[Check], now: float) -> list[tuple[int, Check]]:
        """Returns what to ask, each with its place among the replies: checks of one slot as one."""
        by_slot: dict[int, list[tuple[int, Check]]] = {}
        for index, check in enumerate(checks):
            by_slot.setdefault(key_slot(key_of(check, now)), []).append((index, check))
        asked: list[tuple[int, Check]] = []
        for same in by_slot.values():
            if all_fixed([check for _, check in same]):
                asked += same
            else:
                asked.append((same[0][0], decide(same, now)))
        return asked

    def _redirect(self, node: RedisNode, question: Question | Resent, message: str) -> bool:
        kind, _, rest = message.partition(" ")
        if kind == "CLUSTERDOWN":
            self._stale.set()
            return False
        if kind == "TRYAGAIN":
            return self._try_again(node, node.resent(question))
        if kind not in ("MOVED", "ASK"):
            return False
        slot, target = self._told(node, rest)
        if kind == "MOVED":
            self._stale.set()
            if target is not None:
                self._slots[slot] = target
        resent = node.resent(question)
        if target is None or resent.tries > _MAX_TRIES:
            node.refuse(resent, kind, message)
        elif resent.open:
            resent.asking = kind == "ASK"
            target.ask_again(resent)
        return True

    def _try_again(self, node: RedisNode, resent: Resent) -> bool:
        """Some keys of the question have moved already, and others not: soon all will have, if there are few."""
        flight, _, check = resent.question
        if resent.tries > _MAX_TRIES or not resent.open:
            return False
        if resent.tries <= _PATIENT_TRIES or not check.together:
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, node.ask_again, resent)
            return True
        # Decided one by one rather than not at all.
        resent.close()
        flight.left += len(check.together) - 1
        for index, _, each in check.together:
            # What is refused already takes nothing: alone, it only looks.
            looks = not each.take and each.limit.script is not None
            node.ask_again(node.resent((flight, index, each._replace(hits=0) if looks else each)))
        return True

    def _told(self, node: RedisNode, rest: str) -> tuple[int, RedisNode | None]:
        """Reads SLOT HOST:PORT, of MOVED and ASK."""
        slot, _, address = rest.partition(" ")
        host, _, port = address.rpartition(":")
        asked = node.target
        if asked is None or not (slot.isdigit() and int(slot) < SLOTS and port.isdigit()):
            return 0, None
        name = named(host, asked)
        return int(slot), self._node(name, int(port)) if name else None

    def _node(self, host: str, port: int) -> RedisNode | None:
        target = self._url.server.at(host, port)
        node = self._nodes.get(target)
        if node is None and len(self._nodes) < _MAX_NODES:

            async def find() -> RedisTarget:
                return target

            node = self._nodes[target] = RedisNode(
                str(target), find, self._options, redirect=self._redirect, went=self._stale.set
            )
            node.start()
        # A node that is needed is not given up for a while, whether or not it serves slots.
        if target in self._unlisted:
            self._unlisted[target] = time.monotonic()
        return node

    async def _follow(self) -> None:
        failures = troubled = 0
        while True:
            self._stale.clear()
            try:
                await self._adopt(await ask_for_slots(self._candidates()))
            except RefusedError as error:
                failures += 1
                self._tell(str(error))
                await asyncio.sleep(min(1.0, 0.05 * 2 ** min(failures, 5)) * random.uniform(0.5, 1.0))  # noqa: S311
                continue
            failures = 0
            troubled = 0 if self.whole else troubled + 1
            await asyncio.sleep(min(1.0, _TROUBLED_S + 0.01 * troubled) * random.uniform(0.7, 1.3))  # noqa: S311
            if self.whole:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH_S * random.uniform(0.8, 1.2)):  # noqa: S311
                        await self._stale.wait()

    def _candidates(self) -> list[RedisTarget]:
        """Whom to ask, in turn: nodes that answer, then those that the URL names, then any."""
        known = random.sample(list(self._nodes), len(self._nodes))
        up = [target for target in known if self._nodes[target].available]
        seeds = random.sample(self._url.seeds, len(self._url.seeds))
        return list(dict.fromkeys([*up, *seeds, *known]))

    async def _adopt(self, ranges: list[Range]) -> None:
        serving: list[tuple[Range, RedisNode]] = []
        for each in ranges:
            node = self._node(each.host, each.port)
            if node is not None:
                serving.append((each, node))
        primaries = tuple(dict.fromkeys(node for _, node in serving))
        await _settled(primaries)
        slots: list[RedisNode | None] = [None] * SLOTS
        for each, node in serving:
            slots[each.first : each.last + 1] = [node] * (each.last + 1 - each.first)
        self._slots = slots
        self._covered = coverage([each for each, _ in serving])
        if set(primaries) != set(self._primaries):
            _log.info("the primaries of the Redis Cluster are %s", ", ".join(sorted(node.name for node in primaries)))
        self._primaries = primaries
        await self._retire(primaries)

    async def _retire(self, primaries: Sequence[RedisNode]) -> None:
        """Gives up nodes that have served no slot for a while."""
        now = time.monotonic()
        listed = set(primaries)
        for target, node in tuple(self._nodes.items()):
            if node in listed:
                self._unlisted.pop(target, None)
            elif now - self._unlisted.setdefault(target, now) > _KEEP_S:
                del self._nodes[target], self._unlisted[target]
                await node.close()

    def _tell(self, message: str) -> None:
        if time.monotonic() - self._told_at >= _LOG_EVERY_S:
            self._told_at = time.monotonic()
            _log.warning("%s. Limits follow on_store_error where their node is away", message)


async def _settled(nodes: Sequence[RedisNode]) -> None:
    """Waits until each node is connected to, or known to be away; not for long."""
    waiting = [asyncio.ensure_future(node.settled.wait()) for node in nodes if not node.settled.is_set()]
    if waiting:
        _, pending = await asyncio.wait(waiting, timeout=_SETTLE_S)
        for each in pending:
            each.cancel()
