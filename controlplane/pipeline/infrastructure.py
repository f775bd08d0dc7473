"""What each Gateway's data plane is to be run with: its ports, and the parameters in force."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.api.gateway import Gateway
from controlplane.api.meta import ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.compile.parameters import address_fault, parameters
from controlplane.compile.protocols import PROTOCOLS, Transport
from controlplane.conditions import Condition
from controlplane.graph import Derived, Graph
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """`ports` are of all listeners whose protocol is known, serving or not: one that turns bad costs no address.

    `parameters` is None while what the Gateway asks for cannot be had: what runs is left as it is.
    """

    gateway: Gateway
    ports: frozenset[tuple[int, Transport]]
    parameters: ProxyConfigSpec | None


class Infrastructures:
    """`changes` has the Gateways of ours whose infrastructure is new or gone."""

    def __init__(self, graph: Graph, objects: Objects, attachments: Attachments) -> None:
        self._objects = objects
        self._attachments = attachments
        wanted: Derived[ObjectKey, Infrastructure | None] = graph.derive("infrastructure", self._compute)
        self.changes = graph.root(attachments.our_gateways, wanted)

    def _compute(self, key: ObjectKey) -> Infrastructure | None:
        gateway = self._objects.get(key)
        judged = self._attachments.judged.get(key)
        if gateway is None or judged is None:
            return None
        found = parameters(self._objects, gateway)
        ports: frozenset[tuple[int, Transport]] = frozenset(
            (each.port, each.transport) for each in judged if each.protocol in PROTOCOLS
        )
        if isinstance(found, Condition) or address_fault(gateway) is not None:
            return Infrastructure(gateway, ports, None)
        return Infrastructure(gateway, ports, found)
