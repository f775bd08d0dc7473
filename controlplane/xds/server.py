"""The aggregated discovery service: gRPC streams, delta and state of the world, over bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from controlplane.xds.authentication import Authenticated
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.listening import Limits, ListenError, is_local
from controlplane.xds.streams import DELTA, SOTW, Admission, Context, Dialect, End, Gate, Method

__all__ = ["Admission", "AdsServer", "Context", "End", "Engine", "Limits", "ListenError", "Method", "serve_ads"]

_SERVICE: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService"
DELTA_METHOD: Final = f"{_SERVICE}/DeltaAggregatedResources"
SOTW_METHOD: Final = f"{_SERVICE}/StreamAggregatedResources"

_PRUNE_INTERVAL_S: Final = 5.0

Engine = Literal["ngh2", "grpcio"]
"""What carries the streams; both do the same, and ngh2 for a tenth of the memory."""


class _Server(Protocol):
    async def listen(self, text: str) -> str: ...
    async def stop(self, grace_s: float) -> None: ...


@dataclass(slots=True)
class AdsServer:
    """A running discovery service; `addresses` are the bound ones, in the order of `listen`."""

    addresses: tuple[str, ...]
    _servers: list[_Server]
    _gate: Gate
    _pruning: asyncio.Task[None]

    async def stop(self, grace_s: float = 0.0) -> None:
        """Ends all streams, so that clients turn to another replica, and closes the listeners."""
        self._pruning.cancel()
        self._gate.end_all()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


async def serve_ads(
    cache: SnapshotCache,
    *,
    listen: Mapping[str, Admission],
    methods: Mapping[str, Method] | None = None,
    limits: Limits | None = None,
    insecure_off_loopback: bool = False,
    engine: Engine | None = None,
) -> AdsServer:
    """Serves the cache on each address (`unix:/path`, created with mode 0600, or `HOST:PORT`) to who comes by it.

    Raises ListenError for a busy address, and for plaintext off loopback unless that is asked for. TLS alone lets
    nobody in: a certificate comes with an authenticator. `methods` (`/SERVICE/METHOD`) are served beside it, to
    those who are let in. Without an `engine`, it is ngh2 where that can be loaded.
    """
    limits = limits or Limits()
    gate = Gate(limits)
    make = load_engine(engine)
    servers: list[_Server] = []
    addresses: list[str] = []
    try:
        for address, admission in listen.items():
            secured = isinstance(admission, Authenticated) and admission.tls is not None
            if not (secured or insecure_off_loopback or is_local(address)):
                raise ListenError(f"{address}: plaintext xDS is served on loopback and Unix sockets only")
            dialects = {DELTA_METHOD: DELTA, SOTW_METHOD: SOTW}
            server = make(cache, gate, admission, dialects=dialects, methods=methods or {}, limits=limits)
            servers.append(server)
            addresses.append(await server.listen(address))
    except BaseException:
        await asyncio.gather(*(server.stop(0.0) for server in servers))
        raise
    return AdsServer(tuple(addresses), servers, gate, asyncio.create_task(_prune(cache)))


async def _prune(cache: SnapshotCache) -> None:
    while True:
        await asyncio.sleep(_PRUNE_INTERVAL_S)
        cache.prune()


class _Make(Protocol):
    def __call__(
        self,
        cache: SnapshotCache,
        gate: Gate,
        admission: Admission,
        *,
        dialects: Mapping[str, Dialect],
        methods: Mapping[str, Method],
        limits: Limits,
    ) -> _Server: ...


def load_engine(asked: Engine | None) -> _Make:
    """Returns what makes servers; raises ImportError where that cannot be loaded."""
    # Imported when it is known which: loading grpcio takes longer than serving from what was kept.
    if asked != "grpcio":
        try:
            from controlplane.xds.ngh2_engine import Ngh2Server

            return Ngh2Server
        except ImportError:
            if asked is not None:
                raise
    from controlplane.xds.grpcio_engine import GrpcioServer

    return GrpcioServer
