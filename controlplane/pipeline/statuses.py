"""The status of every object, put together from the verdicts of the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.api.backend import Backend
from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.api.plan import Plan
from controlplane.compile import trust
from controlplane.compile.attachment import Attached, AttachedParent
from controlplane.compile.backendtls import judge
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.gateway import CONTROLLER_NAME
from controlplane.compile.parameters import class_parameters
from controlplane.compile.plans import plan_conditions
from controlplane.conditions import Condition, ObjectStatus, ParentRef, ParentStatus, false, true
from controlplane.pipeline.attachments import Attachments, is_route
from controlplane.pipeline.gateway_statuses import GatewayStatuses
from controlplane.pipeline.objects import Admitted, Objects, Verdict
from controlplane.pipeline.policies import Place, is_policy
from controlplane.pipeline.unsupported import unsupported


class Statuses:
    """Computes statuses; `policy` and `conflict` say what is to be said of policies, and of routes that lose."""

    def __init__(
        self,
        objects: Objects,
        attachments: Attachments,
        *,
        policy: Callable[[ObjectKey], ObjectStatus],
        conflict: Callable[[ObjectKey, CompiledRoute, Sequence[Attached]], Condition | None],
    ) -> None:
        self._objects = objects
        self._attachments = attachments
        self._gateways = GatewayStatuses(objects, attachments)
        self._policy = policy
        self._conflict = conflict

    def compute(self, key: ObjectKey) -> ObjectStatus:
        """Returns what is to be said about an object as it stands."""
        admitted = self._objects.candidate(key)
        if admitted is None:
            return ObjectStatus()
        refused = self._refused(key, admitted)
        if is_route(key) and (admitted.object is None or admitted.object.supported):
            if refused and self._objects.get(key) is None:
                return self._refused_route(admitted, refused)
            return self._route(key, refused, admitted)
        if key.group == GATEWAY_GROUP and key.kind == "Gateway":
            return self._gateways.gateway(key, refused)
        if key.group == GATEWAY_GROUP and key.kind == "ListenerSet":
            return self._gateways.listener_set(key, refused)
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
        more = plan_conditions(admitted.object) if isinstance(admitted.object, Plan) else ()
        untrusted = (
            trust.faults(self._objects, trust.of_backend(admitted.object))
            if isinstance(admitted.object, Backend)
            else ()
        )
        return ObjectStatus(conditions=(true("Accepted"), *untrusted, *more, *unsupported(admitted)))

    def _refused(self, key: ObjectKey, admitted: Admitted) -> tuple[Condition, ...]:
        stands_in = "; the last good version stays in force" if self._objects.get(key) is not None else ""
        if not stands_in and is_policy(key) and key.kind == "SecurityPolicy":
            stands_in = "; requests for what it should guard are answered with 500"
        if admitted.faults:
            return tuple(false("Accepted", "Invalid", f.message + stands_in, f.path) for f in admitted.faults)
        if admitted.verdict is not None:
            return (_of_envoy(admitted.verdict, stands_in or "; nothing is in force in its place"),)
        hosts = self._objects.waiting(key)
        if hosts:
            what = "key sets" if is_policy(key) else "addresses"
            message = f"waiting for the {what} of {', '.join(hosts)}{stands_in}"
            return (Condition("Accepted", "Unknown", "Pending", message),)
        return ()

    def _gateway_class(self, admitted: Admitted) -> ObjectStatus:
        if admitted.object.spec.controller_name != CONTROLLER_NAME:
            return ObjectStatus()
        settings = class_parameters(self._objects, admitted.object)
        return ObjectStatus(conditions=(settings if isinstance(settings, Condition) else true("Accepted"),))

    def _route(self, key: ObjectKey, refused: tuple[Condition, ...], admitted: Admitted) -> ObjectStatus:
        attachment = self._attachments.attachment.get(key)
        compiled = self._attachments.compiled.get(key)
        faults = compiled.faults
        told = {each.field for each in faults}
        without_effect = (each for each in unsupported(admitted) if each.field not in told)
        resolved = tuple(f for f in faults if f.type == "ResolvedRefs") or (true("ResolvedRefs"),)
        others = tuple(f for f in faults if f.type != "ResolvedRefs")
        parents = tuple(
            ParentStatus(
                parent.title,
                (
                    *self._accepted(key, parent, others),
                    *resolved,
                    *filter(None, [self._conflict(key, compiled, parent.places)]),
                ),
                parent.ref,
            )
            for parent in attachment.parents
        )
        return ObjectStatus(conditions=(*refused, *attachment.missing, *without_effect), parents=parents)

    def _refused_route(self, admitted: Admitted, refused: tuple[Condition, ...]) -> ObjectStatus:
        """Returns the status of a route that never was good: its own faults, at each parent that it wants of ours."""
        if admitted.object is None:
            return ObjectStatus(conditions=refused)
        wanted = self._attachments.wanted_by(admitted.object)
        return ObjectStatus(refused, tuple(ParentStatus(each.title, refused, each.ref) for each in wanted.parents))

    def _accepted(self, key: ObjectKey, parent: AttachedParent, faults: tuple[Condition, ...]) -> tuple[Condition, ...]:
        """Returns what a parent makes of a route, whose own faults count only where it might have been accepted."""
        if parent.accepted.status != "True":
            return (parent.accepted,)
        if any(each.type == "Accepted" for each in faults):
            return faults
        accepted = self._accepted_beside(key, parent)
        return (accepted, *faults) if accepted.status == "True" else (accepted,)

    def _accepted_beside(self, key: ObjectKey, parent: AttachedParent) -> Condition:
        """Returns what becomes of a route beside those of the other kind that want its hostnames."""
        places = (Place(each.gateway, each.listener) for each in parent.places)
        winners = [self._attachments.rejected.get(place).get(key) for place in places]
        lost = next((winner for winner in winners if winner is not None), None)
        if lost is None:
            return parent.accepted
        message = f"{lost} has a hostname of this route, and a listener serves one kind of route on it"
        if None in winners:
            return true("Accepted", message=f"on some listeners only: on others {message}")
        return false("Accepted", "HostnameConflict", message, "spec.hostnames")

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
            rest = (each for each in conditions if not missing or each.type != "Accepted")
            return ObjectStatus(conditions=(*missing, *rest))
        refs = [ParentRef(key.kind, key.name, key.group, key.namespace) for key in sorted(gateways)]
        return ObjectStatus(
            tuple(missing), tuple(ParentStatus(f"{r.kind} {r.namespace}/{r.name}", conditions, r) for r in refs)
        )


def _of_envoy(verdict: Verdict, stands_in: str) -> Condition:
    if verdict.message:
        return false("Accepted", "Invalid", f"rejected by Envoy: {verdict.message}{stands_in}")
    message = f"waiting until it is known which of the newest changes Envoy rejects{stands_in}"
    return Condition("Accepted", "Unknown", "Pending", message)
