"""Claims are checked against what the transport has authenticated."""

from __future__ import annotations

import pytest

from controlplane.provision.names import resource_name
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
        (ANYONE, Node("dragoman.services/ratelimit", ""), "dragoman.services/ratelimit"),
        (AUTHZ, Node("dragoman.services/ratelimit", ""), "dragoman.services/authz"),
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
        (Principal("gateway"), Node("dragoman.services/authz", "")),
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


def account(namespace: str, name: str) -> Principal:
    return Principal("gateway", service_account=(namespace, name))


@pytest.mark.parametrize(
    ("principal", "node", "owner"),
    [
        (account("demo", "dragoman-edge"), Node("e", "demo/edge"), "demo/edge"),
        (account("demo", "dragoman-edge"), Node("e", "demo/edge", "gRPC C-core"), "demo/edge#grpc"),
        (account("demo", resource_name("a.b")), Node("e", "demo/a.b"), "demo/a.b"),
        (account("demo", resource_name("g" * 200)), Node("e", "demo/" + "g" * 200), "demo/" + "g" * 200),
    ],
)
def test_a_service_account_may_claim_the_gateway_that_it_is_named_for(
    principal: Principal, node: Node, owner: str
) -> None:
    assert owner_of(principal, node) == owner


@pytest.mark.parametrize(
    "claim",
    ["other/edge", "demo/other", "demo/edge2", "demo/dragoman-edge", "", "dragoman.services/authz", "demo/e.dge"],
)
def test_a_service_account_may_claim_nothing_else(claim: str) -> None:
    assert isinstance(owner_of(account("demo", "dragoman-edge"), Node("e", claim)), Refusal)


@pytest.mark.parametrize("name", ["default", "edge", "dragoman"])
def test_a_service_account_that_is_not_a_gateways_may_claim_none(name: str) -> None:
    assert isinstance(owner_of(account("demo", name), Node("e", "demo/edge")), Refusal)
