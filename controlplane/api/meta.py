"""What every kind shares: the model base, object metadata, keys, and references between objects."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple, Protocol, TypeAlias, dataclass_transform

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controlplane.api.marks import NotSupported
from controlplane.api.scalars import (
    Group,
    Int,
    Kind,
    MetaName,
    NamespaceName,
    ObjectName,
    Port,
    QualifiedName,
    SectionName,
    refuse,
)

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
DISCOVERY_GROUP: Final = "discovery.k8s.io"
INGRESS_GROUP: Final = "networking.k8s.io"
POLICY_GROUP: Final = "dragoman.dev"
ENVOY_GATEWAY_GROUP: Final = "gateway.envoyproxy.io"

# Field names whose spelling is not plain camel case.
_SPELLINGS: Final[dict[str, str]] = {
    "backend_tls": "backendTLS",
    "client_cidrs": "clientCIDRs",
    "client_ip_detection": "clientIPDetection",
    "cluster_ip": "clusterIP",
    "forward_client_id_header": "forwardClientIDHeader",
    "local_jwks": "localJWKS",
    "remote_jwks": "remoteJWKS",
    "source_cidr": "sourceCIDR",
    "well_known_ca_certificates": "wellKnownCACertificates",
}


def spell(name: str) -> str:
    """The name of a field as manifests write it."""
    return _SPELLINGS.get(name) or to_camel(name)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
class _FrozenMeta(type(BaseModel)):
    """Tells type checkers that all models are frozen, so that a subclass may narrow the type of a field."""

    def __hash__(cls) -> int:
        return type.__hash__(cls)


class Model(BaseModel, metaclass=_FrozenMeta):
    """A part of an object: frozen, strict about names, camelCase in manifests and snake_case here."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=spell,
        validate_by_alias=True,
        validate_by_name=True,
        hide_input_in_errors=True,
        # Most folders have objects of few kinds; what the others need is not built before one is met.
        defer_build=True,
    )


class ObjectKey(NamedTuple):
    """Which object: the identity that every stage uses. Cluster-scoped kinds have an empty namespace."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """`HTTPRoute demo/open`; the group is added where the kind alone would not tell."""
        known = self.group in ("", GATEWAY_GROUP, DISCOVERY_GROUP, POLICY_GROUP, INGRESS_GROUP)
        kind = self.kind if known else f"{self.kind}.{self.group}"
        return f"{kind} {self.namespace}/{self.name}" if self.namespace else f"{kind} {self.name}"


def _without_copies(annotations: dict[str, str]) -> dict[str, str]:
    # kubectl keeps the whole object here, values of Secrets included.
    annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return annotations


class ObjectMeta(Model):
    """Metadata of a namespaced object. What Dragoman does not use (uid, managedFields, ...) is dropped."""

    model_config = ConfigDict(extra="ignore")

    name: MetaName
    namespace: NamespaceName = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: Annotated[dict[str, str], AfterValidator(_without_copies)] = Field(default_factory=dict)
    generation: Int = 0
    creation_timestamp: datetime | None = None


def _empty(_: object) -> str:
    return ""


def _nothing(_: object) -> None:
    return None


class ClusterObjectMeta(ObjectMeta):
    """Metadata of an object that belongs to no namespace."""

    namespace: Annotated[str, BeforeValidator(_empty)] = ""


class Resource(Model):
    """A whole object. `status` is accepted and dropped: conditions are computed, never read."""

    cluster_scoped: ClassVar[bool] = False
    supported: ClassVar[bool] = True
    """False for kinds that are read and checked but have no effect yet."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: Annotated[None, BeforeValidator(_nothing)] = Field(default=None, exclude=True, repr=False)

    @property
    def group(self) -> str:
        """The API group; empty for the core group."""
        group, slash, _ = self.api_version.partition("/")
        return group if slash else ""

    @property
    def key(self) -> ObjectKey:
        """The identity of this object, group and kind as written."""
        return ObjectKey(self.group, self.kind, self.metadata.namespace, self.metadata.name)


class LocalObjectReference(Model):
    """An object of the same namespace."""

    group: Group
    """API group of the object; empty for the core group."""
    kind: Kind
    """Kind of the object."""
    name: ObjectName
    """Name of the object."""


class ObjectReference(Model):
    """An object, perhaps of another namespace (which then needs a ReferenceGrant)."""

    group: Group
    """API group of the object; empty for the core group."""
    kind: Kind
    """Kind of the object."""
    name: ObjectName
    """Name of the object."""
    namespace: NamespaceName | None = None
    """Namespace of the object; that of the referring object when absent."""


class SecretObjectReference(Model):
    """A Secret, perhaps of another namespace (which then needs a ReferenceGrant)."""

    name: ObjectName
    """Name of the object."""
    group: Group = ""
    """API group of the object; empty for the core group."""
    kind: Kind = "Secret"
    """Kind of the object."""
    namespace: NamespaceName | None = None
    """Namespace of the object; that of the referring object when absent."""


class BackendObjectReference(Model):
    """Where requests go: a Service, or another kind that stands for endpoints, such as Backend."""

    name: ObjectName
    """Name of the backend."""
    group: Group = ""
    """API group of the backend; empty for a Service."""
    kind: Kind = "Service"
    """Service, or Backend with group `dragoman.dev` (or `gateway.envoyproxy.io`)."""
    namespace: NamespaceName | None = None
    """Namespace of the backend; that of the referring object when absent."""
    port: Port | None = None
    """Port of the Service (not of its pods); required for a Service."""

    @model_validator(mode="after")
    def _service_has_port(self) -> BackendObjectReference:
        if self.port is None and self.kind == "Service" and self.group == "":
            raise refuse("a reference to a Service needs a port", "port")
        return self


class BackendRef(BackendObjectReference):
    """A backend and its share of requests or connections."""

    weight: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] = 1
    """Share, relative to the sum of the rule's weights; 0 sends none."""


class ParentReference(Model):
    """What a route attaches to: a Gateway or ListenerSet, or one of its listeners."""

    name: ObjectName
    """Name of the parent."""
    group: Group = GATEWAY_GROUP
    """API group of the parent."""
    kind: Kind = "Gateway"
    """Gateway or ListenerSet."""
    namespace: NamespaceName | None = None
    """Namespace of the parent; that of the route when absent."""
    section_name: SectionName | None = None
    """Name of one listener; all listeners when absent."""
    port: Port | None = None
    """Port of the listeners to attach to; any when absent."""


class PolicyTargetReference(Model):
    """What a policy applies to: an object of its own namespace, or one section of it."""

    group: Group
    """API group of the target."""
    kind: Kind
    """Kind of the target."""
    name: ObjectName
    """Name of the target."""
    section_name: SectionName | None = None
    """Name of a listener (Gateway, ListenerSet), rule (routes) or port (Service); the whole object when absent."""


class LabelSelectorRequirement(Model):
    """One condition on the labels of an object."""

    key: QualifiedName
    """Name of the label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label is compared."""
    values: tuple[str, ...] = ()
    """Values for In and NotIn."""

    @model_validator(mode="after")
    def _values_fit(self) -> LabelSelectorRequirement:
        if bool(self.values) != (self.operator in ("In", "NotIn")):
            need = "at least one value" if not self.values else "no values"
            raise refuse(f"operator {self.operator} needs {need}", "values")
        return self

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether these labels satisfy the condition, as Kubernetes defines it."""
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        return (labels.get(self.key) in self.values) == (self.operator == "In")


class LabelSelector(Model):
    """Objects by their labels; an empty selector selects everything."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that an object must have, with these values."""
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
    """Further conditions on its labels; all must hold."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class PolicyTargetSelector(Model):
    """What a policy applies to, by label, in its own namespace."""

    group: Group = GATEWAY_GROUP
    """API group of the targets."""
    kind: Kind
    """Kind of the targets."""
    match_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that a target must have, with these values."""
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()
    """Further conditions on its labels; all must hold."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return LabelSelector(match_labels=self.match_labels, match_expressions=self.match_expressions).matches(labels)


def check_parents(parents: tuple[ParentReference, ...]) -> tuple[ParentReference, ...]:
    """Several references to one parent must each name a different section or port (Gateway API: ParentRefs)."""
    if len(parents) < 2:
        return parents
    seen: dict[tuple[str, ...], set[tuple[Any, Any]]] = {}
    for index, parent in enumerate(parents):
        sections = seen.setdefault((parent.group, parent.kind, parent.namespace or "", parent.name), set())
        section = (parent.section_name, parent.port)
        if section in sections:
            raise refuse(f"duplicate reference to {parent.kind} {parent.name!r}", f"[{index}]")
        if any((a is None) != (b is None) for other in sections for a, b in zip(other, section, strict=True)):
            message = f"references to the same {parent.kind} {parent.name!r} must all set sectionName, or all port"
            raise refuse(message, f"[{index}]")
        sections.add(section)
    return parents


class RouteSpec(Model):
    """What all routes have in common: what they attach to."""

    parent_refs: Annotated[tuple[ParentReference, ...], Field(max_length=32), AfterValidator(check_parents)] = ()
    """Gateways, ListenerSets, or single listeners of them."""
    use_default_gateways: Annotated[Literal["All", "None"] | None, NotSupported()] = None
    """Attach to Gateways that set `defaultScope`."""


class NamedRule(Protocol):
    """A rule of a route, as far as names go."""

    @property
    def name(self) -> str | None: ...


def check_rule_names(rules: Iterable[NamedRule]) -> None:
    """Names of rules are unique within a route."""
    seen: set[str] = set()
    for index, rule in enumerate(rules):
        if rule.name is not None and rule.name in seen:
            raise refuse(f"duplicate rule name {rule.name!r}", f"[{index}].name")
        if rule.name is not None:
            seen.add(rule.name)


def check_targets(targets: tuple[PolicyTargetReference, ...]) -> tuple[PolicyTargetReference, ...]:
    """Several references to one target must each name a different section (Gateway API: targetRefs)."""
    seen: dict[tuple[str, str, str], list[str | None]] = {}
    for index, target in enumerate(targets):
        sections = seen.setdefault((target.group, target.kind, target.name), [])
        if target.section_name in sections:
            raise refuse(f"duplicate reference to {target.kind} {target.name!r}", f"[{index}]")
        if sections and (target.section_name is None or None in sections):
            message = f"references to the same {target.kind} {target.name!r} must all set sectionName"
            raise refuse(message, f"[{index}]")
        sections.append(target.section_name)
    return targets


Targets: TypeAlias = Annotated[tuple[PolicyTargetReference, ...], AfterValidator(check_targets)]
