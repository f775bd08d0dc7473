"""The status of every object, put together from the verdicts of the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.api.backend import Backend
from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.fields import unsupported_fields
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile import trust
from controlplane.compile.attachment import Attached
from controlplane.compile.backendtls import client_certificate, judge
from controlplane.compile.frontend import insecure
from controlplane.compile.gateway import CONTROLLER_NAME, GatewayListener
from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.pipeline.attachments import Attachments, is_route
from controlplane.pipeline.objects import Admitted, Objects
from controlplane.pipeline.policies import Place, is_policy


class Statuses:
    """Computes statuses; `policy` and `conflict` say what is to be said of policies, and of routes that lose."""

    def __init__(
        self,
        objects: Objects,
        attachments: Attachments,
        *,
        policy: Callable[[ObjectKey], ObjectStatus],
        conflict: Callable[[ObjectKey, Sequence[Attached]], Condition | None],
    ) -> None:
        self._objects = objects
        self._attachments = attachments
        self._policy = policy
        self._conflict = conflict

    def compute(self, key: ObjectKey) -> ObjectStatus:
        """Returns what is to be said about an object as it stands."""
        admitted = self._objects.candidate(key)
        if admitted is None:
            return ObjectStatus()
        refused = self._refused(key, admitted)
        if is_route(key) and (admitted.object is None or admitted.object.supported):
            return self._route(key, refused)
        if key.group == GATEWAY_GROUP and key.kind == "Gateway":
            return self._gateway(key, refused)
        if refused:
            return ObjectStatus(conditions=refused)
        if is_policy(key):
            return self._policy(key)
        if isinstance(admitted.object, BackendTLSPolicy):
            return self._backend_tls(admitted.object)
        if key.group == GATEWAY_GROUP and key.kind == "GatewayClass":
            return self._gateway_class(admitted)
        if not admitted.object.supported:
            message = f"{key.kind} is not supported yet; the object has no effect"
            return ObjectStatus(conditions=(false("Accepted", "NotSupported", message, "kind"),))
        untrusted = (
            trust.faults(self._objects, trust.of_backend(admitted.object))
            if isinstance(admitted.object, Backend)
            else ()
        )
        return ObjectStatus(conditions=(true("Accepted"), *untrusted, *_unsupported(admitted)))

    def _refused(self, key: ObjectKey, admitted: Admitted) -> tuple[Condition, ...]:
        stands_in = "; the last good version stays in force" if self._objects.get(key) is not None else ""
        if not stands_in and is_policy(key) and key.kind == "SecurityPolicy":
            stands_in = "; requests for what it should guard are answered with 500"
        if admitted.faults:
            return tuple(false("Accepted", "Invalid", f.message + stands_in, f.path) for f in admitted.faults)
        hosts = self._objects.waiting(key)
        if hosts:
            what = "key sets" if is_policy(key) else "addresses"
            message = f"waiting for the {what} of {', '.join(hosts)}{stands_in}"
            return (Condition("Accepted", "Unknown", "Pending", message),)
        return ()

    def _gateway_class(self, admitted: Admitted) -> ObjectStatus:
        if admitted.object.spec.controller_name != CONTROLLER_NAME:
            return ObjectStatus()
        return ObjectStatus(conditions=(true("Accepted"),))

    def _gateway(self, key: ObjectKey, refused: tuple[Condition, ...]) -> ObjectStatus:
        judged = self._attachments.judged.get(key)
        admitted = self._objects.candidate(key)
        if judged is None:
            return ObjectStatus(conditions=refused or self._without_class(admitted))
        listeners = tuple(
            ListenerStatus(
                name=each.name,
                attached_routes=len(self._attachments.on_listener.get(Place(key, each.id))),
                supported_kinds=each.kinds,
                conditions=(*each.conditions, _programmed(each)),
            )
            for each in judged
        )
        admitted = self._objects.candidate(key)
        if admitted is not None and self._objects.get(key) is admitted.object:
            refused = ()  # What is wrong with it is said of its listeners.
        bad = [each.name for each in judged if not each.serves]
        accepted = true("Accepted")
        if bad:
            accepted = true("Accepted", "ListenersNotValid", f"listeners that do not serve: {', '.join(bad)}")
        if len(bad) == len(judged):
            accepted = false("Accepted", "ListenersNotValid", "no listener is valid", "spec.listeners")
        gateway = self._objects.get(key)
        further = (
            (client_certificate(self._objects, gateway).condition, insecure(gateway)) if gateway is not None else ()
        )
        conditions = (*(refused or (accepted,)), *filter(None, further), *_unsupported(admitted))
        return ObjectStatus(conditions=conditions, listeners=listeners)

    def _without_class(self, admitted: Admitted | None) -> tuple[Condition, ...]:
        if admitted is None or admitted.object is None:
            return ()
        name = admitted.object.spec.gateway_class_name
        if self._objects.get(ObjectKey(GATEWAY_GROUP, "GatewayClass", "", name)) is not None:
            return ()
        return (false("Accepted", "Pending", f"GatewayClass {name} does not exist", "spec.gatewayClassName"),)

    def _route(self, key: ObjectKey, refused: tuple[Condition, ...]) -> ObjectStatus:
        faults = self._attachments.compiled.get(key).faults
        resolved = next((f for f in faults if f.type == "ResolvedRefs"), None) or true("ResolvedRefs")
        others = tuple(f for f in faults if f.type != "ResolvedRefs")
        further = tuple(f for f in faults if f.type == "ResolvedRefs" and f is not resolved)
        parents = tuple(
            ParentStatus(
                parent.title,
                (
                    *(others if others and parent.accepted.status == "True" else (parent.accepted,)),
                    resolved,
                    *further,
                    *filter(None, [self._conflict(key, parent.places)]),
                ),
                parent.ref,
            )
            for parent in self._attachments.attachment.get(key).parents
        )
        return ObjectStatus(conditions=(*refused, *self._attachments.attachment.get(key).missing), parents=parents)

    def _backend_tls(self, policy: BackendTLSPolicy) -> ObjectStatus:
        conditions = judge(self._objects, policy)
        services = [(policy.metadata.namespace, each.name) for each in policy.targets if each.kind == "Service"]
        gateways = {gateway for each in services for gateway in self._attachments.gateways_of_service.get(each)}
        missing = [
            false(
                "Accepted",
                "TargetNotFound",
                f"{each.kind} {each.name} does not exist",
                f"spec.targetRefs[{index}].name",
            )
            for index, each in enumerate(policy.targets)
            if self._objects.get(ObjectKey(each.group, each.kind, policy.metadata.namespace, each.name)) is None
        ]
        if not gateways:
            return ObjectStatus(conditions=(*missing, *conditions))
        refs = [ParentRef(key.kind, key.name, key.group, key.namespace) for key in sorted(gateways)]
        return ObjectStatus(
            tuple(missing), tuple(ParentStatus(f"{r.kind} {r.namespace}/{r.name}", conditions, r) for r in refs)
        )


def _unsupported(admitted: Admitted | None) -> tuple[Condition, ...]:
    """Names the fields that have no effect yet."""
    object_ = admitted.object if admitted is not None else None
    if object_ is None:
        return ()
    return tuple(
        Condition(
            "NotSupported", "True", "UnsupportedField", "has no effect yet" + (mark.hint and f"; {mark.hint}"), path
        )
        for path, mark in unsupported_fields(object_)
    )


def _programmed(listener: GatewayListener) -> Condition:
    if listener.serves:
        return Condition("Programmed", "Unknown", "Pending", "no Envoy has said yet that it serves this")
    return false("Programmed", "Invalid", "the listener does not serve; see its other conditions")
