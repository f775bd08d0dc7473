"""GatewayClass: which controller serves Gateways of a class."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from controlplane.api.meta import ClusterObjectMeta, Model, Resource
from controlplane.api.scalars import ControllerName, Group, Kind, NamespaceName, ObjectName


class ParametersReference(Model):
    """An object that configures every Gateway of the class."""

    group: Group
    kind: Kind
    name: ObjectName
    namespace: NamespaceName | None = None
    """Namespace of the object; absent for a cluster-scoped one."""


class GatewayClassSpec(Model):
    """What a class of Gateways is served by."""

    controller_name: ControllerName
    """Dragoman serves `dragoman.dev/gateway-controller`; Gateways of other classes are left alone."""
    parameters_ref: ParametersReference | None = None
    """A ProxyConfig (or EnvoyProxy) for the Envoys of all Gateways of the class."""
    description: Annotated[str, Field(max_length=64)] | None = None
    """What the class is for."""


class GatewayClass(Resource):
    """A class of Gateways, and the controller that serves it."""

    cluster_scoped: ClassVar[bool] = True

    kind: Literal["GatewayClass"] = "GatewayClass"
    metadata: ClusterObjectMeta
    spec: GatewayClassSpec
