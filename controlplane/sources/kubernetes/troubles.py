"""What keeps the source from being current: said once when it begins and once when it is over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controlplane.kube.client import ApiError
from controlplane.sources.changes import SourceFault

_log = logging.getLogger(__name__)

_BUSY_TRIES: Final = 3
"""An API server that is busy, or has just started, says so a few times."""


@dataclass(frozen=True, slots=True)
class _Trouble:
    error: ApiError
    optional: bool
    tries: int

    @property
    def outage(self) -> bool:
        """Whether it is more than a request to come back in a moment."""
        return not self.error.forbidden and (self.error.status != 429 or self.tries > _BUSY_TRIES)


class Troubles:
    """By name of what is read (`httproutes.gateway.networking.k8s.io in demo`)."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._found: dict[str, _Trouble] = {}
        self._since: float | None = None

    def note(self, name: str, error: ApiError | None, *, optional: bool = False) -> None:
        """Takes in that something failed, or with None that it works."""
        before = self._found.pop(name, None)
        if error is not None and not error.not_found:
            # What does not exist any more is looked into elsewhere.
            self._found[name] = _Trouble(error, optional, 1 if before is None else before.tries + 1)
            if error.forbidden and (before is None or not before.error.forbidden):
                _log.warning("no permission to read %s: %s", name, error.message)
        self._tell_outage()

    def forget(self, name: str) -> None:
        """Nothing is read by that name any more."""
        self._found.pop(name, None)
        self._tell_outage()

    @property
    def text(self) -> str | None:
        """Words on what is wrong; None if nothing is that one could not live with."""
        found = next((each for each in self._found.values() if each.outage), None)
        if found is None:
            found = next((each for each in self._found.values() if each.error.forbidden and not each.optional), None)
        return str(found.error) if found is not None else None

    @property
    def faults(self) -> tuple[SourceFault, ...]:
        """What is not permitted, as findings."""
        forbidden = {name: each for name, each in self._found.items() if each.error.forbidden}
        return tuple(SourceFault("", 0, forbidden[name].error.message) for name in sorted(forbidden))

    def _tell_outage(self) -> None:
        outage = next((each.error for each in self._found.values() if each.outage), None)
        if outage is not None and self._since is None:
            self._since = self._clock()
            _log.warning("the Kubernetes API at %s fails; what is in force stays: %s", self._url, outage)
        elif outage is None and self._since is not None:
            _log.info("the Kubernetes API answers again after %.1f s", self._clock() - self._since)
            self._since = None
