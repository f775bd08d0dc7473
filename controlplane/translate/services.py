# pyright: standard, reportAttributeAccessIssue=false
"""The services ext_authz and ratelimit_service: the clusters that Envoy reaches them by, and the policies they hold."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from envoy.config.core.v3.address_pb2 import Address, Pipe, SocketAddress
from envoy.config.core.v3.base_pb2 import DataSource, TransportSocket
from envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions
from envoy.config.endpoint.v3.endpoint_components_pb2 import Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.extensions.transport_sockets.tls.v3.common_pb2 import (
    CertificateValidationContext,
    SubjectAltNameMatcher,
    TlsParameters,
)
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import CommonTlsContext, UpstreamTlsContext
from envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions

from controlplane import ir
from controlplane.translate.clusters import ads
from controlplane.translate.counting import SECONDS, UNITS, counting_of
from controlplane.translate.descriptors import ROUTE_KEY, entry, levels
from controlplane.translate.plans import descriptors
from controlplane.translate.wire import duration, encode, packed
from dragoman.protos.dragoman.authz.v1 import policy_pb2 as authz
from dragoman.protos.ratelimit.config.ratelimit.v3 import rls_conf_pb2 as rls

AUTHZ_CLUSTER = "dragoman-authz"
RATE_LIMIT_CLUSTER = "dragoman-ratelimit"
QUOTA_CLUSTER = "dragoman-ratelimit-quota"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_CONNECT_TIMEOUT_S = 0.25
_MOST_FAILURES = 10
_LOOK_EVERY_S = 1.0
_LEFT_OUT_S, _LONGEST_LEFT_OUT_S = 2.0, 10.0
# Each request of a client is one here, and a stream costs nothing but its memory.
_MAX_REQUESTS = 65_536


@dataclass(frozen=True, slots=True)
class ServiceTls:
    """By what a service is known: its certificate is for `server_name`, and of one of the authorities (PEM)."""

    authorities: str
    server_name: str


def cluster(name: str, addresses: Collection[str], *, tls: ServiceTls | None = None) -> bytes:
    """Encodes the cluster of a service; an address is `unix:PATH`, or `HOST:PORT` (IPv6 in brackets).

    Its endpoints come by EDS, so that calls that are under way do not mind when a worker comes or goes; where one has a
    name for a host, Envoy resolves it, and they stand in the cluster. Without addresses it is there all the same, so
    that calls fail as their filter says. With `tls` the service is spoken to in TLS at all of them.
    """
    by_name = has_names(addresses)
    message = Cluster(
        name=name,
        type=Cluster.STRICT_DNS if by_name else Cluster.EDS,
        connect_timeout=duration(_CONNECT_TIMEOUT_S),
        lb_policy=Cluster.LEAST_REQUEST,
        ignore_health_on_host_removal=True,
        outlier_detection=_outlier_detection(),
        circuit_breakers=CircuitBreakers(
            thresholds=[
                {"max_requests": {"value": _MAX_REQUESTS}, "max_pending_requests": {"value": _MAX_REQUESTS}},
            ]
        ),
    )
    if by_name:
        message.load_assignment.CopyFrom(_assignment(name, addresses))
    else:
        message.eds_cluster_config.eds_config.CopyFrom(ads())
    if tls is not None:
        message.transport_socket.CopyFrom(_transport_socket(tls))
    http2 = HttpProtocolOptions.ExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    options = HttpProtocolOptions(explicit_http_config=http2)
    message.typed_extension_protocol_options[_HTTP_OPTIONS].CopyFrom(packed(options))
    return encode(message)


def _outlier_detection() -> OutlierDetection:
    """A worker that stands still is left out for a while: else each of its requests would wait for the time-out.

    Time-outs count, failed connections, and answers that say UNAVAILABLE; and so many in a row that a worker with too
    much to do is not taken for one, which would leave all of it to the others.
    """
    return OutlierDetection(
        consecutive_gateway_failure={"value": _MOST_FAILURES},
        enforcing_consecutive_gateway_failure={"value": 100},
        enforcing_consecutive_5xx={"value": 0},
        enforcing_success_rate={"value": 0},
        interval=duration(_LOOK_EVERY_S),
        base_ejection_time=duration(_LEFT_OUT_S),
        max_ejection_time=duration(_LONGEST_LEFT_OUT_S),
        max_ejection_percent={"value": 50},
    )


def endpoints(name: str, addresses: Collection[str]) -> bytes:
    """Encodes the endpoints of a service whose addresses have no names, for EDS."""
    return encode(_assignment(name, addresses))


def has_names(addresses: Iterable[str]) -> bool:
    """Says whether an address has a name for a host, which is to be resolved."""
    return any(_is_name(_address(each)) for each in addresses)


def key_policy(source: ir.KeyPolicy) -> bytes:
    """Encodes a policy for ext_authz."""
    keys = authz.ApiKeyAuth(
        extract_from=_sources(source.sources),
        inline_keys=[
            authz.ApiKeyAuth.InlineKey(id=client, sha256=bytes.fromhex(hashed), client=client)
            for client, hashed in source.known
        ],
        use_store=not source.known,
        required_scopes=source.required_scopes,
        metadata_to_headers=[
            authz.ApiKeyAuth.MetadataToHeader(key=key, header=header) for key, header in source.metadata_headers
        ],
        forward_client_id_header=source.forward_client_header or "",
        sanitize=source.sanitize,
    )
    return encode(authz.Policy(id=source.id, api_keys=keys))


def rate_limit_config(source: ir.GlobalLimit) -> bytes:
    """Encodes the limits of a domain for the rate limit service: a descriptor per rule, in it one per selector;
    then those of plans."""
    on_error = rls.ALLOW if source.fail_open else rls.DENY
    return encode(
        rls.RateLimitConfig(
            name=source.domain,
            domain=source.domain,
            descriptors=[
                *(rule_descriptor(index, rule, on_error) for index, rule in enumerate(source.rules)),
                *(descriptors(source.plans, on_error) if source.plans is not None else ()),
            ],
            dragoman=rls.DomainExtension(
                on_store_error=on_error,
                # A domain is named by its content, and counters go on when that changes.
                counters_without_domain=True,
                refines=any(rule.limit_from is not None for rule in source.rules),
            ),
        )
    )


def longest_lease_s(source: ir.GlobalLimit) -> float:
    """Returns for how long a request may count towards limits of what is in flight; 0 without any."""
    limits = (*source.rules, *(source.plans.everything() if source.plans is not None else ()))
    leases = (each.counting.lease_time_ms / 1000 or SECONDS[each.unit] for each in limits if each.counting.until_done)
    return max(leases, default=0.0)


def rule_descriptor(index: int, rule: ir.LimitRule, on_error: rls.OnStoreError) -> rls.RateLimitDescriptor:
    """Returns the limit of a rule, below the entries that its requests have."""
    path = [entry(index, rule), *([] if rule.shared else [(ROUTE_KEY, "")]), *levels(rule)]
    policy = rls.RateLimitPolicy(unit=UNITS[rule.unit], requests_per_unit=rule.requests)
    policy.dragoman.CopyFrom(counting_of(rule.counting, on_error))
    policy.dragoman.hidden = not rule.headers_shown
    *above, (key, value) = path
    found = rls.RateLimitDescriptor(key=key, value=value, rate_limit=policy, shadow_mode=rule.shadow)
    for key, value in reversed(above):
        found = rls.RateLimitDescriptor(key=key, value=value, descriptors=[found])
    return found


def _sources(sources: Iterable[ir.KeySource]) -> authz.CredentialSources:
    out = authz.CredentialSources()
    for source in sources:
        out.headers.extend(authz.CredentialSources.Header(name=name) for name in source.headers)
        out.params.extend(source.params)
        out.cookies.extend(source.cookies)
    return out


def _transport_socket(tls: ServiceTls) -> TransportSocket:
    # The authorities stand in the cluster: they change once in years, and a cluster with a secret waits for it.
    trust = CertificateValidationContext(
        trusted_ca=DataSource(inline_string=tls.authorities),
        match_typed_subject_alt_names=[
            SubjectAltNameMatcher(san_type=SubjectAltNameMatcher.DNS, matcher={"exact": tls.server_name})
        ],
    )
    common = CommonTlsContext(
        tls_params=TlsParameters(tls_minimum_protocol_version=TlsParameters.TLSv1_2),
        validation_context=trust,
        alpn_protocols=["h2"],
    )
    context = UpstreamTlsContext(common_tls_context=common, sni=tls.server_name)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _assignment(name: str, addresses: Iterable[str]) -> ClusterLoadAssignment:
    message = ClusterLoadAssignment(cluster_name=name)
    members = [LbEndpoint(endpoint=Endpoint(address=_address(each))) for each in addresses]
    if members:
        message.endpoints.append(LocalityLbEndpoints(lb_endpoints=members))
    return message


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return Address(pipe=Pipe(path=text.removeprefix("unix:")))
    host, _, port = text.rpartition(":")
    return Address(socket_address=SocketAddress(address=host.strip("[]"), port_value=int(port)))


def _is_name(address: Address) -> bool:
    if not address.HasField("socket_address"):
        return False
    try:
        ip_address(address.socket_address.address)
    except ValueError:
        return True
    return False
