"""What is said on routes whose fields have no effect yet."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP
from controlplane.conditions import Condition
from controlplane.pipeline import Pipeline
from tests.unit.pipeline.driver import put, stabilise

V1 = f"{GATEWAY_GROUP}/v1"
SERVICE = {"backendRefs": [{"name": "shop", "port": 80}]}


def document(kind: str, name: str, spec: dict[str, Any], api_version: str = V1) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": "demo", "name": name}, "spec": spec}


def said_on(kind: str, **spec: Any) -> dict[str, Condition]:
    """What the status of a route says that is wrong, by field."""
    pipeline = Pipeline()
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    put(pipeline, document("GatewayClass", "dragoman", {"controllerName": "dragoman.dev/gateway-controller"}))
    put(pipeline, document("Gateway", "edge", {"gatewayClassName": "dragoman", "listeners": [listener]}))
    put(pipeline, document("Service", "shop", {"ports": [{"port": 80}]}, "v1"))
    route = put(pipeline, document(kind, "shop", {"parentRefs": [{"name": "edge"}], **spec}))
    stabilise(pipeline)
    status = pipeline.statuses.current()[route]
    return {each.field: each for each in status.faults()}


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_a_route_names_each_field_that_has_no_effect_yet(kind: str) -> None:
    said = said_on(kind, useDefaultGateways="All", rules=[{**SERVICE, "sessionPersistence": {}}])
    assert list(said) == ["spec.useDefaultGateways", "spec.rules[0].sessionPersistence"]
    assert all(each.type == "NotSupported" for each in said.values())


def test_a_filter_that_takes_its_rule_out_is_not_called_one_without_effect() -> None:
    asked = {"protocol": "GRPC", "grpc": {}, "backendRef": {"name": "shop", "port": 80}}
    said = said_on("HTTPRoute", rules=[{**SERVICE, "filters": [{"type": "ExternalAuth", "externalAuth": asked}]}])
    ((field, condition),) = said.items()
    assert field == "spec.rules[0].filters[0].externalAuth"
    assert (condition.type, condition.reason) == ("Accepted", "UnsupportedValue")


def test_a_route_that_never_was_good_says_so_at_each_parent_that_it_wants() -> None:
    pipeline = Pipeline()
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    put(pipeline, document("GatewayClass", "dragoman", {"controllerName": "dragoman.dev/gateway-controller"}))
    put(pipeline, document("Gateway", "edge", {"gatewayClassName": "dragoman", "listeners": [listener]}))
    broken = [{"matches": [{"path": {"type": "RegularExpression", "value": "/a(b"}}], **SERVICE}]
    parents = [{"name": "edge"}, {"name": "of-others"}]
    route = put(pipeline, document("HTTPRoute", "shop", {"parentRefs": parents, "rules": broken}))
    stabilise(pipeline)
    (parent,) = pipeline.statuses.current()[route].parents
    assert parent.ref.name == "edge"
    ((type_, status, field),) = {(each.type, each.status, each.field) for each in parent.conditions}
    assert (type_, status, field) == ("Accepted", "False", "spec.rules[0].matches[0].path.value")
