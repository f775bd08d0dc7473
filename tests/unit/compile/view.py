"""A view of a few manifests, for tests of the semantics alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.api.referencegrant import ReferenceGrant
from controlplane.compile.backendtls import in_order


class PlainView:
    """Implements `compile.view.View` over manifests, all of them good."""

    def __init__(
        self,
        *documents: Mapping[str, Any],
        remote_backends_only: bool = False,
        quota_mode: bool = False,
        rate_limit_service: bool = True,
    ) -> None:
        self.remote_backends_only = remote_backends_only
        self.quota_mode = quota_mode
        self.rate_limit_service = rate_limit_service
        self.objects = {loaded.key: loaded.object for loaded in map(load, documents)}
        assert None not in self.objects.values(), documents

    def get(self, key: ObjectKey) -> Any:
        return self.objects.get(key)

    def grants(self, namespace: str) -> Iterable[ReferenceGrant]:
        return [g for g in self.objects.values() if isinstance(g, ReferenceGrant) and g.metadata.namespace == namespace]

    def plans(self, namespace: str) -> Iterable[ObjectKey]:
        return [key for key in self.objects if key is not None and (key.kind, key.namespace) == ("Plan", namespace)]

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        pieces = [each for each in self.objects.values() if isinstance(each, EndpointSlice)]
        return [each for each in pieces if (each.metadata.namespace, each.service_name) == (namespace, service)]

    def tls_policies(self, namespace: str, service: str) -> Sequence[BackendTLSPolicy]:
        found = (each for each in self.objects.values() if isinstance(each, BackendTLSPolicy))
        about = (each for each in found if service in {target.name for target in each.targets})
        return in_order(each for each in about if each.metadata.namespace == namespace)

    def addresses(self, host: str) -> tuple[str, ...] | None:
        return None

    def key_set(self, uri: str) -> str | None:
        return None
