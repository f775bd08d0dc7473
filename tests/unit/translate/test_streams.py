# pyright: standard, reportAttributeAccessIssue=false
"""Chains and listeners of connections and datagrams, as Envoy reads them."""

from __future__ import annotations

import pytest
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_components_pb2 import FilterChain
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy

from controlplane import ir
from controlplane.translate.clusters import endpoints
from controlplane.translate.listeners import listener
from controlplane.translate.streams import stream_chain

ONE = ir.ClusterId("demo", "Service", "one", 80, ir.UpstreamPolicy(carries="streams"))
TWO = ir.ClusterId("demo", "Service", "two", 80, ir.UpstreamPolicy(carries="streams"))


def chain(*backends: ir.WeightedBackend, certificates: tuple[str, ...] = ()) -> FilterChain:
    made = ir.StreamChain("l/a.example.com", backends, ("a.example.com",), certificates, "TLSRoute demo/r")
    return FilterChain.FromString(stream_chain(made, "demo/edge/443", True))


def proxy(made: FilterChain) -> TcpProxy:
    return TcpProxy.FromString(made.filters[0].typed_config.value)


def test_one_backend_is_a_cluster_and_several_are_weighted() -> None:
    assert proxy(chain(ir.WeightedBackend(ONE, 7))).cluster == str(ONE)
    several = proxy(chain(ir.WeightedBackend(ONE, 7), ir.WeightedBackend(None, 2), ir.WeightedBackend(TWO, 1)))
    assert [(each.name, each.weight) for each in several.weighted_clusters.clusters] == [
        (str(ONE), 7),
        ("invalid-backend", 2),
        (str(TWO), 1),
    ]


@pytest.mark.parametrize("backends", [(), (ir.WeightedBackend(None, 1),)])
def test_a_chain_that_leads_nowhere_closes_connections_before_any_handshake(
    backends: tuple[ir.WeightedBackend, ...],
) -> None:
    made = chain(*backends, certificates=("demo/tls",))
    assert not made.filters
    assert not made.HasField("transport_socket")


def test_tls_ends_where_there_are_certificates_and_goes_through_where_there_are_none() -> None:
    assert chain(ir.WeightedBackend(ONE, 1), certificates=("demo/tls",)).HasField("transport_socket")
    through = chain(ir.WeightedBackend(ONE, 1))
    assert not through.HasField("transport_socket")
    assert through.filter_chain_match.transport_protocol == "tls"
    assert list(through.filter_chain_match.server_names) == ["a.example.com"]


def test_a_listener_put_together_from_encoded_chains_reads_as_one_that_was_encoded_whole() -> None:
    made = ir.StreamChain("l", (ir.WeightedBackend(ONE, 1),), origin="TCPRoute demo/r")
    source = ir.PortListener("demo/edge", 9300, "TCP", False, (made,))
    read = Listener.FromString(listener(source, bind=[("127.0.0.1", 9300), ("::1", 9300)]))
    assert [each.name for each in read.filter_chains] == ["l"]
    assert Listener.FromString(read.SerializeToString()) == read
    assert len(read.additional_addresses) == 1
    assert not read.listener_filters


def test_a_share_without_endpoints_leads_to_where_everything_is_thrown_away() -> None:
    id_ = ir.ClusterId("demo", "UDPRoute", "r", 0, ir.UpstreamPolicy(carries="datagrams"))
    shares = (ir.Share("one", 3, (ir.Endpoint("192.0.2.1", 53),)), ir.Share("dropped", 1, ()))
    read = ClusterLoadAssignment.FromString(endpoints(ir.Endpoints(id_, (), shares=shares)))
    found = [
        (
            each.locality.sub_zone,
            each.load_balancing_weight.value,
            [member.endpoint.address.socket_address.address for member in each.lb_endpoints],
        )
        for each in read.endpoints
    ]
    assert found == [("one", 3, ["192.0.2.1"]), ("dropped", 1, ["127.0.0.1"])]
