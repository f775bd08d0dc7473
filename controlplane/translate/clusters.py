# pyright: standard, reportAttributeAccessIssue=false
"""Upstream clusters and their endpoints."""

from __future__ import annotations

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.address_pb2 import Address, Pipe, SocketAddress
from envoy.config.core.v3.base_pb2 import TransportSocket
from envoy.config.core.v3.config_source_pb2 import AggregatedConfigSource, ApiVersion, ConfigSource
from envoy.config.core.v3.protocol_pb2 import (
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    UpstreamHttpProtocolOptions,
)
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import CertificateValidationContext, SubjectAltNameMatcher
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import SdsSecretConfig, Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from envoy.type.matcher.v3.string_pb2 import StringMatcher

from controlplane import ir
from controlplane.translate.wire import duration, encode, packed

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT_TIMEOUT_S = 5
_MAX_STREAMS = 65536
_STREAM_BUFFER_BYTES = 32 * 1024
# Where distributions of Linux keep the roots that the system trusts; Envoy wants one path.
_SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"
# RFC 863: who listens there, if anyone does, throws away what comes.
_NOWHERE = ir.Endpoint("127.0.0.1", 9)


def ads() -> ConfigSource:
    """Returns the config source that says: over the stream that brought this."""
    return ConfigSource(ads=AggregatedConfigSource(), resource_api_version=ApiVersion.V3)


def cluster(source: ir.Cluster) -> bytes:
    """Encodes a cluster whose endpoints come by EDS; one that is blocked has none."""
    if source.blocked:
        return encode(Cluster(name=str(source.id), type=Cluster.STATIC, connect_timeout=duration(_CONNECT_TIMEOUT_S)))
    message = Cluster(
        name=str(source.id),
        type=Cluster.EDS,
        eds_cluster_config=Cluster.EdsClusterConfig(eds_config=ads()),
        connect_timeout=duration(_CONNECT_TIMEOUT_S),
        lb_policy=Cluster.LEAST_REQUEST,
        ignore_health_on_host_removal=True,
    )
    if source.id.policy.carries == "requests":
        message.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(_http_options(source)))
        alpn = "h2" if source.protocol is ir.Protocol.HTTP2 else "http/1.1"
    else:
        _of_streams(message)
        alpn = None
    if source.id.kind == "UDPRoute":  # Each backend gets what its weight says, however many endpoints it has.
        message.common_lb_config.locality_weighted_lb_config.SetInParent()
    if source.tls is not None:
        message.transport_socket.CopyFrom(_tls(source.tls, alpn))
    return encode(message)


def endpoints(source: ir.Endpoints) -> bytes:
    """Encodes the ClusterLoadAssignment of a cluster."""
    message = ClusterLoadAssignment(cluster_name=str(source.cluster))
    if source.endpoints:
        members = [LbEndpoint(endpoint=Endpoint(address=_address(each))) for each in source.endpoints]
        message.endpoints.append(LocalityLbEndpoints(lb_endpoints=members))
    for share in source.shares:
        members = [LbEndpoint(endpoint=Endpoint(address=_address(each))) for each in share.endpoints or (_NOWHERE,)]
        message.endpoints.add(
            locality={"sub_zone": share.name}, load_balancing_weight={"value": share.weight}, lb_endpoints=members
        )
    return encode(message)


def authorities(name: str, pem: bytes) -> bytes:
    """Encodes the roots that clusters trust, for SDS."""
    return encode(Secret(name=name, validation_context=CertificateValidationContext(trusted_ca={"inline_bytes": pem})))


def _of_streams(message: Cluster) -> None:
    """Connections and sessions count for as long as they last: what suits requests would soon be used up."""
    message.circuit_breakers.thresholds.add(
        max_connections={"value": _MAX_STREAMS}, max_pending_requests={"value": _MAX_STREAMS}
    )
    message.per_connection_buffer_limit_bytes.value = _STREAM_BUFFER_BYTES


def _http_options(source: ir.Cluster) -> HttpProtocolOptions:
    explicit = HttpProtocolOptions.ExplicitHttpConfig()
    if source.protocol is ir.Protocol.HTTP2:
        explicit.http2_protocol_options.CopyFrom(Http2ProtocolOptions())
    else:
        explicit.http_protocol_options.CopyFrom(Http1ProtocolOptions())
    options = HttpProtocolOptions(explicit_http_config=explicit)
    if source.tls is not None and source.tls.sni is None:
        by_host = UpstreamHttpProtocolOptions(auto_sni=True, auto_san_validation=source.tls.verify)
        options.upstream_http_protocol_options.CopyFrom(by_host)
    return options


def _address(endpoint: ir.Endpoint) -> Address:
    if endpoint.port == 0:
        return Address(pipe=Pipe(path=endpoint.address))
    return Address(socket_address=SocketAddress(address=endpoint.address, port_value=endpoint.port))


def _tls(tls: ir.UpstreamTls, alpn: str | None) -> TransportSocket:
    common = CommonTlsContext(alpn_protocols=[alpn] if alpn is not None else [])
    if tls.verify:
        _verify(common, tls)
    if tls.client_certificate is not None:
        common.tls_certificate_sds_secret_configs.add(name=tls.client_certificate, sds_config=ads())
    upstream = UpstreamTlsContext(common_tls_context=common, sni=tls.sni or "")
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(upstream))


def _verify(common: CommonTlsContext, tls: ir.UpstreamTls) -> None:
    context = CertificateValidationContext()
    for name in tls.names:
        type_ = SubjectAltNameMatcher.DNS if name.kind == "Hostname" else SubjectAltNameMatcher.URI
        context.match_typed_subject_alt_names.add(san_type=type_, matcher=StringMatcher(exact=name.value))
    if tls.ca_secret is None:
        context.trusted_ca.filename = _SYSTEM_ROOTS
        common.validation_context.CopyFrom(context)
        return
    common.combined_validation_context.default_validation_context.CopyFrom(context)
    common.combined_validation_context.validation_context_sds_secret_config.CopyFrom(
        SdsSecretConfig(name=tls.ca_secret, sds_config=ads())
    )
