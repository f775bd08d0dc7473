"""What policies share: how they name their targets, and how they merge with those of their parents."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from controlplane.api.marks import NotSupported
from controlplane.api.meta import (
    GATEWAY_GROUP,
    BackendObjectReference,
    BackendRef,
    Model,
    PolicyTargetReference,
    PolicyTargetSelector,
    Targets,
)
from controlplane.api.scalars import Bool, refuse

MergeType: TypeAlias = Literal["StrategicMerge", "JSONMerge", "Replace"]
ROUTES: tuple[str, ...] = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")


def _is_mapping(value: object) -> object:
    if isinstance(value, Mapping):
        return cast("Mapping[str, object]", value)
    raise refuse("expected a mapping")


def _is_list(value: object) -> object:
    if isinstance(value, list | tuple):
        return cast("list[object]", value)
    raise refuse("expected a list")


# Fields that have no effect yet and whose insides are therefore not looked at.
LaterMapping: TypeAlias = Annotated[Annotated[Any, BeforeValidator(_is_mapping)] | None, NotSupported()]
LaterList: TypeAlias = Annotated[Annotated[Any, BeforeValidator(_is_list)] | None, NotSupported()]
LaterBool: TypeAlias = Annotated[Bool | None, NotSupported()]
LaterText: TypeAlias = Annotated[str | None, NotSupported()]


def _check_cidr(text: str) -> str:
    address, _, length = text.partition("/")
    try:
        # Masks in place of lengths, and zones of link-local addresses, mean something to `ip_network` alone.
        if length.isdecimal() and "%" not in address:
            ip_network(text, strict=False)
            return text
    except ValueError:
        pass
    raise refuse(f"expected a range of addresses, such as `192.168.0.0/16` or `2001:db8::/32`; got {text!r}")


CIDR: TypeAlias = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_check_cidr)]


class PolicySpec(Model):
    """Which objects a policy applies to, all of its own namespace."""

    target_kinds: ClassVar[tuple[str, ...]] = ("Gateway", "ListenerSet", *ROUTES)

    target_ref: PolicyTargetReference | None = None
    """One target; `targetRefs` is the newer way."""
    target_refs: Annotated[Targets, Field(max_length=64)] = ()
    target_selectors: Annotated[tuple[PolicyTargetSelector, ...], Field(max_length=64)] = ()
    """Targets by label."""

    @property
    def targets(self) -> tuple[PolicyTargetReference, ...]:
        """The targets that are given by name, however they are written."""
        return self.target_refs if self.target_ref is None else (self.target_ref,)

    @model_validator(mode="after")
    def _has_targets(self) -> PolicySpec:
        if self.target_ref is not None and self.target_refs:
            raise refuse("set targetRef or targetRefs, not both", "targetRef")
        if not self.targets and not self.target_selectors:
            raise refuse("a policy needs targetRefs or targetSelectors", "targetRefs")
        if self.target_ref is not None:
            self._check_target(self.target_ref, "targetRef")
        for index, target in enumerate(self.target_refs):
            self._check_target(target, f"targetRefs[{index}]")
        for index, selector in enumerate(self.target_selectors):
            self._check_target(selector, f"targetSelectors[{index}]")
        return self

    def _check_target(self, target: PolicyTargetReference | PolicyTargetSelector, field: str) -> None:
        if target.group != GATEWAY_GROUP:
            raise refuse(f"expected {GATEWAY_GROUP!r}; got {target.group!r}", f"{field}.group")
        if target.kind not in self.target_kinds:
            expected = ", ".join(self.target_kinds)
            raise refuse(f"this policy applies to {expected}; got {target.kind!r}", f"{field}.kind")


class MergeablePolicySpec(PolicySpec):
    """A policy that can be merged with that of the parent (route with Gateway, section with whole)."""

    merge_type: MergeType | None = None
    """Policies of a Gateway, listener, route and rule merge field by field, and the more specific one's field wins;
    with Replace what Gateways and listeners give by their policies falls away, but never their authentication."""

    @model_validator(mode="after")
    def _merges_into_parent(self) -> MergeablePolicySpec:
        if self.merge_type is not None and any(t.kind == "Gateway" and not t.section_name for t in self.targets):
            raise refuse("a policy for a whole Gateway has no parent to merge into", "mergeType")
        return self


class FallbackBackendRef(BackendRef):
    """A backend of a policy."""

    fallback: LaterBool = None
    """Use only when the others are unhealthy."""


class BackendCluster(Model):
    """Backends that the Gateway itself calls, such as an authorization server."""

    backend_ref: BackendObjectReference | None = None
    """One backend; `backendRefs` is the newer way."""
    backend_refs: Annotated[tuple[FallbackBackendRef, ...], Field(max_length=16)] = ()
    backend_settings: LaterMapping = None

    @property
    def backends(self) -> tuple[BackendObjectReference, ...]:
        """The backends, however they are written."""
        return self.backend_refs if self.backend_ref is None else (self.backend_ref,)
