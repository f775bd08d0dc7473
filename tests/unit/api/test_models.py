from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from controlplane.api import KINDS
from controlplane.api.core import redacted
from controlplane.api.fields import shapes, shapes_by_name, unsupported_fields
from controlplane.api.load import load
from controlplane.api.meta import LabelSelector, Model, ObjectKey, ParentReference
from controlplane.api.scalars import parse_duration
from tests.unit.api.manifests import accept, gateway, read, route


def test_keys_say_what_people_say() -> None:
    assert str(ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "demo", "open")) == "HTTPRoute demo/open"
    assert str(ObjectKey("gateway.networking.k8s.io", "GatewayClass", "", "dragoman")) == "GatewayClass dragoman"
    assert str(ObjectKey("dragoman.dev", "SecurityPolicy", "a", "b")) == "SecurityPolicy a/b"
    assert (
        str(ObjectKey("gateway.envoyproxy.io", "SecurityPolicy", "a", "b"))
        == "SecurityPolicy.gateway.envoyproxy.io a/b"
    )


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("10s", timedelta(seconds=10)),
        ("500ms", timedelta(milliseconds=500)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("0s", timedelta()),
        ("1m1s1ms", timedelta(minutes=1, seconds=1, milliseconds=1)),
    ],
)
def test_durations_are_read(text: str, length: timedelta) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize("text", ["", "10", "1.5s", "-1s", "1d", "100000s", "1s1s1s1s1s", "1s\n"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_rule_without_matches_matches_everything() -> None:
    for rule in ("{}", "matches: []"):
        (match,) = accept(route(rule)).spec.rules[0].matches
        assert (match.path.type, match.path.value, match.headers, match.method) == ("PathPrefix", "/", (), None)
    document = route()
    del document["spec"]["rules"]
    assert len(accept(document).spec.rules) == 1


def test_defaults_are_those_of_gateway_api() -> None:
    listener = accept(gateway("[{name: http, port: 80, protocol: HTTP}]")).spec.listeners[0]
    assert listener.allowed_routes.namespaces.from_ == "Same"
    assert listener.allowed_routes.kinds == ()
    rule = accept(
        route(
            "{backendRefs: [{name: web, port: 80}], filters: [{type: RequestRedirect, requestRedirect: {}}]}".replace(
                "backendRefs: [{name: web, port: 80}], ", ""
            )
        )
    ).spec.rules[0]
    assert rule.filters[0].request_redirect.status_code == 302
    parent = ParentReference(name="edge")
    assert (parent.group, parent.kind, parent.namespace) == ("gateway.networking.k8s.io", "Gateway", None)


def test_objects_cannot_be_changed() -> None:
    loaded = accept(route())
    with pytest.raises(ValidationError):
        loaded.spec = None
    with pytest.raises(AttributeError):
        accept(route()).spec.rules.append(1)


def test_equal_manifests_make_equal_objects() -> None:
    assert accept(route(hostnames=["a.example"])) == accept(route(hostnames=["a.example"]))
    assert accept(route(hostnames=["a.example"])) != accept(route(hostnames=["b.example"]))


def test_values_of_secrets_do_not_show() -> None:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "data": {"a": "aHVudGVyMg=="},
        "stringData": {"b": "hunter3"},
    }
    secret = accept(document)
    assert secret.data == {"a": b"hunter2", "b": b"hunter3"}
    for shown in (repr(secret), str(secret), repr([secret]), str(redacted(secret)), f"{secret}"):
        assert "hunter" not in shown
        assert "aHVudGVy" not in shown
    assert redacted(secret)["data"] == {"a": "(7 bytes)", "b": "(7 bytes)"}


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"a": "hunter2!"}},
        {"data": {"a": ["hunter2"]}},
        {"data": "hunter2"},
        {"stringData": {"a": {"hunter2": 1}}},
        {"type": ["hunter2"]},
        {"hunter": "hunter2"},
    ],
)
def test_a_fault_in_a_secret_shows_no_value(change: dict[str, Any]) -> None:
    loaded = load({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, **change})
    assert loaded.object is None
    assert "hunter2" not in str(loaded)


def test_selectors_select_as_in_kubernetes() -> None:
    selector = LabelSelector.model_validate(
        read(
            "{matchLabels: {team: a}, matchExpressions: [{key: env, operator: In, values: [prod, test]}, "
            "{key: old, operator: DoesNotExist}, {key: zone, operator: NotIn, values: [x]}]}"
        )
    )
    assert selector.matches({"team": "a", "env": "prod"})
    assert not selector.matches({"team": "b", "env": "prod"})
    assert not selector.matches({"team": "a"})
    assert not selector.matches({"team": "a", "env": "prod", "old": ""})
    assert not selector.matches({"team": "a", "env": "test", "zone": "x"})
    assert LabelSelector().matches({})


def test_fields_that_have_no_effect_yet_are_found_by_name() -> None:
    loaded = accept(
        route(
            "{sessionPersistence: {}, filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, grpc: {}, "
            "backendRef: {name: a, port: 1}}}]}",
            useDefaultGateways="All",
        )
    )
    assert [path for path, _ in unsupported_fields(loaded)] == [
        "spec.useDefaultGateways",
        "spec.rules[0].filters[0].externalAuth",
        "spec.rules[0].sessionPersistence",
    ]
    assert list(unsupported_fields(accept(route()))) == []


def models_below(model: type[Model], seen: dict[type[Model], None]) -> dict[type[Model], None]:
    if model not in seen:
        seen[model] = None
        for shape in shapes(model):
            if shape.model is not None:
                models_below(shape.model, seen)
    return seen


ALL_MODELS = list({each: None for kind in KINDS.values() for each in models_below(kind, {})})


@pytest.mark.parametrize("model", ALL_MODELS, ids=lambda model: model.__name__)
def test_every_model_says_what_it_is_and_is_strict(model: type[Model]) -> None:
    assert model.__doc__
    assert model.__doc__ != Model.__doc__
    assert model.model_config.get("frozen")
    assert model.model_config.get("extra") in ("forbid", "ignore")
    assert len(shapes_by_name(model)) == len(model.model_fields)
    assert not any("_" in shape.name for shape in shapes(model))


@pytest.mark.parametrize("kind", KINDS.items(), ids=str)
def test_the_model_of_each_kind_knows_its_kind(kind: tuple[tuple[str, str], type[Model]]) -> None:
    (_, name), model = kind
    with pytest.raises(ValidationError) as raised:
        model.model_validate({"apiVersion": 5, "kind": name, "metadata": {"name": "a"}})
    assert ("kind",) not in [each["loc"] for each in raised.value.errors()]
