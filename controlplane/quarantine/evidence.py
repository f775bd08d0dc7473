"""What Envoys have said of the versions of a few resources: accepted, rejected, or nothing yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from controlplane.xds.events import Ack, Nack
from controlplane.xds.resources import LISTENER

_MAX_NODES: Final = 64
_OF_THE_MACHINE: Final = ("cannot bind", "cannot listen")


class Watched(NamedTuple):
    """A resource that has been rejected, by the owner of the Envoys, its type and its name."""

    owner: str
    type_url: str
    name: str


Current = Callable[[Watched], str | None]
"""Returns the version of a resource that is published; None where there is none."""


@dataclass(slots=True)
class Evidence:
    """Envoys that reject one version of a resource are asked about the next ones; others are not waited for."""

    rejected: dict[tuple[Watched, str], str] = field(default_factory=dict[tuple[Watched, str], str])
    _accepted: set[tuple[Watched, str]] = field(default_factory=set[tuple[Watched, str]])
    _nodes: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    _published: dict[Watched, tuple[str | None, float]] = field(default_factory=dict[Watched, tuple[str | None, float]])
    _heard: dict[Watched, set[str]] = field(default_factory=dict[Watched, set[str]])

    @property
    def watched(self) -> frozenset[Watched]:
        """The resources that have been rejected."""
        return frozenset(each for each, _ in self.rejected)

    def owners(self) -> frozenset[str]:
        """Returns the owners of the Envoys that have rejected something."""
        return frozenset(each.owner for each, _ in self.rejected)

    def nacked(self, nack: Nack) -> None:
        """Takes in a rejection."""
        nodes = self._nodes.setdefault(nack.owner, set())
        if len(nodes) < _MAX_NODES:
            nodes.add(nack.node_id)
        for name, version in nack.versions.items():
            watched = Watched(nack.owner, nack.type_url, name)
            self.rejected[watched, version] = nack.message
            self._accepted.discard((watched, version))

    def acked(self, ack: Ack, now: float) -> bool:
        """Takes in an acknowledgement; returns whether it says anything of a version that is published."""
        nodes = self._nodes.get(ack.owner)
        if nodes is None or (nodes and ack.node_id not in nodes):
            return False
        told = False
        for name in ack.names:
            watched = Watched(ack.owner, ack.type_url, name)
            _, since = self._published.get(watched, (None, 0.0))
            # What was sent before the version was published says nothing of it.
            if watched in self._published and now - ack.latency_s >= since:
                self._heard.setdefault(watched, set()).add(ack.node_id)
                told = True
        return told

    def went(self, owner: str, node_id: str) -> None:
        """Takes in that an Envoy's stream has ended: when none is left that has rejected anything, any other counts."""
        self._nodes.get(owner, set()).discard(node_id)

    def published(self, current: Mapping[Watched, str | None], now: float) -> None:
        """Takes in which versions are published from a moment on."""
        for watched, version in current.items():
            if watched not in self._published or self._published[watched][0] != version:
                self._published[watched] = (version, now)
                self._heard.pop(watched, None)

    def verdict(self, current: Current, *, of_any: bool = False) -> str | bool | None:
        """Returns why what is published is rejected, True where it is accepted, None as long as that is not known.

        It is accepted when every Envoy has accepted it that has rejected something before; or, `of_any`, one of these.
        """
        waits = False
        for watched in self.watched:
            version = current(watched)
            if version is None:
                continue
            message = self.rejected.get((watched, version))
            if message is not None:
                return message
            if (watched, version) in self._accepted:
                continue
            about = self._published.get(watched, (None, 0.0))[0]
            heard = self._heard.get(watched, set[str]()) if about == version else set[str]()
            nodes = self._nodes.get(watched.owner, set[str]())
            if heard and (of_any or nodes <= heard):
                self._accepted.add((watched, version))
            else:
                waits = True
        return None if waits else True


def is_of_the_machine(nack: Nack) -> bool:
    """Says whether Envoy rejects something for where it runs, such as a port that is taken: no object is at fault.

    Only listeners are rejected for that: what Envoy says of others may quote what anybody has written.
    """
    return nack.type_url == LISTENER and any(words in nack.message for words in _OF_THE_MACHINE)
