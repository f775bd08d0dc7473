"""Which connections of a TLS, TCP or UDP listener go where (Gateway API: TLSRoute, TCPRoute, UDPRoute)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from controlplane.api.meta import ObjectKey
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.hosts import ANY, covers, most_specific
from controlplane.compile.shares import cluster_of_route
from controlplane.ir import ClusterId, StreamChain, UpstreamPolicy, WeightedBackend


@dataclass(frozen=True, slots=True)
class Attached:
    """A route on the listener: its domains there, and where its connections go."""

    route: ObjectKey
    domains: tuple[str, ...]
    backends: tuple[WeightedBackend, ...]


def chains(
    listener: GatewayListener, routes: Sequence[Attached], *, hostnames: Collection[str] = ()
) -> tuple[StreamChain, ...]:
    """Returns the chains of a listener; `routes` come in the order of precedence, the oldest first.

    On TCP and UDP the first route has everything. A TLS listener has a chain for each domain, but for those that belong
    to a listener with a more specific hostname: `hostnames` has those of all listeners on the port, `*` for none.
    """
    mine = (listener.hostname or ANY).lower()
    found: dict[str, StreamChain] = {}
    for each in routes:
        backends = tuple(passed_on(listener, each.route, each.backends))
        for domain in each.domains:
            if most_specific(hostnames, domain) in (mine, None):
                found.setdefault(domain, _chain(listener, domain, backends, str(each.route)))
    if mine not in found and any(other != mine and covers(other, mine) for other in hostnames):
        found[mine] = _chain(listener, mine, (), "")
    return tuple(found.values())


def passed_on(
    listener: GatewayListener, route: ObjectKey, backends: Iterable[WeightedBackend]
) -> Iterable[WeightedBackend]:
    """Yields where connections of a route go from this listener, a share for each.

    TLS that goes through is not wrapped in TLS once more; datagrams go to a cluster of the route's own.
    """
    if listener.protocol == "UDP":
        yield WeightedBackend(cluster_of_route(route), 1)
        return
    through = listener.protocol == "TLS" and not listener.ends_tls
    for each in backends:
        yield replace(each, cluster=_untouched(each.cluster)) if through and each.cluster is not None else each


def _untouched(cluster: ClusterId) -> ClusterId:
    return cluster._replace(policy=UpstreamPolicy(carries="tls"))


def _chain(listener: GatewayListener, domain: str, backends: tuple[WeightedBackend, ...], origin: str) -> StreamChain:
    name = listener.id if domain == ANY else f"{listener.id}/{domain}"
    return StreamChain(name, backends, () if domain == ANY else (domain,), listener.certificates, origin)
