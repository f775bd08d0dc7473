"""What stands before the control plane: xDS is served from what was kept, while the rest of it is still loading."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from controlplane.kept.store import Kept, Store, open_store
from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.server import Admission, AdsServer, Method, serve_ads

if TYPE_CHECKING:
    from controlplane.kept.keeper import Keeper

_log = logging.getLogger(__name__)

FILE: Final = "kept.db"
_MAX_NACKS: Final = 1_000


@dataclass(slots=True)
class Front:
    """What was kept, in a cache that may be served already: then `ads` is who does it.

    `nacks` are what clients rejected until somebody else heard them.
    """

    cache: SnapshotCache
    kept: Kept
    ads: AdsServer | None = None
    store: Store | None = None
    nacks: dict[tuple[str, str], Nack] = field(default_factory=dict[tuple[str, str], Nack])

    def keeper(self) -> Keeper | None:
        """Returns what keeps from now on what is published; None where nothing can be kept."""
        if self.store is None:
            return None
        from controlplane.kept.keeper import Keeper

        return Keeper(self.store, self.cache.standing, known=self.kept.snapshots)

    async def serve(
        self,
        stack: AsyncExitStack,
        *,
        listen: Mapping[str, Admission],
        methods: Mapping[str, Method] | None = None,
        insecure_off_loopback: bool = False,
    ) -> None:
        """Serves xDS; `stack` ends it. Raises ListenError."""
        self.ads = await serve_ads(
            self.cache, listen=listen, methods=methods, insecure_off_loopback=insecure_off_loopback
        )
        stack.push_async_callback(self.ads.stop, 0.0)
        if self.words:
            _log.info("%s", self.words)

    @property
    def words(self) -> str:
        """What was kept and is served, in words; empty where nothing is."""
        if not self.kept.snapshots or self.ads is None:
            return ""
        when = f" at {self.kept.at:%Y-%m-%dT%H:%M:%SZ}" if self.kept.at is not None else ""
        left_out = f" (without {self.kept.withheld} resources that hold secrets)" if self.kept.withheld else ""
        return f"serving the snapshot that was kept{when}{left_out}"


def open_front(*, state: Path, source: str, key: bytes | None = None, metrics: XdsMetrics | None = None) -> Front:
    """Returns what was kept of a source in the folder `state`, not yet served."""
    store, kept = open_store(state / FILE, source, key=key)
    nacks: dict[tuple[str, str], Nack] = {}

    def rejected(nack: Nack) -> None:
        if len(nacks) < _MAX_NACKS:
            nacks[nack.owner, nack.type_url] = nack

    cache = SnapshotCache(observers=Observers(on_nack=rejected), metrics=metrics)
    cache.publish(kept.snapshots)
    return Front(cache, kept, store=store, nacks=nacks)
