"""Whose certificates are trusted: the authorities that `caCertificateRefs` of any object name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.api.backend import Backend
from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.core import ConfigMap, Secret
from controlplane.api.gateway import FrontendTLSValidation
from controlplane.api.meta import LocalObjectReference, ObjectKey, ObjectReference
from controlplane.compile.grants import permitted
from controlplane.compile.view import View
from controlplane.conditions import Condition, false

CA_KEY = "ca.crt"
_SOURCES = ("ConfigMap", "Secret")


@dataclass(frozen=True, slots=True)
class Trust:
    """References to authorities: who makes them, in which field, and what SDS calls what they lead to."""

    owner: ObjectKey
    refs: tuple[LocalObjectReference | ObjectReference, ...]
    field: str
    secret: str
    wrong_kind: str = "InvalidKind"  # the reason that the specification gives a reference to another kind


@dataclass(frozen=True, slots=True)
class Authorities:
    """Roots as PEM, under the name by which clusters and listeners refer to them."""

    name: str
    pem: bytes
    origin: str


def of_backend(backend: Backend) -> Trust:
    """Returns what a Backend trusts; no references mean the system's roots."""
    key, tls = backend.key, backend.spec.tls
    refs = tls.ca_certificate_refs if tls is not None else ()
    return Trust(key, refs, "spec.tls.caCertificateRefs", f"{key.namespace}/Backend/{key.name}/ca")


def of_policy(policy: BackendTLSPolicy) -> Trust:
    """Returns what a BackendTLSPolicy trusts; no references mean the system's roots."""
    key, refs = policy.key, policy.spec.validation.ca_certificate_refs
    return Trust(key, refs, "spec.validation.caCertificateRefs", f"{key.namespace}/BackendTLSPolicy/{key.name}/ca")


def of_frontend(gateway: ObjectKey, validation: FrontendTLSValidation, field: str, port: int | None) -> Trust:
    """Returns what a Gateway trusts clients by, on one port or (None) on those that have no setting of their own."""
    secret = f"{gateway.namespace}/Gateway/{gateway.name}/ca" + ("" if port is None else f"/{port}")
    refs = validation.ca_certificate_refs
    return Trust(gateway, refs, f"{field}.validation.caCertificateRefs", secret, "InvalidCACertificateKind")


def authorities(view: View, trust: Trust) -> Authorities | None:
    """Returns the authorities that can be had; None where there are none."""
    found = [pem for index in range(len(trust.refs)) if (pem := _pem(view, trust, index)) is not None]
    return Authorities(trust.secret, b"\n".join(found), str(trust.owner)) if found else None


def faults(view: View, trust: Trust) -> tuple[Condition, ...]:
    """Returns what is wrong with the references, a ResolvedRefs condition for each that is bad."""
    return tuple(_faults(view, trust))


def ca_of(source: object) -> bytes | None:
    """Returns the authorities that a ConfigMap or Secret holds, as PEM; None where it holds none."""
    if isinstance(source, ConfigMap):
        found = source.data.get(CA_KEY, "").encode() or source.binary_data.get(CA_KEY)
    else:
        found = source.data.get(CA_KEY) if isinstance(source, Secret) else None
    return found or None


def is_certificate(pem: bytes) -> bool:
    """Says whether the text holds certificates in PEM, and nothing that only looks like one."""
    # Only here: most configurations have no authorities of their own, and it takes a while to load.
    from cryptography import x509

    try:
        return bool(x509.load_pem_x509_certificates(pem))
    except ValueError:
        return False


def _faults(view: View, trust: Trust) -> Iterator[Condition]:
    for index, ref in enumerate(trust.refs):
        field, target = f"{trust.field}[{index}]", _target(trust, index)
        if ref.group or ref.kind not in _SOURCES:
            message = f"{ref.kind} is not a kind of certificate authority; expected a ConfigMap or a Secret"
            yield false("ResolvedRefs", trust.wrong_kind, message, f"{field}.kind")
        elif not permitted(view, source=trust.owner, target=target):
            message = f"no ReferenceGrant in namespace {target.namespace} lets {trust.owner} refer to {target}"
            yield false("ResolvedRefs", "RefNotPermitted", message, field)
        elif view.get(target) is None:
            yield false("ResolvedRefs", "InvalidCACertificateRef", f"{target} does not exist", field)
        elif _pem(view, trust, index) is None:
            message = f"{target} has no certificate in PEM under {CA_KEY}"
            yield false("ResolvedRefs", "InvalidCACertificateRef", message, field)


def _pem(view: View, trust: Trust, index: int) -> bytes | None:
    target = _target(trust, index)
    if target.group or target.kind not in _SOURCES or not permitted(view, source=trust.owner, target=target):
        return None
    pem = ca_of(view.get(target))
    return pem if pem is not None and is_certificate(pem) else None


def _target(trust: Trust, index: int) -> ObjectKey:
    ref = trust.refs[index]
    namespace = ref.namespace if isinstance(ref, ObjectReference) else None
    return ObjectKey(ref.group, ref.kind, namespace or trust.owner.namespace, ref.name)
