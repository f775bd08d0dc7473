"""Which ProxyConfig is in force for a Gateway."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.gateway import Gateway
from controlplane.api.gatewayclass import GatewayClass
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey
from controlplane.api.proxyconfig import ProxyConfigSpec
from controlplane.compile.parameters import address_fault, class_parameters, parameters
from controlplane.conditions import Condition

REF = {"group": "dragoman.dev", "kind": "ProxyConfig", "name": "own"}
CLASS_REF = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "shared", "namespace": "system"}


class _Objects:
    """The objects in force, as far as parameters are read from them."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self._objects: dict[ObjectKey, Any] = {}
        for document in documents:
            loaded = load(document)
            assert loaded.object is not None, loaded.faults
            self._objects[loaded.object.key] = loaded.object

    def get(self, key: ObjectKey) -> Any:
        return self._objects.get(key)


def objects(*documents: dict[str, Any]) -> Any:
    return _Objects(*documents)


def gateway_class(ref: dict[str, str] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"controllerName": "dragoman.dev/gateway-controller"}
    if ref:
        spec["parametersRef"] = ref
    return _object("gateway.networking.k8s.io/v1", "GatewayClass", {"name": "dragoman"}, spec)


def gateway(ref: dict[str, str] | None = None, *addresses: dict[str, str]) -> Gateway:
    spec: dict[str, Any] = {
        "gatewayClassName": "dragoman",
        "listeners": [{"name": "http", "protocol": "HTTP", "port": 80}],
        "addresses": list(addresses),
    }
    if ref:
        spec["infrastructure"] = {"parametersRef": ref}
    metadata = {"namespace": "demo", "name": "edge"}
    loaded = load(_object("gateway.networking.k8s.io/v1", "Gateway", metadata, spec)).object
    assert isinstance(loaded, Gateway)
    return loaded


def own(spec: dict[str, Any]) -> dict[str, Any]:
    return _object("dragoman.dev/v1alpha1", "ProxyConfig", {"namespace": "demo", "name": "own"}, spec)


def shared(spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"namespace": "system", "name": "shared"}
    return _object("gateway.envoyproxy.io/v1alpha1", "EnvoyProxy", metadata, spec)


def read(view: Any, of: Gateway) -> ProxyConfigSpec:
    found = parameters(view, of)
    assert isinstance(found, ProxyConfigSpec), found
    return found


def fault(view: Any, of: Gateway) -> tuple[str, str, str]:
    found = parameters(view, of)
    assert isinstance(found, Condition)
    assert (found.type, found.status) == ("Accepted", "False")
    return found.reason, found.field, found.message


def test_without_parameters_the_defaults_hold() -> None:
    assert read(objects(gateway_class()), gateway()) == ProxyConfigSpec()
    assert read(objects(), gateway()) == ProxyConfigSpec()


def test_the_gateway_stands_in_place_of_its_class() -> None:
    view = objects(gateway_class(CLASS_REF), shared({"concurrency": 1, "extraArgs": ["-x"]}), own({"concurrency": 2}))
    assert read(view, gateway()).concurrency == 1
    found = read(view, gateway(REF))
    assert (found.concurrency, found.extra_args) == (2, ())


@pytest.mark.parametrize(("merge", "containers"), [("StrategicMerge", ["a", "b"]), ("JSONMerge", ["b"])])
def test_the_gateway_is_merged_into_its_class_where_it_says_so(merge: str, containers: list[str]) -> None:
    def deployment(name: str, **more: Any) -> dict[str, Any]:
        return {"provider": {"kubernetes": {"envoyDeployment": {"initContainers": [{"name": name}], **more}}}}

    below = {"concurrency": 1, **deployment("a", replicas=3)}
    view = objects(gateway_class(CLASS_REF), shared(below), own({"mergeType": merge, **deployment("b")}))
    found = read(view, gateway(REF))
    made = found.provider.kubernetes.envoy_deployment
    assert made is not None
    assert (found.concurrency, made.replicas) == (1, 3)
    assert [each["name"] for each in made.init_containers] == containers


def test_parameters_that_do_not_fit_when_merged_are_a_fault() -> None:
    below = {"provider": {"kubernetes": {"envoyDaemonSet": {}}}}
    above = {"mergeType": "JSONMerge", "provider": {"kubernetes": {"envoyDeployment": {}}}}
    view = objects(gateway_class(CLASS_REF), shared(below), own(above))
    reason, field, message = fault(view, gateway(REF))
    assert (reason, field) == ("InvalidParameters", "spec.infrastructure.parametersRef")
    assert "envoyDeployment or envoyDaemonSet" in message


def test_a_reference_to_nothing_or_to_another_kind_is_a_fault() -> None:
    view = objects(gateway_class())
    assert fault(view, gateway(REF)) == (
        "InvalidParameters",
        "spec.infrastructure.parametersRef.name",
        "ProxyConfig demo/own does not exist, or never was valid",
    )
    reason, field, _ = fault(view, gateway({"group": "invalid.io", "kind": "InvalidParameters", "name": "invalid"}))
    assert (reason, field) == ("InvalidParameters", "spec.infrastructure.parametersRef.kind")


def test_a_fault_of_the_class_is_one_of_the_gateways_that_need_it() -> None:
    view = objects(gateway_class(CLASS_REF), own({"concurrency": 2}))
    reason, field, message = fault(view, gateway())
    assert (reason, field) == ("InvalidParameters", "spec.gatewayClassName")
    assert "shared does not exist" in message
    assert read(view, gateway(REF)).concurrency == 2


def test_a_class_names_the_namespace_of_its_parameters() -> None:
    document = gateway_class({key: value for key, value in CLASS_REF.items() if key != "namespace"})
    loaded = load(document).object
    assert isinstance(loaded, GatewayClass)
    found = class_parameters(objects(document), loaded)
    assert isinstance(found, Condition)
    assert (found.reason, found.field) == ("InvalidParameters", "spec.parametersRef.namespace")


def test_an_address_of_a_type_that_nobody_can_give_is_a_fault() -> None:
    assert address_fault(gateway(None, {"type": "IPAddress"}, {"value": "192.0.2.1"})) is None
    found = address_fault(gateway(None, {"value": "192.0.2.1"}, {"type": "test/fake-invalid-type", "value": "x"}))
    assert found is not None
    assert (found.type, found.reason, found.field) == ("Accepted", "UnsupportedAddress", "spec.addresses[1].type")


def _object(api: str, kind: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}
