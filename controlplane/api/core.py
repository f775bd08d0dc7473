"""Kubernetes core kinds that routes and Gateways refer to: Namespace, Service, Secret, ConfigMap."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from controlplane.api.meta import ClusterObjectMeta, Model, Resource
from controlplane.api.scalars import Bool, Port, refuse


class Part(Model):
    """A part of a core object: Kubernetes adds fields to these at will, so what is not used is dropped."""

    model_config = ConfigDict(extra="ignore")


class Namespace(Resource):
    """A namespace; its labels are what selectors of listeners look at."""

    cluster_scoped: ClassVar[bool] = True

    kind: Literal["Namespace"] = "Namespace"
    metadata: ClusterObjectMeta
    spec: Part = Field(default=Part(), exclude=True)


class ServicePort(Part):
    """A port of a Service."""

    name: str = ""
    """Name of the port; needed if there are several."""
    port: Port
    """Number of the port, which routes refer to."""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """Transport protocol."""
    app_protocol: str | None = None
    """Protocol of the application, such as `kubernetes.io/h2c`."""
    target_port: Annotated[int, Field(strict=True)] | str | None = None
    """Port of the pods, by number or name; the same as `port` when absent."""


class ServiceSpec(Part):
    """Ports of a Service, and its type."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    """ExternalName stands for a DNS name; the others for endpoints."""
    ports: tuple[ServicePort, ...] = ()
    external_name: str | None = None
    """DNS name that stands for the Service; with type ExternalName."""
    cluster_ip: str | None = None
    """Address of the Service in the cluster."""
    selector: dict[str, str] = Field(default_factory=dict)
    """Labels of its pods."""
    session_affinity: Literal["None", "ClientIP"] = "None"
    publish_not_ready_addresses: Bool = False

    @model_validator(mode="after")
    def _external_has_name(self) -> ServiceSpec:
        if self.type == "ExternalName" and not self.external_name:
            raise refuse("type ExternalName needs externalName", "externalName")
        names = [port.name for port in self.ports]
        if len(names) > 1 and ("" in names or len(set(names)) < len(names)):
            raise refuse("each of several ports needs a name of its own", "ports")
        return self


class Service(Resource):
    """A name for endpoints; which they are is in its EndpointSlices."""

    kind: Literal["Service"] = "Service"
    spec: ServiceSpec = ServiceSpec()


def _decode(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refuse("expected base64 (plain text goes into `stringData`)") from None


def _with_string_data(document: Mapping[str, object]) -> Mapping[str, object]:
    data, texts = document.get("data"), document.get("stringData")
    if not isinstance(data, Mapping | None) or not isinstance(texts, Mapping):
        return document
    plain = cast("Mapping[object, object]", texts)
    if not all(isinstance(text, str) for text in plain.values()):
        return document
    encoded = {key: str(text).encode() for key, text in plain.items()}
    kept = {key: value for key, value in document.items() if key != "stringData"}
    return {**kept, "data": {**cast("Mapping[object, object]", data or {}), **encoded}}


Base64: TypeAlias = Annotated[bytes, BeforeValidator(_decode)]


class Secret(Resource):
    """Certificates, keys and passwords. Values never show in repr, logs or dumps."""

    kind: Literal["Secret"] = "Secret"
    type: str = "Opaque"
    """`kubernetes.io/tls` for certificates."""
    data: Annotated[dict[str, Base64], Field(repr=False)] = Field(default_factory=dict)
    """Values by key, base64 in manifests and bytes here; `stringData` is merged into it."""
    string_data: Annotated[dict[str, str], Field(repr=False, exclude=True)] = Field(default_factory=dict)
    """Values by key as plain text; they win over `data`."""
    immutable: Bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _merge_string_data(cls, document: Any) -> Any:
        return _with_string_data(cast("Mapping[str, object]", document)) if isinstance(document, Mapping) else document

    def __str__(self) -> str:
        return f"Secret {self.metadata.namespace}/{self.metadata.name}"


class ConfigMap(Resource):
    """Settings and certificates of authorities, by key."""

    kind: Literal["ConfigMap"] = "ConfigMap"
    data: dict[str, str] = Field(default_factory=dict)
    """Texts by key."""
    binary_data: dict[str, Base64] = Field(default_factory=dict)
    """Bytes by key, base64 in manifests."""
    immutable: Bool | None = None


def redacted(secret: Secret) -> dict[str, Any]:
    """A Secret for dumps: its keys, with the number of bytes in place of each value."""
    return {
        "apiVersion": secret.api_version,
        "kind": secret.kind,
        "metadata": {"name": secret.metadata.name, "namespace": secret.metadata.namespace},
        "type": secret.type,
        "data": {key: f"({len(value)} bytes)" for key, value in sorted(secret.data.items())},
    }
