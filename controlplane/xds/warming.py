"""Clusters that are new at a client: routes to them wait until they have endpoints, but not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controlplane.xds.order import Timing
from controlplane.xds.overlay import Have
from controlplane.xds.subscription import Subscription


@dataclass(slots=True)
class Warming:
    """The clusters whose endpoints are awaited, and since when."""

    _since: dict[str, float] = field(default_factory=dict[str, float])

    def begin(self, names: Iterable[str], now: float) -> None:
        """Takes in that the client has acknowledged clusters that are new to it."""
        self._since.update(dict.fromkeys(names, now))

    def awaits(
        self,
        endpoints: Subscription | None,
        clusters: Have,
        *,
        timing: Timing,
        before: Callable[[float], bool],
        overdue: Callable[[str], None],
    ) -> bool:
        """Whether any is not warm yet: its endpoints are acknowledged, or have been awaited enough.

        `before` says whether a moment is yet to come, `overdue` hears of what is waited for no longer.
        """
        if not self._since:
            return False
        waiting = False
        for name, since in list(self._since.items()):
            cluster = clusters.get(name)
            asked = endpoints is not None and endpoints.wants(name)
            if cluster is None:
                del self._since[name]
            elif asked and endpoints is not None and not endpoints.owes(name):
                # Acknowledged; what a health check takes beyond that is counted from the cluster's own acknowledgement.
                if before(since + cluster.warm_s):
                    waiting = True
                else:
                    del self._since[name]
            elif before(since + (timing.warm_wait_s if asked else timing.subscribe_grace_s)):
                waiting = True
            else:
                del self._since[name]
                overdue(f"cluster {name} is not warm in time; routes to it follow all the same")
        if not self._since:
            self._since.clear()  # Empty, it holds the room that it once needed.
        return waiting
