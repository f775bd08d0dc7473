"""Where the workers of ext_authz and of the rate limit service are: by the EndpointSlices of their Services."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.api.core import Service
from controlplane.api.meta import DISCOVERY_GROUP, ObjectKey
from controlplane.compile import backends
from controlplane.compile.view import View
from controlplane.ir import ClusterId


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """An address `NAME.NAMESPACE.svc[.DOMAIN]:PORT`, taken apart."""

    key: ObjectKey
    port: int


class ServiceWorkers:
    """Turns addresses that name a Service into those of its ready endpoints; others stay as they are.

    Envoy would resolve the name only every few seconds, and go on asking a worker that has gone until then.
    """

    def __init__(self, services: Mapping[str, Iterable[str]]) -> None:
        """`services` has, by the name of Envoy's cluster, where the workers of a service are."""
        self._services = {name: tuple(addresses) for name, addresses in services.items()}
        parsed = (parse_service(each) for addresses in self._services.values() for each in addresses)
        self._keys = frozenset(each.key for each in parsed if each is not None)

    def concerned(self, changed: Iterable[ObjectKey]) -> bool:
        """Says whether the addresses may be others after these objects changed."""
        if not self._keys:
            return False
        namespaces = {key.namespace for key in self._keys}
        return any(
            key in self._keys or (key.group == DISCOVERY_GROUP and key.namespace in namespaces) for key in changed
        )

    def addresses(self, view: View) -> dict[str, tuple[str, ...]]:
        """Returns where the workers of each service are now."""
        return {name: tuple(self._resolve(view, addresses)) for name, addresses in self._services.items()}

    def _resolve(self, view: View, addresses: Iterable[str]) -> Iterable[str]:
        for address in addresses:
            named = parse_service(address)
            if named is None or not isinstance(view.get(named.key), Service):
                yield address
                continue
            id_ = ClusterId(named.key.namespace, "Service", named.key.name, named.port)
            for endpoint in backends.endpoints(view, id_).endpoints:
                host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
                yield f"{host}:{endpoint.port}"


def parse_service(address: str) -> ServiceAddress | None:
    """Returns the Service that an address names; None where it names none."""
    host, _, port = address.rpartition(":")
    labels = host.split(".")
    if len(labels) < 3 or labels[2] != "svc" or not port.isdecimal():
        return None
    return ServiceAddress(ObjectKey("", "Service", labels[1], labels[0]), int(port))
