"""What the cache holds: owners with what they are to have, and their clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from controlplane.xds.census import Standing, Tally
from controlplane.xds.client import Client
from controlplane.xds.events import Ack, Nack, StreamEvent
from controlplane.xds.linger import Lingering
from controlplane.xds.resources import Snapshot


@dataclass(eq=False, slots=True)
class Session:
    """A client and the means to wake the one who writes to it."""

    client: Client
    wake: Callable[[], None]
    number: int = 0
    standing: Standing | None = None
    unsettled_since: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether the client had answered everything when that was last looked at."""
        return self.standing is None or self.standing.settled


@dataclass(frozen=True, slots=True)
class Observers:
    """Who is told what happens; called on the event loop, and expected to return at once."""

    on_ack: Callable[[Ack], None] | None = None
    on_nack: Callable[[Nack], None] | None = None
    on_stream: Callable[[StreamEvent], None] | None = None
    on_settled: Callable[[str], None] | None = None
    """Hears the name of an owner of whose clients, taken together, something else is to be said: see `census`."""


@dataclass(eq=False, slots=True)
class Waiter:
    """Who waits until an owner (None: all) is settled."""

    owner: str | None
    future: asyncio.Future[None]


@dataclass(slots=True)
class Owner:
    """`published` is what was asked for; `served` holds, besides, the policies that linger. None: nothing yet."""

    name: str
    named: bool = False
    published: Snapshot = field(default_factory=Snapshot)
    served: Snapshot | None = None
    sessions: set[Session] = field(default_factory=set[Session])
    tally: Tally[Session] = field(default_factory=lambda: Tally[Session]())
    lingering: Lingering = field(default_factory=Lingering)
