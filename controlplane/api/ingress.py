"""Ingress and IngressClass of Kubernetes (networking.k8s.io/v1), which become HTTPRoutes and ListenerSets."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from controlplane.api.core import Part
from controlplane.api.meta import ClusterObjectMeta, Resource
from controlplane.api.scalars import Group, Hostname, Kind, NamespaceName, ObjectName, Port, refuse

INGRESS_CONTROLLER: Final = "dragoman.dev/ingress-controller"
DEFAULT_CLASS_ANNOTATION: Final = "ingressclass.kubernetes.io/is-default-class"
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"

PathType: TypeAlias = Literal["Exact", "Prefix", "ImplementationSpecific"]


class ServiceBackendPort(Part):
    """A port of a Service, by number or by name."""

    name: Annotated[str, Field(max_length=63)] = ""
    number: Port | None = None

    @model_validator(mode="after")
    def _one(self) -> ServiceBackendPort:
        if bool(self.name) == (self.number is not None):
            raise refuse("set either name or number")
        return self


class IngressServiceBackend(Part):
    """A Service of the Ingress's own namespace."""

    name: ObjectName
    port: ServiceBackendPort


class TypedLocalObjectReference(Part):
    """An object of the Ingress's own namespace."""

    api_group: Group = ""
    kind: Kind
    name: ObjectName


class IngressBackend(Part):
    """Where requests go."""

    service: IngressServiceBackend | None = None
    resource: TypedLocalObjectReference | None = None

    @model_validator(mode="after")
    def _one(self) -> IngressBackend:
        if (self.service is None) == (self.resource is None):
            raise refuse("set either service or resource")
        return self


class HTTPIngressPath(Part):
    """Paths, and where requests for them go."""

    path: Annotated[str, Field(max_length=1024)] = ""
    path_type: PathType
    backend: IngressBackend

    @model_validator(mode="after")
    def _absolute(self) -> HTTPIngressPath:
        if self.path_type != "ImplementationSpecific" and not self.path.startswith("/"):
            raise refuse(f"expected an absolute path that starts with '/'; got {self.path!r}", "path")
        return self


class HTTPIngressRuleValue(Part):
    """What the paths of a host lead to."""

    paths: Annotated[tuple[HTTPIngressPath, ...], Field(min_length=1)]


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


class IngressRule(Part):
    """The paths of a host; those of every host that no rule names where it is absent."""

    host: Annotated[Hostname | None, BeforeValidator(_none_if_empty)] = None
    http: HTTPIngressRuleValue | None = None
    """All paths lead to the default backend where this is absent."""


class IngressTLS(Part):
    """Hosts, and the Secret that has their certificate."""

    hosts: tuple[Hostname, ...] = ()
    secret_name: str = ""


class IngressSpec(Part):
    """Hosts and paths, and where requests for them go."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[IngressRule, ...] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> IngressSpec:
        if self.default_backend is None and not self.rules:
            raise refuse("set defaultBackend, rules or both")
        return self


class Ingress(Resource):
    """Hosts and paths of a namespace, and the Services that requests for them go to."""

    kind: Literal["Ingress"] = "Ingress"
    spec: IngressSpec

    @property
    def class_name(self) -> str | None:
        """The name of its class, as the field has it or the older annotation; None where neither does."""
        return self.spec.ingress_class_name or self.metadata.annotations.get(CLASS_ANNOTATION)


class IngressClassParameters(Part):
    """The Gateway that carries the Ingresses of a class."""

    api_group: Group = ""
    kind: Kind
    name: ObjectName
    namespace: NamespaceName | None = None
    scope: Literal["Cluster", "Namespace"] = "Cluster"


class IngressClassSpec(Part):
    """Who serves the Ingresses of a class, and with what."""

    controller: Annotated[str, Field(max_length=250)] = ""
    parameters: IngressClassParameters | None = None


class IngressClass(Resource):
    """A name that Ingresses choose their controller by."""

    cluster_scoped: ClassVar[bool] = True

    kind: Literal["IngressClass"] = "IngressClass"
    metadata: ClusterObjectMeta
    spec: IngressClassSpec = IngressClassSpec()
