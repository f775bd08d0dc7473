"""Who a client is: what it claims in its node, checked against what the transport has authenticated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from controlplane.provision.names import resource_name

# A namespace has no dot in its name, so no Gateway is ever called like a service.
_SERVICES: Final = "dragoman.services"
AUTHZ_OWNER: Final = f"{_SERVICES}/authz"
RATE_LIMIT_OWNER: Final = f"{_SERVICES}/ratelimit"
SERVICE_OWNERS: Final = frozenset({AUTHZ_OWNER, RATE_LIMIT_OWNER})

# In node.metadata: the Gateway ("NAMESPACE/NAME") that an Envoy says that it belongs to; optional.
GATEWAY_METADATA: Final = "dragoman.dev/gateway"

# gRPC's own xDS client is served a projection of its own, published under the owner's name with this at its end.
GRPC_SUFFIX: Final = "#grpc"

_MAX_NODE_ID: Final = 256
_DNS_LABEL: Final = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_GATEWAY: Final = re.compile(rf"{_DNS_LABEL}/[a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Node:
    """What a client says about itself in the first request of a stream: claims, not facts."""

    id: str
    cluster: str
    user_agent_name: str = ""
    metadata: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is at the other end, as authenticated by the transport (in file mode: by which socket it came).

    `owner` is `NAMESPACE/GATEWAY` for a gateway, `authz` or `ratelimit` for a service; None leaves the choice within
    the role to the client (loopback TCP of `serve`: claims are accepted, and logged). `service_account` (namespace and
    name, of a verified token) leaves a gateway the one choice that has a ServiceAccount of this name. A replica of the
    control plane is sent no resources.
    """

    role: Literal["gateway", "service", "replica", "any"]
    owner: str | None = None
    service_account: tuple[str, str] | None = None

    @property
    def is_free(self) -> bool:
        """Whether the client's own word decides whose it is."""
        return self.owner is None and self.service_account is None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a client is not served; the message goes to the client and to the log."""

    message: str


def owner_of(principal: Principal, node: Node) -> str | Refusal:
    """Returns whose snapshot the client is to be sent, or why it is sent none.

    A principal that is tied to an owner may leave the claim out, but never claim another. A service whose node can only
    have an id (envoyproxy/ratelimit's) claims by that.
    """
    if principal.role == "replica":
        return Refusal("a replica of the control plane is sent no resources")
    if not node.id or len(node.id) > _MAX_NODE_ID:
        return Refusal(f"node.id must have 1 to {_MAX_NODE_ID} characters")
    granted = _granted_owner(principal)
    claimed = node.cluster or granted or (node.id if node.id in SERVICE_OWNERS else None)
    if not claimed:
        return Refusal("node.cluster must name the Gateway (NAMESPACE/NAME) or the service")
    if granted is not None and claimed != granted:
        return Refusal(f"node.cluster {claimed!r} is not what this connection is authenticated for")
    if claimed in SERVICE_OWNERS:
        return _service(principal, claimed)
    return _gateway(principal, node, claimed)


def _granted_owner(principal: Principal) -> str | None:
    if principal.owner is None or principal.role != "service" or "/" in principal.owner:
        return principal.owner
    return f"{_SERVICES}/{principal.owner}"


def _service(principal: Principal, claimed: str) -> str | Refusal:
    if principal.role == "gateway":
        return Refusal(f"node.cluster {claimed!r} names a service, but this connection is a gateway's")
    return claimed


def _gateway(principal: Principal, node: Node, claimed: str) -> str | Refusal:
    if principal.role == "service":
        return Refusal(f"node.cluster {claimed!r} is not a service's, but this connection is")
    if not _GATEWAY.fullmatch(claimed):
        return Refusal("node.cluster must be NAMESPACE/NAME of a Gateway")
    if principal.service_account is not None and not _runs_as(claimed, principal.service_account):
        return Refusal(
            f"node.cluster {claimed!r} is not the Gateway of service account {'/'.join(principal.service_account)!r}"
        )
    stated = node.metadata.get(GATEWAY_METADATA, claimed)
    if stated != claimed:
        return Refusal(f"node.metadata[{GATEWAY_METADATA!r}] contradicts node.cluster {claimed!r}")
    return claimed + GRPC_SUFFIX if node.user_agent_name.startswith("gRPC") else claimed


def _runs_as(gateway: str, service_account: tuple[str, str]) -> bool:
    namespace, _, name = gateway.partition("/")
    return (namespace, resource_name(name)) == service_account
