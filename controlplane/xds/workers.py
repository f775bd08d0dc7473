"""The services whose workers have not come yet since the start: routes must not name policies that nobody has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class FirstWorkers:
    """The services that are awaited, and until when.

    After a restart an Envoy may be back before the workers are. Then there is nobody whose answer could be waited for,
    and requests to new routes would be refused, for no worker knows their policy. Until then Envoy goes on with what it
    has.
    """

    awaited: set[str] = field(default_factory=set[str])
    until: float = 0.0

    def came(self, owner: str) -> None:
        """Takes in that a client of this owner has subscribed: from now on its answers are waited for."""
        self.awaited.discard(owner)

    def due(self, having_policies: Iterable[str]) -> float:
        """Returns the moment until which routes wait for the first workers of services that have policies."""
        return self.until if self.awaited and not self.awaited.isdisjoint(having_policies) else 0.0
