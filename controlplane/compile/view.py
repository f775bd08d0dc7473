"""What compile may read. Whoever provides it records the reads; the semantics know nothing of that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.meta import ObjectKey
from controlplane.api.referencegrant import ReferenceGrant


class View(Protocol):
    """The objects in force: for each key the newest that is good, else the last that was."""

    @property
    def remote_backends_only(self) -> bool:
        """Whether no backend may be on Envoy's own machine: others than who runs that have a say in what it serves."""
        ...

    @property
    def quota_mode(self) -> bool:
        """Whether there is a service that divides limits among Envoys."""
        ...

    @property
    def rate_limit_service(self) -> bool:
        """Whether there is a service that counts the requests of all Envoys."""
        ...

    def get(self, key: ObjectKey) -> Any:
        """Returns the object, typed; None where there is none."""
        ...

    def grants(self, namespace: str) -> Iterable[ReferenceGrant]:
        """Returns the ReferenceGrants of a namespace."""
        ...

    def plans(self, namespace: str) -> Iterable[ObjectKey]:
        """Returns the Plans of a namespace, by name."""
        ...

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        """Returns the EndpointSlices of a Service."""
        ...

    def tls_policies(self, namespace: str, service: str) -> Sequence[BackendTLSPolicy]:
        """Returns the BackendTLSPolicies that name a Service, the oldest first."""
        ...

    def addresses(self, host: str) -> tuple[str, ...] | None:
        """Returns the IP addresses of a host name, empty where it has none; None while they are not known yet."""
        ...

    def key_set(self, uri: str) -> str | None:
        """Returns the JWKS last fetched from a URI; None where there is none yet."""
        ...
