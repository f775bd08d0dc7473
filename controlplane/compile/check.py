"""Faults of one object that its schema cannot see: regular expressions, certificates. What Envoy would refuse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from controlplane.api.backendtrafficpolicy import BackendTrafficPolicy
from controlplane.api.core import ConfigMap, Secret
from controlplane.api.faults import Fault, join_path
from controlplane.api.gateway import Gateway
from controlplane.api.httproute import HTTPRoute, HTTPRouteMatch
from controlplane.api.securitypolicy import SecurityPolicy
from controlplane.compile.check_policies import check_limits, check_security
from controlplane.compile.gateway import conflicts
from controlplane.compile.regex import fault_of
from controlplane.compile.trust import CA_KEY, ca_of, is_certificate

_CHAIN, _KEY, _CA = (join_path("data", name) for name in ("tls.crt", "tls.key", CA_KEY))


def check(object_: object, *, now: datetime) -> tuple[Fault, ...]:
    """Returns what is wrong with an object that its schema accepts."""
    if isinstance(object_, HTTPRoute):
        return tuple(_route(object_))
    if isinstance(object_, SecurityPolicy):
        return tuple(check_security(object_))
    if isinstance(object_, BackendTrafficPolicy):
        return tuple(check_limits(object_))
    if isinstance(object_, Gateway):
        return tuple(_gateway(object_))
    if isinstance(object_, Secret) and object_.type == "kubernetes.io/tls":
        return (*_certificate(object_, now), *_authorities(object_))
    if isinstance(object_, (ConfigMap, Secret)):
        return tuple(_authorities(object_))
    return ()


def _gateway(gateway: Gateway) -> Iterator[Fault]:
    for listener in conflicts(gateway).values():
        yield Fault(listener.field, listener.message)


def _route(route: HTTPRoute) -> Iterator[Fault]:
    for index, rule in enumerate(route.spec.rules):
        for position, match in enumerate(rule.matches):
            yield from _match(match, f"spec.rules[{index}].matches[{position}]")


def _match(match: HTTPRouteMatch, field: str) -> Iterator[Fault]:
    if match.path.type == "RegularExpression":
        yield from _regex(match.path.value, f"{field}.path.value")
    for index, header in enumerate(match.headers):
        if header.type == "RegularExpression":
            yield from _regex(header.value, f"{field}.headers[{index}].value")
    for index, param in enumerate(match.query_params):
        if param.type == "RegularExpression":
            yield from _regex(param.value, f"{field}.queryParams[{index}].value")


def _regex(pattern: str, field: str) -> Iterator[Fault]:
    reason = fault_of(pattern)
    if reason is not None:
        yield Fault(field, f"expected a regular expression of RE2's syntax; got {pattern!r}: {reason}")


def _authorities(source: ConfigMap | Secret) -> Iterator[Fault]:
    pem = ca_of(source)
    if pem is not None and not is_certificate(pem):
        yield Fault(_CA, "expected certificates in PEM")


def _certificate(secret: Secret, now: datetime) -> Iterator[Fault]:
    for name in ("tls.crt", "tls.key"):
        if name not in secret.data:
            yield Fault("data", f"a Secret of type {secret.type} needs {name}")
            return
    try:
        chain = x509.load_pem_x509_certificates(secret.data["tls.crt"])
    except ValueError:
        yield Fault(_CHAIN, "expected a certificate chain in PEM")
        return
    try:
        key = load_pem_private_key(secret.data["tls.key"], password=None)
    except (ValueError, TypeError):
        yield Fault(_KEY, "expected a private key in PEM, without a passphrase")
        return
    leaf = chain[0]
    if leaf.not_valid_after_utc <= now:
        yield Fault(_CHAIN, f"the certificate expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M:%S} UTC")
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != leaf.public_key().public_bytes(*spki):
        yield Fault(_KEY, "the private key does not belong to the certificate in tls.crt")
