"""Parameters: which ProxyConfig is in force for a Gateway, by its own `parametersRef` or that of its class."""

from __future__ import annotations

from controlplane.api.gateway import Gateway
from controlplane.api.gatewayclass import GatewayClass
from controlplane.api.merge import merged
from controlplane.api.meta import ENVOY_GATEWAY_GROUP, GATEWAY_GROUP, POLICY_GROUP, ObjectKey
from controlplane.api.proxyconfig import ProxyConfig, ProxyConfigSpec
from controlplane.compile.view import View
from controlplane.conditions import Condition, false

KINDS = ((POLICY_GROUP, "ProxyConfig"), (ENVOY_GATEWAY_GROUP, "EnvoyProxy"))
_ADDRESS_TYPES = ("IPAddress",)


def parameters(view: View, gateway: Gateway) -> ProxyConfigSpec | Condition:
    """Returns the settings for a Gateway's Envoys, or why it cannot be accepted (reason InvalidParameters).

    What the Gateway names stands in place of what its class names, or is merged into it where its `mergeType` says so
    (Gateway API: GatewayInfrastructure.parametersRef).
    """
    class_key = ObjectKey(GATEWAY_GROUP, "GatewayClass", "", gateway.spec.gateway_class_name)
    of_class = class_parameters(view, view.get(class_key))
    own = _of_gateway(view, gateway)
    if isinstance(own, Condition):
        return own
    if own is not None and own.merge_type in (None, "Replace"):
        return own
    if isinstance(of_class, Condition):
        message = f"{class_key}: {of_class.message}"
        return false("Accepted", "InvalidParameters", message, "spec.gatewayClassName")
    if own is None:
        return of_class
    return _merged(of_class, own)


def class_parameters(view: View, gateway_class: GatewayClass | None) -> ProxyConfigSpec | Condition:
    """Returns the settings that a GatewayClass names (the defaults, if none), or why they cannot be had."""
    ref = gateway_class.spec.parameters_ref if gateway_class is not None else None
    if ref is None:
        return ProxyConfigSpec()
    field = "spec.parametersRef"
    if (ref.group, ref.kind) in KINDS and ref.namespace is None:
        message = f"a {ref.kind} belongs to a namespace: set namespace"
        return false("Accepted", "InvalidParameters", message, f"{field}.namespace")
    return _read(view, ObjectKey(ref.group, ref.kind, ref.namespace or "", ref.name), field)


def address_fault(gateway: Gateway) -> Condition | None:
    """Returns why the addresses that a Gateway asks for cannot be had, whatever provides them (UnsupportedAddress)."""
    for index, address in enumerate(gateway.spec.addresses):
        if address.type not in _ADDRESS_TYPES:
            known = ", ".join(_ADDRESS_TYPES)
            message = f"an address of type {address.type} cannot be asked for; supported: {known}"
            return false("Accepted", "UnsupportedAddress", message, f"spec.addresses[{index}].type")
    return None


def _of_gateway(view: View, gateway: Gateway) -> ProxyConfigSpec | Condition | None:
    infrastructure = gateway.spec.infrastructure
    ref = infrastructure.parameters_ref if infrastructure is not None else None
    if ref is None:
        return None
    key = ObjectKey(ref.group, ref.kind, gateway.metadata.namespace, ref.name)
    return _read(view, key, "spec.infrastructure.parametersRef")


def _read(view: View, key: ObjectKey, field: str) -> ProxyConfigSpec | Condition:
    if (key.group, key.kind) not in KINDS:
        expected = " or ".join(f"{kind} of {group}" for group, kind in KINDS)
        message = f"{key.kind} of {key.group or 'the core group'} holds no parameters; expected a {expected}"
        return false("Accepted", "InvalidParameters", message, f"{field}.kind")
    found = view.get(key)
    if not isinstance(found, ProxyConfig):
        return false("Accepted", "InvalidParameters", f"{key} does not exist, or never was valid", f"{field}.name")
    return found.spec


def _merged(below: ProxyConfigSpec, above: ProxyConfigSpec) -> ProxyConfigSpec | Condition:
    written = [spec.model_dump(mode="json", by_alias=True, exclude_unset=True) for spec in (below, above)]
    how = "JSONMerge" if above.merge_type == "JSONMerge" else "StrategicMerge"
    try:
        return ProxyConfigSpec.model_validate(merged(written[0], written[1], how=how))
    except ValueError as error:
        message = f"merged with what the class names, the parameters are not valid: {error}"
        return false("Accepted", "InvalidParameters", message, "spec.infrastructure.parametersRef")
