# pyright: standard, reportAttributeAccessIssue=false
"""Connections and datagrams that are passed on as they are: filter chains with tcp_proxy, and udp_proxy."""

from __future__ import annotations

from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, ListenerFilter
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from envoy.extensions.filters.udp.udp_proxy.v3.route_pb2 import Route
from envoy.extensions.filters.udp.udp_proxy.v3.udp_proxy_pb2 import UdpProxyConfig
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext

from controlplane import ir
from controlplane.translate.actions import INVALID_BACKEND
from controlplane.translate.clusters import ads
from controlplane.translate.wire import duration, encode, packed

_IDLE_TIMEOUT_S = 3600
_SESSION_TIMEOUT_S = 60
# A connection that could not be made has carried nothing, so another endpoint may have it.
_CONNECT_ATTEMPTS = 2


def stream_chain(chain: ir.StreamChain, listener: str, tls: bool) -> bytes:
    """Encodes a filter chain; one without any filter closes connections at once, before any handshake."""
    out = FilterChain(name=chain.name)
    if tls:
        out.filter_chain_match.transport_protocol = "tls"
        out.filter_chain_match.server_names.extend(chain.hostnames)
    if any(each.cluster is not None for each in chain.backends):
        out.filters.append(
            Filter(name="envoy.filters.network.tcp_proxy", typed_config=packed(_tcp_proxy(chain, listener)))
        )
        if chain.certificates:
            out.transport_socket.CopyFrom(_tls(chain))
    return encode(out)


def udp_proxy(chain: ir.StreamChain, listener: str) -> ListenerFilter:
    """Returns the listener filter that sends each client's datagrams to one backend, for as long as they come."""
    config = UdpProxyConfig(stat_prefix=listener, idle_timeout=duration(_SESSION_TIMEOUT_S))
    action = config.matcher.on_no_match.action
    action.name = "route"
    (backend,) = chain.backends
    action.typed_config.CopyFrom(packed(Route(cluster=_name(backend))))
    return ListenerFilter(name="envoy.filters.udp_listener.udp_proxy", typed_config=packed(config))


def _tcp_proxy(chain: ir.StreamChain, listener: str) -> TcpProxy:
    proxy = TcpProxy(
        stat_prefix=listener,
        idle_timeout=duration(_IDLE_TIMEOUT_S),
        max_connect_attempts={"value": _CONNECT_ATTEMPTS},
    )
    if len(chain.backends) == 1:
        proxy.cluster = _name(chain.backends[0])
        return proxy
    for each in chain.backends:
        proxy.weighted_clusters.clusters.add(name=_name(each), weight=each.weight)
    return proxy


def _name(backend: ir.WeightedBackend) -> str:
    return INVALID_BACKEND if backend.cluster is None else str(backend.cluster)


def _tls(chain: ir.StreamChain) -> TransportSocket:
    common = CommonTlsContext(
        tls_certificate_sds_secret_configs=[SdsSecretConfig(name=name, sds_config=ads()) for name in chain.certificates]
    )
    context = DownstreamTlsContext(common_tls_context=common)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
