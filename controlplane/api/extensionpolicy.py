"""ExtensionPolicy: filters of users' own, in Wasm, Lua, or a service beside Envoy."""

from __future__ import annotations

from typing import ClassVar, Literal

from controlplane.api.meta import Resource
from controlplane.api.policy import LaterList, MergeablePolicySpec


class ExtensionPolicySpec(MergeablePolicySpec):
    """Filters to add, in order."""

    wasm: LaterList = None
    ext_proc: LaterList = None
    lua: LaterList = None
    dynamic_module: LaterList = None


class ExtensionPolicy(Resource):
    """Filters of users' own for a Gateway or a route."""

    supported: ClassVar[bool] = False

    kind: Literal["ExtensionPolicy", "EnvoyExtensionPolicy"] = "ExtensionPolicy"
    spec: ExtensionPolicySpec
