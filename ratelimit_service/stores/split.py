"""Two stores for one: limits per second count in one of their own, which they alone keep busy."""

from __future__ import annotations

from collections.abc import Sequence

from ratelimit_service.checks import Check, all_fixed
from ratelimit_service.stores.base import Flight, Store
from ratelimit_service.stores.redis_cluster import RedisClusterStore
from ratelimit_service.stores.redis_node import RedisNode
from ratelimit_service.stores.redis_store import RedisStore


class SplitStore:
    """Asks `per_second` about limits per second and `rest` about all others. One may be away without the other."""

    def __init__(self, *, per_second: RedisStore | RedisClusterStore, rest: RedisStore | RedisClusterStore) -> None:
        self._per_second = per_second
        self._rest = rest

    @property
    def available(self) -> bool:
        """Whether both can be asked at present."""
        return self._per_second.available and self._rest.available

    @property
    def lack(self) -> str | None:
        """What is missing of them, in words."""
        told = (("per second", self._per_second.lack), ("others", self._rest.lack))
        return "; ".join(f"{name}: {lack}" for name, lack in told if lack is not None) or None

    @property
    def nodes(self) -> Sequence[RedisNode]:
        """The servers of both."""
        return (*self._rest.nodes, *self._per_second.nodes)

    async def close(self) -> None:
        """Closes both."""
        await self._per_second.close()
        await self._rest.close()

    def take(self, checks: Sequence[Check], now: float, flight: Flight) -> None:
        """Divides the checks between the two; the flight is settled when both have replied."""
        quick = [index for index, check in enumerate(checks) if check.limit.seconds == 1]
        if not quick:
            self._rest.take(checks, now, flight)
        elif len(quick) == len(checks):
            self._per_second.take(checks, now, flight)
        else:
            flight.replies = [None] * len(checks)
            flight.left = 2
            slow = [index for index, check in enumerate(checks) if check.limit.seconds != 1]
            self._take(self._rest, checks, slow, now, flight)
            self._take(self._per_second, checks, quick, now, flight)

    def _take(self, store: Store, checks: Sequence[Check], indexes: Sequence[int], now: float, flight: Flight) -> None:
        part = [checks[index] for index in indexes]
        store.take(part, now, _Part(flight, indexes, together=flight.together and not all_fixed(part)))


class _Part(Flight):
    """The questions of a flight that go to one of the stores."""

    __slots__ = ("_indexes", "_whole", "together")

    def __init__(self, whole: Flight, indexes: Sequence[int], *, together: bool) -> None:
        super().__init__()
        self.together = together
        self._whole = whole
        self._indexes = indexes

    def settle(self) -> None:
        whole = self._whole
        for index, reply in zip(self._indexes, self.replies, strict=True):
            whole.replies[index] = reply
        whole.left -= 1
        if not whole.left:
            whole.settle_or_fail()
