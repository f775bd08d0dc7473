"""Listeners and the certificates that they show: derived from Gateways, ListenerSets and Secrets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile import frontend, gateway
from controlplane.graph import Derived, Graph, Table
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.streams import Streams
from controlplane.translate import clusters, listeners
from controlplane.xds import resources as xds
from controlplane.xds.resources import Resource


class Listeners:
    """The listeners of each Gateway, by port. `bindings` says what each port is bound to, and is set from outside."""

    def __init__(self, graph: Graph, objects: Objects, attachments: Attachments) -> None:
        self._objects = objects
        self._attachments = attachments
        self._streams = Streams(graph, attachments)
        self.bindings: Table[tuple[str, int], tuple[tuple[str, int], ...]] = graph.table("bindings")
        self._ports: Derived[ObjectKey, tuple[ir.PortListener, ...]] = graph.derive("ports", self._compute_ports)
        self._listener: Derived[tuple[ObjectKey, str], Resource | None] = graph.derive(
            "listener", self._compute_listener
        )
        # A port may have thousands of chains, of which a change touches one.
        self._chain: Derived[tuple[listeners.Chain, str, bool], bytes] = graph.derive(
            "filter chain", lambda key: listeners.chain(*key, quota_mode=objects.quota_mode)
        )
        self._secret: Derived[str, Resource | None] = graph.derive("secret", self._compute_secret)
        self._authorities: Derived[tuple[ObjectKey, str], Resource | None] = graph.derive(
            "client authorities", self._compute_authorities
        )

    def ports(self, key: ObjectKey) -> tuple[ir.PortListener, ...]:
        """Returns what a Gateway listens on."""
        return self._ports.get(key)

    def listeners(self, key: ObjectKey) -> Iterable[Resource | None]:
        """Yields the listeners of a Gateway; None for one that is bound to nothing."""
        return (self._listener.get((key, each.name)) for each in self._ports.get(key))

    def secrets(self, key: ObjectKey) -> Iterable[Resource | None]:
        """Yields the certificates that the listeners of a Gateway show, and whom they trust clients by."""
        names = {name for each in self._chains(key) for name in each.certificates}
        yield from (self._secret.get(name) for name in sorted(names))
        trusted = {
            each.clients.ca_secret for each in self._chains(key) if isinstance(each, ir.FilterChain) and each.clients
        }
        yield from (self._authorities.get((key, name)) for name in sorted(trusted))

    def certificate(self, name: str) -> Resource | None:
        """Returns the certificate that a Secret (`NAMESPACE/NAME`) holds."""
        return self._secret.get(name)

    def route_configurations(self, key: ObjectKey) -> list[str]:
        """Returns the names of the RouteConfigurations that the listeners of a Gateway refer to."""
        return sorted({each.route_config for each in self._chains(key) if isinstance(each, ir.FilterChain)})

    def _chains(self, key: ObjectKey) -> Iterable[ir.FilterChain | ir.StreamChain]:
        return chain.from_iterable(port.chains for port in self._ports.get(key))

    def _compute_ports(self, key: ObjectKey) -> tuple[ir.PortListener, ...]:
        found = self._objects.get(key)
        judged = self._attachments.judged.get(key)
        if found is None or not judged:
            return ()
        return gateway.port_listeners(found, judged, self._streams.chains(key))

    def _compute_listener(self, key: tuple[ObjectKey, str]) -> Resource | None:
        gateway_key, name = key
        source = next((each for each in self._ports.get(gateway_key) if each.name == name), None)
        bind = self.bindings.get((f"{gateway_key.namespace}/{gateway_key.name}", source.port)) if source else None
        if source is None or bind is None:
            return None
        body = listeners.listener(source, bind=bind, encode_chain=self._encoded)
        origins = dict.fromkeys(each.origin for each in source.chains if isinstance(each, ir.StreamChain))
        return Resource.of(xds.LISTENER, source.name, body, (source.origin, *origins))

    def _encoded(self, chain_: listeners.Chain, listener: str, tls: bool) -> bytes:
        return self._chain.get((chain_, listener, tls))

    def _compute_secret(self, name: str) -> Resource | None:
        source = gateway.certificate(self._objects, name)
        if source is None:
            return None
        return Resource.of(xds.SECRET, name, listeners.secret(source), (source.origin,))

    def _compute_authorities(self, key: tuple[ObjectKey, str]) -> Resource | None:
        gateway_key, name = key
        found = self._objects.get(gateway_key)
        source = frontend.authorities(self._objects, found, name) if found is not None else None
        if source is None:
            return None
        return Resource.of(xds.SECRET, name, clusters.authorities(name, source.pem), (source.origin,))
