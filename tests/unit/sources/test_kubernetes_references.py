"""What documents refer to is told by the names of their fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api.kinds import SERVED
from controlplane.api.meta import ObjectKey
from controlplane.sources.kubernetes.references import References, references, refers


def _of(kind: str, spec: Any, **metadata: Any) -> set[str]:
    document = {"apiVersion": "x/v1", "kind": kind, "metadata": {"namespace": "demo", "name": "x", **metadata}}
    return {str(key) for key in references({**document, "spec": spec})}


CASES = {
    "listeners": (
        "Gateway",
        "{listeners: [{tls: {certificateRefs: [{name: a}, {name: b, namespace: other, kind: Secret, group: ''}]}}]}",
        {"Secret demo/a", "Secret other/b"},
    ),
    "client certificates": (
        "Gateway",
        """
        tls:
          backend: {clientCertificateRef: {name: client}}
          frontend:
            default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: all}]}}
            perPort: [{port: 443, tls: {validation: {caCertificateRefs: [{group: '', kind: Secret, name: one}]}}}]
        """,
        {"Secret demo/client", "ConfigMap demo/all", "Secret demo/one"},
    ),
    "other kinds": (
        "Gateway",
        "{infrastructure: {parametersRef: {group: dragoman.dev, kind: ProxyConfig, name: p}}}",
        set(),
    ),
    "basic authentication": ("SecurityPolicy", "{basicAuth: {users: {name: htpasswd}}}", {"Secret demo/htpasswd"}),
    "keys": (
        "SecurityPolicy",
        "{apiKeyAuth: {credentialRefs: [{name: keys}], extractFrom: [{headers: [x]}]}}",
        {"Secret demo/keys"},
    ),
    "key set": (
        "SecurityPolicy",
        "{jwt: {providers: [{name: p, localJWKS: {type: ValueRef, valueRef: {group: '', kind: ConfigMap, name: k}}}]}}",
        {"ConfigMap demo/k"},
    ),
    "OIDC": (
        "SecurityPolicy",
        "{oidc: {clientSecret: {name: s}, clientIDRef: {name: id}}}",
        {"Secret demo/s", "Secret demo/id"},
    ),
    "users as text": ("SecurityPolicy", "{authorization: {users: [alice, bob]}, clientSecret: hidden}", set()),
    "Wasm": (
        "EnvoyExtensionPolicy",
        "{wasm: [{code: {image: {pullSecretRef: {name: pull}}}}], lua: [{valueRef: {kind: ConfigMap, name: code}}]}",
        {"Secret demo/pull", "ConfigMap demo/code"},
    ),
    "filters": (
        "HTTPRouteFilter",
        "{credentialInjection: {credential: {valueRef: {name: token}}}, "
        "directResponse: {body: {valueRef: {group: '', kind: ConfigMap, name: page}}}}",
        {"Secret demo/token", "ConfigMap demo/page"},
    ),
    "revoked certificates": (
        "ClientTrafficPolicy",
        "{tls: {clientValidation: {caCertificateRefs: [{name: ca}], crl: {refs: [{name: crl}]}}}}",
        {"Secret demo/ca", "Secret demo/crl"},
    ),
    "ingress": ("Ingress", "{tls: [{hosts: [a], secretName: web}, {}]}", {"Secret demo/web"}),
    "nonsense": ("Gateway", "{listeners: [{tls: {certificateRefs: [5, null, {name: 5}, {name: ''}]}}, 3]}", set()),
    "nothing": ("Gateway", "null", set()),
}


@pytest.mark.parametrize("case", CASES)
def test_references_are_found(case: str) -> None:
    kind, spec, wanted = CASES[case]
    assert _of(kind, yaml.safe_load(spec)) == wanted


def test_annotations_of_an_ingress_refer_to_secrets() -> None:
    prefix = "nginx.ingress.kubernetes.io"
    annotations = {f"{prefix}/auth-secret": "users", f"{prefix}/auth-tls-secret": "other/ca"}
    assert _of("Ingress", {}, annotations=annotations) == {"Secret demo/users", "Secret other/ca"}


def test_every_example_finds_the_secrets_that_stand_beside_it() -> None:
    # An example that brings a Secret or ConfigMap refers to it; what is not found would not be there in a cluster.
    root = Path(__file__).parents[3] / "examples"
    missing: list[str] = []
    for folder in {path.parent for path in root.rglob("*.yaml")}:
        documents = [each for path in folder.glob("*.yaml") for each in yaml.safe_load_all(path.read_text()) if each]
        documents = [each for each in documents if isinstance(each.get("metadata"), dict)]
        for each in documents:
            each["metadata"].setdefault("namespace", "default")
        kinds = {id(each): (each["apiVersion"].rpartition("/")[0], each["kind"]) for each in documents}
        found = set[ObjectKey]().union(*(references(each) for each in documents if refers(kinds[id(each)])))
        for each in documents:
            key = ObjectKey("", each["kind"], each["metadata"]["namespace"], each["metadata"]["name"])
            if each["kind"] in ("Secret", "ConfigMap") and key not in found:
                missing.append(f"{folder.name}: {key}")
    assert not missing


def test_every_field_of_the_models_that_refers_to_a_secret_is_known() -> None:
    from controlplane.api.meta import SecretObjectReference
    from controlplane.sources.kubernetes.references import _FIELDS

    def names(model: Any, seen: set[Any]) -> set[str]:
        found: set[str] = set()
        if model in seen:
            return found
        seen.add(model)
        for name, info in model.model_fields.items():
            for inner in _models(info.annotation):
                if issubclass(inner, SecretObjectReference):
                    found.add(info.alias or name)
                found |= names(inner, seen)
        return found

    seen: set[Any] = set()
    for (group, kind), served in SERVED.items():
        if refers((group, kind)):
            assert names(served.model, seen) <= _FIELDS, kind


def _models(annotation: Any) -> set[Any]:
    from typing import get_args

    from controlplane.api.meta import Model

    found = {each for inner in get_args(annotation) for each in _models(inner)}
    return found | ({annotation} if isinstance(annotation, type) and issubclass(annotation, Model) else set())


def test_what_is_referred_to_is_counted_for_what_is_in_force_and_for_what_is_to_be() -> None:
    heard: list[tuple[str, bool]] = []
    counted = References(lambda key, wanted: heard.append((key.name, wanted)))
    owner, (a, b) = ObjectKey("g", "K", "n", "o"), (ObjectKey("", "Secret", "n", name) for name in "ab")
    counted.propose(owner, frozenset({a}))
    counted.settle(owner)
    counted.propose(owner, frozenset({b}))
    assert a in counted
    assert b in counted
    counted.propose(owner, frozenset({a, b}))
    assert heard == [("a", True), ("b", True)]
    counted.propose(owner, frozenset({b}))
    counted.settle(owner)
    counted.settle(owner)
    assert heard[2:] == [("a", False)]
    counted.propose(owner, frozenset())
    counted.settle(owner)
    assert heard[3:] == [("b", False)]
    assert a not in counted
    assert b not in counted
