"""The cluster of a UDPRoute: the endpoints of all its backends, each backend with its share of the sessions."""

from __future__ import annotations

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.api.udproute import UDPRoute
from controlplane.compile import backends, streamroutes
from controlplane.compile.view import View
from controlplane.ir import Cluster, ClusterId, Endpoints, Share, UpstreamPolicy

_DROPPED = "dropped"


def cluster_of_route(route: ObjectKey) -> ClusterId:
    """Returns the identity of a UDPRoute's cluster."""
    return ClusterId(route.namespace, "UDPRoute", route.name, 0, UpstreamPolicy(carries="datagrams"))


def cluster(view: View, id_: ClusterId) -> Cluster | None:
    """Returns what the cluster must do; None where the route has gone."""
    route = _route_of(view, id_)
    return Cluster(id_, origin=str(route.key)) if route is not None else None


def endpoints(view: View, id_: ClusterId) -> Endpoints:
    """Returns a share for each backend, and one of what is to be dropped.

    That is what would go to a backend that is invalid or has no endpoints (Gateway API: UDPRouteRule.backendRefs).
    """
    route = _route_of(view, id_)
    if route is None:
        return Endpoints(id_, ())
    dropped, shares = 0, list[Share]()
    for each in streamroutes.compile_route(view, route).backends:
        found = backends.endpoints(view, each.cluster).endpoints if each.cluster is not None else ()
        if found:
            shares.append(Share(str(each.cluster), each.weight, found))
        else:
            dropped += each.weight
    if dropped:
        shares.append(Share(_DROPPED, dropped, ()))
    return Endpoints(id_, (), origin=str(route.key), shares=tuple(shares))


def _route_of(view: View, id_: ClusterId) -> UDPRoute | None:
    return view.get(ObjectKey(GATEWAY_GROUP, "UDPRoute", id_.namespace, id_.name))
