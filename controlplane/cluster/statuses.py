"""The status that each object is to have in Kubernetes: the engine's verdicts, with what Envoys and addresses add."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.conditions import Condition, ObjectStatus
from controlplane.engine import Engine
from controlplane.status.ingress import ingress_status, is_ingress
from controlplane.status.programmed import programmed
from controlplane.status.writer import Desired
from controlplane.xds.census import Census
from controlplane.xds.events import Nack

Addresses = Callable[[ObjectKey], Sequence[tuple[str, str]]]
"""Returns the addresses (type, value) at which a Gateway is reached."""
Trouble = Callable[[ObjectKey], Condition | None]
"""Returns what keeps clients from reaching a Gateway: a Programmed condition."""


class DesiredStatuses:
    """`of` returns what is to be said about an object; each source of what the engine does not know is a function."""

    def __init__(
        self,
        engine: Engine,
        *,
        clients: Callable[[str], Census],
        nacks: Callable[[str], Iterable[Nack]],
        addresses: Addresses,
        trouble: Trouble,
        withheld_s: Callable[[str], float] = lambda owner: 0.0,
    ) -> None:
        """`clients` tells how far those of an owner are, `nacks` what they have rejected.

        `withheld_s` says for how long nothing is to be said of them.
        """
        self._engine = engine
        self._clients = clients
        self._nacks = nacks
        self._addresses = addresses
        self._trouble = trouble
        self._withheld_s = withheld_s

    def keys(self) -> Iterable[ObjectKey]:
        """Returns every object that something may be said about."""
        return self._engine.pipeline.statuses.current().keys()

    def of(self, key: ObjectKey) -> Desired:
        """Returns what is to be said about an object as things stand."""
        status = self._engine.pipeline.statuses.current().get(key)
        if status is not None and is_ingress(key):
            return Desired(self._ingress(key, status), generation=self._generation(key))
        if status is None or key.group != GATEWAY_GROUP or key.kind not in ("Gateway", "ListenerSet"):
            return Desired(status, not self._is_tried(key), self._generation(key))
        gateway = self._engine.pipeline.gateway_of(key)
        if gateway is None:
            return Desired(None)
        return self._with_envoys(key, gateway, status)

    def wrong(self, key: ObjectKey) -> Iterable[Condition]:
        """Returns what is wrong with an Ingress of ours, which has no conditions to say it in."""
        status = self._engine.pipeline.statuses.current().get(key)
        if status is None or not self._engine.ingresses.is_ours(key):
            return ()
        return ingress_status(self._engine.pipeline, self._engine.ingresses, key, status).faults()

    def ingresses(self) -> Iterable[ObjectKey]:
        """Returns every Ingress."""
        return list(self._engine.ingresses.keys())

    def with_ingresses(self, keys: Iterable[ObjectKey]) -> list[ObjectKey]:
        """Returns objects whose status may have changed, with the Ingresses of which the same can be said."""
        ingresses = self._engine.ingresses
        found = dict.fromkeys(keys)
        made = [maker for key in found if (maker := ingresses.maker_of(key)) is not None]
        return list(found | dict.fromkeys((*made, *ingresses.take_expanded())))

    def carried(self, keys: Iterable[ObjectKey]) -> list[ObjectKey]:
        """Returns Gateways whose addresses may have changed, with the Ingresses that have those addresses."""
        return [each for key in keys for each in (key, *self._engine.ingresses.carried_by(key))]

    def _ingress(self, key: ObjectKey, own: ObjectStatus) -> ObjectStatus:
        ingresses = self._engine.ingresses
        gateway = ingresses.gateway_of(key)
        if not ingresses.is_ours(key):
            return ObjectStatus()
        said = ingress_status(self._engine.pipeline, ingresses, key, own)
        found = self._addresses(gateway) if gateway is not None else ()
        return replace(said, addresses=tuple((type_, value) for type_, value in found))

    def _with_envoys(self, key: ObjectKey, gateway: ObjectKey, status: ObjectStatus) -> Desired:
        owner = f"{gateway.namespace}/{gateway.name}"
        said, settled = programmed(
            key,
            status,
            owner=owner,
            clients=self._clients(owner),
            nacks=self._nacks(owner),
            hindrance=self._trouble(gateway),
        )
        if key.kind == "Gateway":
            said = replace(said, addresses=tuple((type_, value) for type_, value in self._addresses(gateway)))
        return Desired(said, settled, self._generation(key), self._withheld_s(owner))

    def _is_tried(self, key: ObjectKey) -> bool:
        """Says whether it is being found out whether Envoys take the newest version of an object."""
        admitted = self._engine.pipeline.objects.peek(key)
        return admitted is not None and admitted.verdict is not None and not admitted.verdict.message

    def _generation(self, key: ObjectKey) -> int | None:
        admitted = self._engine.pipeline.objects.peek(key)
        if admitted is None or admitted.object is None:
            return None
        return admitted.object.metadata.generation or None


def concerned(engine: Engine, owner: str) -> list[ObjectKey]:
    """Returns the objects whose status depends on the Envoys of a Gateway (`NAMESPACE/NAME`)."""
    namespace, _, name = owner.partition("/")
    gateway = ObjectKey(GATEWAY_GROUP, "Gateway", namespace, name)
    return [gateway, *engine.pipeline.listener_sets(gateway)]
