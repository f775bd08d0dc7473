"""From routes of connections (TLSRoute, TCPRoute, UDPRoute) to the filter chains of their listeners."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import streams
from controlplane.compile.protocols import STREAM_ROUTES
from controlplane.graph import Derived, Graph
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.policies import Place


class Streams:
    """The chains of each listener that passes connections on, computed for that listener alone."""

    def __init__(self, graph: Graph, attachments: Attachments) -> None:
        self._attachments = attachments
        self._chains: Derived[Place, tuple[ir.StreamChain, ...]] = graph.derive("stream chains", self._compute)

    def chains(self, gateway: ObjectKey) -> Mapping[str, tuple[ir.StreamChain, ...]]:
        """Returns the chains of a Gateway's listeners that are not for requests, by the listener's id."""
        judged = self._attachments.judged.get(gateway) or ()
        ids = [each.id for each in judged if each.serves and set(each.kinds) & set(STREAM_ROUTES)]
        return MappingProxyType({id_: self._chains.get(Place(gateway, id_)) for id_ in ids})

    def _compute(self, place: Place) -> tuple[ir.StreamChain, ...]:
        listener = self._attachments.listener_of(place)
        if listener is None:
            return ()
        members = sorted(self._attachments.on_listener.get(place), key=self._attachments.age)
        routes = [
            streams.Attached(key, self._domains(key, place), self._attachments.compiled.get(key).backends)
            for key in members
            if key.kind in STREAM_ROUTES
        ]
        served = self._attachments.serving.get(place.gateway).hostnames
        return streams.chains(listener, routes, hostnames=served.get((listener.port, listener.transport), {}))

    def _domains(self, route: ObjectKey, place: Place) -> tuple[str, ...]:
        return next((domains for at, domains in self._attachments.places(route) if at == place), ())
