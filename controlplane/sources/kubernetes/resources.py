"""Where a kind is in the API, and which kinds Dragoman reads how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controlplane.api.meta import DISCOVERY_GROUP, ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, POLICY_GROUP
from controlplane.kube.client import path_of

INGRESS_GROUP: Final = "networking.k8s.io"

Kind = tuple[str, str]
"""Group and kind."""

BUILT_IN: Final = frozenset({"", DISCOVERY_GROUP, INGRESS_GROUP})
"""Groups that every API server has: what is missing there is missing only for a moment."""

# Without these a route is not served, or a reference not granted: nothing is less guarded for it. All other kinds must
# be readable before anything is published.
_OPTIONAL: Final[frozenset[Kind]] = frozenset(
    {
        ("", "ConfigMap"),
        (INGRESS_GROUP, "Ingress"),
        (INGRESS_GROUP, "IngressClass"),
        *((GATEWAY_GROUP, kind) for kind in ("GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")),
        *((GATEWAY_GROUP, kind) for kind in ("ListenerSet", "ReferenceGrant")),
    }
)


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as an API server serves it, in the version that is read."""

    group: str
    kind: str
    version: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """Group and version as objects write them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """`httproutes.gateway.networking.k8s.io`: the name of its definition, too."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "") -> str:
        """Returns the path of all objects, of those of a namespace, or of one."""
        return path_of(self.group, self.version, self.plural, namespace, name)


BY_REFERENCE: Final = (
    Resource("", "Secret", "v1", "secrets", namespaced=True),
    Resource("", "ConfigMap", "v1", "configmaps", namespaced=True),
)
"""Kinds of which only the objects are read that others refer to."""


def has_status(kind: Kind) -> bool:
    """Whether Dragoman says something in the status of such objects."""
    group, name = kind
    if group == GATEWAY_GROUP:
        return name != "ReferenceGrant"
    return group in (POLICY_GROUP, ENVOY_GATEWAY_GROUP) or kind == (INGRESS_GROUP, "Ingress")


def is_optional(kind: Kind, *, namespaces_limited: bool) -> bool:
    """Whether one can live without permission to read such objects."""
    return kind in _OPTIONAL or (kind == ("", "Namespace") and namespaces_limited)
