"""The statuses of Gateways and ListenerSets, and of the listeners that each of them has."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile import listenerset
from controlplane.compile.backendtls import client_certificate
from controlplane.compile.frontend import insecure
from controlplane.compile.gateway import GatewayListener
from controlplane.compile.parameters import address_fault, parameters
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, false, true
from controlplane.pipeline.attachments import Attachments
from controlplane.pipeline.objects import Objects
from controlplane.pipeline.policies import Place
from controlplane.pipeline.unsupported import unsupported

Conditions = tuple[Condition, ...]


class GatewayStatuses:
    """Computes statuses from the verdicts on listeners; `refused` is what is wrong with an object's newest version."""

    def __init__(self, objects: Objects, attachments: Attachments) -> None:
        self._objects = objects
        self._attachments = attachments

    def gateway(self, key: ObjectKey, refused: Conditions) -> ObjectStatus:
        """Returns what is to be said about a Gateway (Gateway API: GatewayStatus)."""
        judged = self._attachments.judged.get(key)
        admitted = self._objects.candidate(key)
        if judged is None:
            return ObjectStatus(conditions=refused or self._without_class(key))
        found = self._objects.get(key)
        further = (client_certificate(self._objects, found).condition, insecure(found)) if found is not None else ()
        accepted = self._accepted(key, refused)
        sets = {each.owner for each in judged if each.owner != key and each.serves}
        return ObjectStatus(
            conditions=(*accepted, *filter(None, further), *unsupported(admitted)),
            listeners=self._listeners(key, [each for each in judged if each.owner == key]),
            attached_listener_sets=len(sets) if _holds(accepted) else 0,
        )

    def listener_set(self, key: ObjectKey, refused: Conditions) -> ObjectStatus:
        """Returns what is to be said about a ListenerSet (Gateway API: ListenerSetStatus)."""
        found = self._objects.get(key)
        if found is None:
            return ObjectStatus(conditions=refused)
        of_parent = self._attachments.of_parent(key)
        if of_parent is None:
            return ObjectStatus(conditions=refused or self._without_parent(key))
        gateway, own = of_parent
        accepted = refused or (self._accepted_by(gateway, own),)
        return ObjectStatus(
            conditions=(*accepted, *unsupported(self._objects.candidate(key))), listeners=self._listeners(gateway, own)
        )

    def _accepted(self, key: ObjectKey, refused: Conditions) -> Conditions:
        """Judges a Gateway: with its ListenerSets it needs one listener that serves."""
        found, admitted = self._objects.get(key), self._objects.candidate(key)
        if found is None or admitted is None or found is not admitted.object:
            return refused
        settings = parameters(self._objects, found)
        fault = settings if isinstance(settings, Condition) else address_fault(found)
        if fault is not None:
            return (fault,)
        judged = self._attachments.judged.get(key) or ()
        if not any(each.serves for each in judged):
            return (false("Accepted", "ListenersNotValid", "no listener is valid", "spec.listeners"),)
        of_itself = self._attachments.of_parent(key)
        bad = [each.name for each in of_itself[1] if not each.serves] if of_itself is not None else []
        if bad:
            return (true("Accepted", "ListenersNotValid", f"listeners that do not serve: {', '.join(bad)}"),)
        return (true("Accepted"),)

    def _accepted_by(self, gateway: ObjectKey, own: Sequence[GatewayListener]) -> Condition:
        refused = false("Accepted", "ParentNotAccepted", f"{gateway} is not accepted", "spec.parentRef")
        if self._objects.get(gateway) is None:
            return refused
        if not own:
            message = f"{gateway} does not let ListenerSets of this namespace join"
            return false("Accepted", "NotAllowed", message, "spec.parentRef")
        verdict = listenerset.accepted(own)
        return verdict if verdict.status != "True" or _holds(self._accepted(gateway, ())) else refused

    def _without_parent(self, key: ObjectKey) -> Conditions:
        """Says so where nobody can have what a ListenerSet names; of what another controller has, nothing is said."""
        parent = self._attachments.gateway_of_set(key)
        if parent is None or self._objects.candidate(parent) is not None:
            return ()
        if (parent.group, parent.kind) != (GATEWAY_GROUP, "Gateway"):
            message = f"{parent.kind} is not a kind of parent; expected a Gateway"
            return (false("Accepted", "Invalid", message, "spec.parentRef.kind"),)
        return (false("Accepted", "ParentNotAccepted", f"{parent} does not exist", "spec.parentRef.name"),)

    def _without_class(self, key: ObjectKey) -> Conditions:
        admitted = self._objects.candidate(key)
        if admitted is None or admitted.object is None:
            return ()
        name = admitted.object.spec.gateway_class_name
        if self._objects.get(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", name)) is not None:
            return ()
        return (false("Accepted", "Pending", f"GatewayClass {name} does not exist", "spec.gatewayClassName"),)

    def _listeners(self, gateway: ObjectKey, own: Sequence[GatewayListener]) -> tuple[ListenerStatus, ...]:
        overlaps = self._attachments.overlaps.get(gateway)
        return tuple(
            ListenerStatus(
                name=each.name,
                attached_routes=len(self._attachments.on_listener.get(Place(gateway, each.id))),
                supported_kinds=each.kinds,
                conditions=(*each.conditions, _programmed(each), *filter(None, [overlaps.get(each.id)])),
            )
            for each in own
        )


def _holds(accepted: Conditions) -> bool:
    return all(each.status == "True" for each in accepted)


def _programmed(listener: GatewayListener) -> Condition:
    if listener.serves:
        return Condition("Programmed", "Unknown", "Pending", "no Envoy has said yet that it serves this")
    conflict = next((each for each in listener.conditions if each.type == "Conflicted"), None)
    if conflict is not None:
        return false("Programmed", conflict.reason, conflict.message, conflict.field)
    return false("Programmed", "Invalid", "the listener does not serve; see its other conditions")
