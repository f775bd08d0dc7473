"""What Envoy would refuse is refused before it can hold up what stands beside it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from controlplane.api.load import load
from controlplane.compile.check import check
from tests.support import manifests as m
from tests.support.certificates import Authority

NOW = datetime.now(UTC)


def faults(document: dict[str, Any]) -> dict[str, str]:
    loaded = load(document)
    assert loaded.object is not None, loaded.faults
    return {fault.path: fault.message for fault in check(loaded.object, now=NOW)}


def with_filter(kind: str, **settings: Any) -> dict[str, Any]:
    rule = m.rule("/x", "one")
    if kind == "RequestRedirect":
        del rule["backendRefs"]
    member = {"URLRewrite": "urlRewrite"}.get(kind, kind[0].lower() + kind[1:])
    return m.route("r", [{**rule, "filters": [{"type": kind, member: settings}]}])


@pytest.mark.parametrize("pattern", ["/(", "", "/a(?=b)", "\\1", "(?:x{1000}){1000}"])
def test_a_regular_expression_is_refused_that_envoy_would_refuse(pattern: str) -> None:
    found = faults(m.route("r", [m.rule(pattern, "one", kind="RegularExpression")]))
    assert list(found) == ["spec.rules[0].matches[0].path.value"]
    assert "RE2" in found["spec.rules[0].matches[0].path.value"]


@pytest.mark.parametrize("pattern", ["/a{1000}", "/[a-z]{1,500}", ".*", "\\p{Greek}", "(?i)/a"])
def test_a_regular_expression_that_envoy_takes_is_taken(pattern: str) -> None:
    assert faults(m.route("r", [m.rule(pattern, "one", kind="RegularExpression")])) == {}


@pytest.mark.parametrize("kind", ["RequestHeaderModifier", "ResponseHeaderModifier"])
@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ({"set": [{"name": "Host", "value": "x"}]}, "set[0].name"),
        ({"add": [{"name": "x", "value": "x"}, {"name": "HOST", "value": "x"}]}, "add[1].name"),
        ({"remove": ["host"]}, "remove[0]"),
    ],
)
def test_the_host_header_is_no_matter_for_header_filters(kind: str, edit: dict[str, Any], field: str) -> None:
    member = kind[0].lower() + kind[1:]
    assert list(faults(with_filter(kind, **edit))) == [f"spec.rules[0].filters[0].{member}.{field}"]
    backend = m.rule("/x", "one")
    backend["backendRefs"][0]["filters"] = [{"type": kind, member: edit}]
    found = faults(m.route("r", [backend]))
    assert list(found) == [f"spec.rules[0].backendRefs[0].filters[0].{member}.{field}"]
    assert "URLRewrite" in next(iter(found.values()))


@pytest.mark.parametrize("kind", ["URLRewrite", "RequestRedirect"])
@pytest.mark.parametrize("value", ["/a b", "/a\nHost: evil", "/ü", "evil.example.com"])
def test_a_path_that_no_request_line_may_have_is_refused(kind: str, value: str) -> None:
    full = faults(with_filter(kind, path={"type": "ReplaceFullPath", "replaceFullPath": value}))
    assert [path.rpartition(".")[2] for path in full] == ["replaceFullPath"]
    prefix = faults(with_filter(kind, path={"type": "ReplacePrefixMatch", "replacePrefixMatch": value}))
    assert [path.rpartition(".")[2] for path in prefix] == ["replacePrefixMatch"]


def test_a_path_may_be_replaced_by_what_a_request_line_may_have() -> None:
    path = {"type": "ReplaceFullPath", "replaceFullPath": "/a%20b;c=1/~x?y=z"}
    assert faults(with_filter("URLRewrite", path=path)) == {}


def slice_of(address_type: str, address: str) -> dict[str, Any]:
    return {**m.endpoint_slice("one", address), "addressType": address_type}


@pytest.mark.parametrize(
    ("address_type", "address"), [("IPv4", "nowhere"), ("IPv4", "::1"), ("IPv6", "192.0.2.1"), ("IPv4", "192.0.2.256")]
)
def test_an_endpoint_must_have_an_address_of_its_slices_type(address_type: str, address: str) -> None:
    assert list(faults(slice_of(address_type, address))) == ["endpoints[0].addresses[0]"]


def test_endpoints_by_name_are_not_supported_and_say_what_to_use() -> None:
    assert "Backend" in faults(slice_of("FQDN", "a.example.com"))["addressType"]


@pytest.mark.parametrize(("address_type", "address"), [("IPv4", "192.0.2.1"), ("IPv6", "2001:db8::1")])
def test_an_endpoint_with_an_address_is_taken(address_type: str, address: str) -> None:
    assert faults(slice_of(address_type, address)) == {}


def test_a_gateway_binds_ip_addresses_alone() -> None:
    document = m.gateway()
    document["spec"]["addresses"] = [{"value": "127.0.0.1"}, {"value": "here"}, {"type": "IPAddress"}]
    assert list(faults(document)) == ["spec.addresses[1].value"]


def test_two_protocols_on_one_port_are_a_fault_of_both_listeners() -> None:
    listeners = [
        {"name": "a", "port": 80, "protocol": "HTTP"},
        {"name": "b", "port": 80, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "x"}]}},
    ]
    assert list(faults(m.gateway(listeners=listeners))) == ["spec.listeners[0].protocol", "spec.listeners[1].protocol"]


KEYS = {
    "RSA of 1024 bits": rsa.generate_private_key(65537, 1024),
    "DSA": dsa.generate_private_key(2048),
    "secp256k1": ec.generate_private_key(ec.SECP256K1()),
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_that_envoy_does_not_serve_is_refused(name: str, authority: Authority) -> None:
    pem = KEYS[name].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    secret = authority.leaf("a.example.com").secret("demo", "tls")
    secret["data"]["tls.key"] = base64.b64encode(pem).decode()
    found = faults(secret)
    assert list(found) == ["data['tls.key']"]
    assert "RSA of at least 2048 bits" in found["data['tls.key']"]


def test_a_certificate_and_its_key_are_taken(authority: Authority) -> None:
    assert faults(authority.leaf("a.example.com").secret("demo", "tls")) == {}


def test_authorities_must_be_certificates(authority: Authority) -> None:
    assert faults(m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": authority.cert_pem})) == {}
    assert faults(m.manifest("v1", "ConfigMap", "ca", None, data={"other": "text"})) == {}
    bad = m.manifest("v1", "ConfigMap", "ca", None, data={"ca.crt": "text"})
    assert list(faults(bad)) == ["data['ca.crt']"]
