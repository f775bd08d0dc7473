"""ProxyConfig: how the Envoys of a Gateway or GatewayClass are run."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from controlplane.api.marks import NotSupported
from controlplane.api.meta import Model, Resource
from controlplane.api.policy import LaterBool, LaterList, LaterMapping, MergeType
from controlplane.api.scalars import Positive


class ProxyConfigSpec(Model):
    """Settings of Envoy as a program."""

    provider: LaterMapping = None
    logging: LaterMapping = None
    telemetry: LaterMapping = None
    bootstrap: LaterMapping = None
    concurrency: Annotated[Positive | None, NotSupported()] = None
    routing_type: Annotated[Literal["Service", "Endpoint"] | None, NotSupported()] = None
    extra_args: LaterList = None
    merge_gateways: LaterBool = None
    shutdown: LaterMapping = None
    filter_order: LaterList = None
    backend_tls: LaterMapping = None
    ip_family: Annotated[Literal["IPv4", "IPv6", "DualStack"] | None, NotSupported()] = None
    preserve_route_order: LaterBool = None
    lua_validation: Annotated[Literal["Strict", "InsecureSyntax", "Disabled", "Syntax"] | None, NotSupported()] = None
    dynamic_modules: LaterList = None
    geo_ip: Annotated[LaterMapping, Field(alias="geoIP")] = None
    merge_type: Annotated[MergeType | None, NotSupported()] = None


class ProxyConfig(Resource):
    """How the Envoys of a Gateway or GatewayClass are run; named by their `parametersRef`."""

    supported: ClassVar[bool] = False

    kind: Literal["ProxyConfig", "EnvoyProxy"] = "ProxyConfig"
    spec: ProxyConfigSpec = ProxyConfigSpec()
