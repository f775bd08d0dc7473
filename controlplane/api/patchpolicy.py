"""PatchPolicy: changes to the generated Envoy resources."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from controlplane.api.meta import Model, PolicyTargetReference, Resource
from controlplane.api.scalars import Int32


class JSONPatchOperation(Model):
    """One operation of RFC 6902."""

    op: Literal["add", "remove", "replace", "move", "copy", "test"]
    path: str | None = None
    json_path: Annotated[str | None, Field(alias="jsonPath")] = None
    """Where, as a JSONPath; each place that it finds is patched."""
    from_: Annotated[str | None, Field(alias="from")] = None
    value: Any = None


class JSONPatch(Model):
    """A change to one resource."""

    type: Literal[
        "type.googleapis.com/envoy.config.listener.v3.Listener",
        "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
    ]
    name: Annotated[str, Field(min_length=1)]
    """Name of the resource; names of resources are documented and stable."""
    operation: JSONPatchOperation


class PatchPolicySpec(Model):
    """Which Gateway, and what to change."""

    type: Literal["JSONPatch"] = "JSONPatch"
    json_patches: Annotated[tuple[JSONPatch, ...], Field(alias="jsonPatches", max_length=256)] = ()
    target_ref: PolicyTargetReference
    priority: Int32 = 0
    """Patches of lower numbers go first."""


class PatchPolicy(Resource):
    """Changes to the Envoy resources that are generated for a Gateway."""

    supported: ClassVar[bool] = False

    kind: Literal["PatchPolicy", "EnvoyPatchPolicy"] = "PatchPolicy"
    spec: PatchPolicySpec
