"""Which clients have moved since they were last looked at, so that who tells others of them looks at no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controlplane.xds.events import ClientSummary

Look = Callable[[], ClientSummary]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Feed:
    """Owner → number of a client that has moved → how to look at it; None for one that is gone."""

    _moved: dict[str, dict[int, Look | None]] = field(default_factory=dict[str, "dict[int, Look | None]"])

    def note(self, owner: str, number: int, look: Look | None) -> None:
        """Takes in that a client has moved."""
        self._moved.setdefault(owner, {})[number] = look

    def owners(self) -> Iterable[str]:
        """Returns the owners that have such clients."""
        return tuple(self._moved)

    def take(self, owner: str) -> tuple[list[ClientSummary], list[int]]:
        """Returns those of an owner as they are now, and the numbers of those that are gone."""
        moved = self._moved.pop(owner, {})
        gone = [number for number, look in moved.items() if look is None]
        return [look() for look in moved.values() if look is not None], gone
