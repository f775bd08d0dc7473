"""Claims are checked against what the transport has authenticated."""

from __future__ import annotations

import pytest

from controlplane.xds.identity import GATEWAY_METADATA, Node, Principal, Refusal, owner_of

EDGE = Principal("gateway", "demo/edge")
AUTHZ = Principal("service", "authz")
ANYONE = Principal("any")


@pytest.mark.parametrize(
    ("principal", "node", "owner"),
    [
        (EDGE, Node("e", "demo/edge"), "demo/edge"),
        (EDGE, Node("e", ""), "demo/edge"),
        (EDGE, Node("e", "demo/edge", "envoy", {GATEWAY_METADATA: "demo/edge"}), "demo/edge"),
        (EDGE, Node("e", "demo/edge", "gRPC C-core linux"), "demo/edge#grpc"),
        (AUTHZ, Node("w", "dragoman.services/authz"), "dragoman.services/authz"),
        (AUTHZ, Node("w", ""), "dragoman.services/authz"),
        (Principal("gateway"), Node("e", "demo/other"), "demo/other"),
        (Principal("service"), Node("w", "dragoman.services/ratelimit"), "dragoman.services/ratelimit"),
        (ANYONE, Node("e", "demo/edge"), "demo/edge"),
        (ANYONE, Node("w", "dragoman.services/authz"), "dragoman.services/authz"),
    ],
)
def test_an_owner_that_the_principal_may_claim_is_granted(principal: Principal, node: Node, owner: str) -> None:
    assert owner_of(principal, node) == owner


@pytest.mark.parametrize(
    ("principal", "node"),
    [
        (EDGE, Node("e", "demo/other")),
        (EDGE, Node("e", "dragoman.services/authz")),
        (EDGE, Node("", "demo/edge")),
        (EDGE, Node("e" * 257, "demo/edge")),
        (EDGE, Node("e", "demo/edge", "envoy", {GATEWAY_METADATA: "demo/other"})),
        (EDGE, Node("e", "demo/edge#grpc")),
        (AUTHZ, Node("w", "dragoman.services/ratelimit")),
        (AUTHZ, Node("w", "demo/edge")),
        (Principal("gateway"), Node("e", "dragoman.services/authz")),
        (Principal("gateway"), Node("e", "")),
        (Principal("service"), Node("w", "demo/edge")),
        (Principal("gateway", "dragoman.services/authz"), Node("w", "dragoman.services/authz")),
        (ANYONE, Node("e", "")),
        (ANYONE, Node("e", "no-slash")),
        (ANYONE, Node("e", "demo/edge#grpc")),
        (ANYONE, Node("e", "UPPER/case")),
    ],
)
def test_a_claim_beyond_the_principal_is_refused(principal: Principal, node: Node) -> None:
    assert isinstance(owner_of(principal, node), Refusal)
