"""ProxyConfig: how the Envoys of a Gateway or GatewayClass are run."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import Model, Resource
from controlplane.api.policy import LaterBool, LaterList, LaterMapping, MergeType
from controlplane.api.proxyprovider import ProxyProvider
from controlplane.api.scalars import Duration, Positive, parse_duration, refuse

LogLevel: TypeAlias = Literal["trace", "debug", "info", "warn", "error", "critical", "off"]
LogComponent: TypeAlias = Annotated[str, Field(min_length=1, max_length=63, pattern="^[a-z0-9_]+$")]
Argument: TypeAlias = Annotated[str, Field(min_length=1, max_length=1024)]


class ProxyLogging(Model):
    """What Envoy writes about itself."""

    level: Annotated[dict[LogComponent, LogLevel], Field(max_length=64)] = Field(default_factory=dict)
    """Level by component of Envoy (`upstream`, `http`, …); `default` is for the others, and `warn` unless set."""


class ShutdownConfig(Model):
    """How an Envoy ends: it tells clients to go, and waits until they have gone."""

    drain_timeout: Duration = "60s"
    """How long connections may take to end; then they are cut."""
    min_drain_duration: Duration = "10s"
    """How long to accept new connections all the same: until nobody sends any, as load balancers take a while."""

    @model_validator(mode="after")
    def _in_order(self) -> ShutdownConfig:
        if parse_duration(self.min_drain_duration) > parse_duration(self.drain_timeout):
            raise refuse("must not be longer than drainTimeout", "minDrainDuration")
        return self


class ProxyConfigSpec(Model):
    """Settings of Envoy as a program."""

    provider: ProxyProvider = ProxyProvider()
    logging: ProxyLogging = ProxyLogging()
    telemetry: LaterMapping = None
    bootstrap: LaterMapping = None
    concurrency: Positive | None = None
    """Worker threads; by default as many as the limit of CPU allows, and 2 without a limit."""
    routing_type: Annotated[Literal["Service", "Endpoint"] | None, NotSupported()] = None
    extra_args: Annotated[tuple[Argument, ...], Field(max_length=64)] = ()
    """Further arguments for Envoy."""
    merge_gateways: LaterBool = None
    shutdown: ShutdownConfig = ShutdownConfig()
    filter_order: LaterList = None
    backend_tls: LaterMapping = None
    ip_family: Annotated[Literal["IPv4", "IPv6", "DualStack"] | None, NotSupported()] = None
    preserve_route_order: LaterBool = None
    lua_validation: Annotated[Literal["Strict", "InsecureSyntax", "Disabled", "Syntax"] | None, NotSupported()] = None
    dynamic_modules: LaterList = None
    geo_ip: Annotated[LaterMapping, Field(alias="geoIP")] = None
    merge_type: MergeType | None = None
    """How the ProxyConfig of a Gateway goes with that of its class: by default (and with Replace) it stands alone,
    else its fields are merged into the other's: StrategicMerge joins lists of named things, JSONMerge does not."""


class ProxyConfig(Resource):
    """How the Envoys of a Gateway or GatewayClass are run; named by their `parametersRef`."""

    kind: Literal["ProxyConfig", "EnvoyProxy"] = "ProxyConfig"
    spec: ProxyConfigSpec = ProxyConfigSpec()
