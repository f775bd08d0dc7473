# pyright: standard, reportAttributeAccessIssue=false
"""Listeners: a port, its filter chains, and the connection manager with its fixed list of filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from envoy.config.core.v3.address_pb2 import Address, SocketAddress
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions, HttpProtocolOptions
from envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch, ListenerFilter
from envoy.config.listener.v3.listener_pb2 import AdditionalAddress, Listener
from envoy.extensions.filters.listener.tls_inspector.v3.tls_inspector_pb2 import TlsInspector
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    Rds,
)
from envoy.extensions.http.early_header_mutation.header_mutation.v3.header_mutation_pb2 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import CertificateValidationContext, TlsCertificate
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig, Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, DownstreamTlsContext

from controlplane import ir
from controlplane.translate.clusters import ads
from controlplane.translate.filters import listener_filters
from controlplane.translate.local_replies import local_reply_config
from controlplane.translate.streams import stream_chain, udp_proxy
from controlplane.translate.wire import duration, embed, encode, field_numbers, packed

_CHAINS = field_numbers(Listener)["filter_chains"]
_HEADERS_TIMEOUT_S = 10
_IDLE_TIMEOUT_S = 3600
_HTTP2 = Http2ProtocolOptions(
    max_concurrent_streams={"value": 100},
    initial_stream_window_size={"value": 64 * 1024},
    initial_connection_window_size={"value": 1024 * 1024},
)
# Before a route is chosen: a route that matches on such a header must never see one that a client has sent.
_RESERVED_HEADERS = TypedExtensionConfig(
    name="envoy.http.early_header_mutation.header_mutation",
    typed_config=packed(
        EarlyHeaderMutation(mutations=[{"remove_on_match": {"key_matcher": {"prefix": ir.RESERVED_PREFIX}}}])
    ),
)


Chain = ir.FilterChain | ir.StreamChain
EncodeChain = Callable[[Chain, str, bool], bytes]
"""Encodes a chain of the listener with this name; the flag says whether connections begin with TLS."""


def chain(source: Chain, listener: str, tls: bool, *, quota_mode: bool = False) -> bytes:
    """Encodes a filter chain, for requests or for connections that are passed on."""
    if isinstance(source, ir.StreamChain):
        return stream_chain(source, listener, tls)
    return encode(_chain(source, listener, tls, quota_mode))


def listener(source: ir.PortListener, *, bind: Sequence[tuple[str, int]], encode_chain: EncodeChain = chain) -> bytes:
    """Encodes a listener that binds these addresses and ports, at least one."""
    udp = source.transport == "UDP"
    protocol = SocketAddress.UDP if udp else SocketAddress.TCP
    first, *others = (
        Address(socket_address=SocketAddress(protocol=protocol, address=host, port_value=port)) for host, port in bind
    )
    message = Listener(
        name=source.name,
        address=first,
        additional_addresses=[AdditionalAddress(address=address) for address in others],
        per_connection_buffer_limit_bytes={"value": 32 * 1024},
    )
    if source.tls:
        inspector = ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=packed(TlsInspector()))
        message.listener_filters.append(inspector)
    if udp:
        # The kernel gives all datagrams of a client to one worker, which has its session.
        message.enable_reuse_port.value = True
        message.udp_listener_config.SetInParent()
        streams = (each for each in source.chains if isinstance(each, ir.StreamChain))
        message.listener_filters.extend(udp_proxy(each, source.name) for each in streams)
        return encode(message)
    chains = sorted(source.chains, key=lambda each: isinstance(each, ir.StreamChain))
    parts = (embed(_CHAINS, encode_chain(each, source.name, source.tls)) for each in chains)
    return b"".join((encode(message), *parts))


def secret(source: ir.Certificate) -> bytes:
    """Encodes a certificate and its key for SDS."""
    certificate = TlsCertificate(
        certificate_chain={"inline_bytes": source.chain}, private_key={"inline_bytes": source.key}
    )
    return encode(Secret(name=source.name, tls_certificate=certificate))


def _chain(chain: ir.FilterChain, listener: str, tls: bool, quota_mode: bool) -> FilterChain:
    config = packed(_manager(chain, quota_mode))
    manager = Filter(name="envoy.filters.network.http_connection_manager", typed_config=config)
    out = FilterChain(name=chain.listener or listener, filters=[manager])
    if tls:
        if chain.hostname is not None:
            out.filter_chain_match.CopyFrom(FilterChainMatch(server_names=[chain.hostname]))
        out.transport_socket.CopyFrom(_tls(chain))
    return out


def _manager(chain: ir.FilterChain, quota_mode: bool) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix=chain.route_config,
        rds=Rds(config_source=ads(), route_config_name=chain.route_config),
        early_header_mutation_extensions=[_RESERVED_HEADERS],
        http_filters=listener_filters(quota_mode=quota_mode),
        local_reply_config=local_reply_config(quota_mode=quota_mode),
        use_remote_address={"value": True},
        normalize_path={"value": True},
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManager.UNESCAPE_AND_REDIRECT,
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=duration(_IDLE_TIMEOUT_S),
            headers_with_underscores_action=HttpProtocolOptions.REJECT_REQUEST,
        ),
        http2_protocol_options=_HTTP2,
        request_headers_timeout=duration(_HEADERS_TIMEOUT_S),
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
    )


def _tls(chain: ir.FilterChain) -> TransportSocket:
    common = CommonTlsContext(
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[
            SdsSecretConfig(name=name, sds_config=ads()) for name in chain.certificates
        ],
    )
    context = DownstreamTlsContext(common_tls_context=common)
    if chain.clients is not None:
        _check_clients(context, chain.clients)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _check_clients(context: DownstreamTlsContext, clients: ir.ClientValidation) -> None:
    context.require_client_certificate.value = clients.required
    trusted, common = SdsSecretConfig(name=clients.ca_secret, sds_config=ads()), context.common_tls_context
    if clients.required:
        common.validation_context_sds_secret_config.CopyFrom(trusted)
        return
    validation = common.combined_validation_context
    validation.default_validation_context.trust_chain_verification = CertificateValidationContext.ACCEPT_UNTRUSTED
    validation.validation_context_sds_secret_config.CopyFrom(trusted)
