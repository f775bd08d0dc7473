"""The inputs of the pipeline, and which version of each object is in force."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.endpointslice import EndpointSlice
from controlplane.api.load import Fault
from controlplane.api.meta import DISCOVERY_GROUP, GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.api.referencegrant import ReferenceGrant
from controlplane.compile.backendtls import in_order
from controlplane.compile.targets import Targets
from controlplane.graph import Derived, Graph, Index, Table

SERVICE_NAME = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a version of an object that has no fault of its own is not to be in force.

    Envoy has rejected it with `message`; or, without one, it is yet to be found out whether Envoy does. While `absent`,
    a security policy that never was good guards nothing yet, as before it came.
    """

    message: str = ""
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """An object as its source has it now: typed, or None with the faults that refuse it."""

    object: Any
    faults: tuple[Fault, ...] = ()
    targets: Targets | None = None  # what a policy that cannot be read at all is about, as far as can be told
    verdict: Verdict | None = None

    @property
    def good(self) -> bool:
        """Says whether the object may be in force as it is."""
        return self.object is not None and not self.faults and self.verdict is None


class Standing(NamedTuple):
    """The version of an object that is in force; `newest` is whether that is the newest, and nothing wrong with it.

    `waits_for` are the host names, or URIs of key sets, that keep the newest from being in force.
    """

    object: Any
    newest: bool = False
    waits_for: tuple[str, ...] = ()


_ABSENT = Standing(None)


class Objects:
    """Tables of candidates and of what was last accepted; implements `compile.view.View` with recorded reads."""

    def __init__(
        self,
        graph: Graph,
        *,
        waiting: Callable[[ObjectKey, Any], tuple[str, ...]],
        remote_backends_only: bool = False,
        quota_mode: bool = False,
        rate_limit_service: bool = True,
    ) -> None:
        self._graph = graph
        self._quota_mode = quota_mode
        self._rate_limit_service = rate_limit_service
        self._remote_backends_only = remote_backends_only
        self._waiting = waiting
        self._tables: dict[tuple[str, str], Table[ObjectKey, Admitted]] = {}
        self.accepted: Table[ObjectKey, Any] = graph.table("accepted")
        self.resolved: Table[str, tuple[str, ...]] = graph.table("resolved")
        self.key_sets: Table[str, str] = graph.table("key sets")
        self._standing: Derived[ObjectKey, Standing] = graph.derive("in force", self._compute_standing)
        self._grants: Index[str, ObjectKey] = graph.group(
            "grants", self.table(GATEWAY_GROUP, "ReferenceGrant"), lambda key: [(key.namespace, key)]
        )
        self._plans: Index[str, ObjectKey] = graph.group(
            "plans", self.table(POLICY_GROUP, "Plan"), lambda key: [(key.namespace, key)]
        )
        self._slices: Index[tuple[str, str], ObjectKey] = graph.group(
            "slices", self.table(DISCOVERY_GROUP, "EndpointSlice"), self._service_of_slice
        )
        self._tls_policies: Index[tuple[str, str], ObjectKey] = graph.group(
            "TLS policies", self.table(GATEWAY_GROUP, "BackendTLSPolicy"), self._services_of_policy
        )

    def table(self, group: str, kind: str) -> Table[ObjectKey, Admitted]:
        """Returns the candidates of one kind."""
        table = self._tables.get((group, kind))
        if table is None:
            table = self._tables[group, kind] = self._graph.table(kind)
        return table

    def table_of(self, key: ObjectKey) -> Table[ObjectKey, Admitted]:
        """Returns the candidates among which a key belongs."""
        return self.table(key.group, key.kind)

    def candidate(self, key: ObjectKey) -> Admitted | None:
        """Reads the newest version of an object, good or not (recorded)."""
        return self.table_of(key).get(key)

    def everything(self) -> Iterable[tuple[ObjectKey, Admitted]]:
        """Iterates over all candidates, unrecorded."""
        for table in list(self._tables.values()):
            yield from table.items()

    def peek(self, key: ObjectKey) -> Admitted | None:
        """Returns the newest version of an object, unrecorded."""
        table = self._tables.get((key.group, key.kind))
        return table.peek(key) if table is not None else None

    def standing(self, key: ObjectKey) -> Standing:
        """Reads which version of an object is in force (recorded)."""
        return self._standing.get(key)

    def waiting(self, key: ObjectKey) -> tuple[str, ...]:
        """Returns the host names whose addresses an object waits for before it can be in force."""
        return self._standing.get(key).waits_for

    # -- compile.view.View --

    @property
    def remote_backends_only(self) -> bool:
        return self._remote_backends_only

    @property
    def quota_mode(self) -> bool:
        return self._quota_mode

    @property
    def rate_limit_service(self) -> bool:
        return self._rate_limit_service

    def get(self, key: ObjectKey) -> Any:
        return self._standing.get(key).object

    def grants(self, namespace: str) -> Iterable[ReferenceGrant]:
        found = (self.get(key) for key in sorted(self._grants.get(namespace)))
        return [grant for grant in found if grant is not None]

    def plans(self, namespace: str) -> Iterable[ObjectKey]:
        return sorted(self._plans.get(namespace))

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        found = (self.get(key) for key in sorted(self._slices.get((namespace, service))))
        return [piece for piece in found if piece is not None]

    def tls_policies(self, namespace: str, service: str) -> Sequence[BackendTLSPolicy]:
        found = (self.get(key) for key in self._tls_policies.get((namespace, service)))
        return in_order(policy for policy in found if policy is not None)

    def addresses(self, host: str) -> tuple[str, ...] | None:
        return self.resolved.get(host)

    def key_set(self, uri: str) -> str | None:
        return self.key_sets.get(uri)

    def _compute_standing(self, key: ObjectKey) -> Standing:
        candidate = self.candidate(key)
        if candidate is None:
            return _ABSENT
        waits_for = self._waiting(key, candidate.object) if candidate.good else ()
        if candidate.good and not waits_for:
            return Standing(candidate.object, newest=True)
        accepted = self.accepted.get(key)
        if accepted is None and candidate.good and key.kind == "Backend":
            # A new Backend has nothing to stand in for it; the routes to it wait instead.
            return Standing(candidate.object, newest=True, waits_for=waits_for)
        if accepted is None and key.kind == "Gateway" and all(_is_of_listener(fault) for fault in candidate.faults):
            return Standing(candidate.object, waits_for=waits_for)  # its sound listeners serve
        return Standing(accepted, newest=candidate.good and accepted is candidate.object, waits_for=waits_for)

    def _service_of_slice(self, key: ObjectKey) -> list[tuple[tuple[str, str], ObjectKey]]:
        piece = self.get(key)
        service = piece.metadata.labels.get(SERVICE_NAME) if piece is not None else None
        return [((key.namespace, service), key)] if service else []

    def _services_of_policy(self, key: ObjectKey) -> list[tuple[tuple[str, str], ObjectKey]]:
        policy = self.get(key)
        targets = policy.targets if policy is not None else ()
        names = dict.fromkeys(each.name for each in targets if (each.group, each.kind) == ("", "Service"))
        return [((key.namespace, name), key) for name in names]


def _is_of_listener(fault: Fault) -> bool:
    return fault.path.startswith("spec.listeners[")
