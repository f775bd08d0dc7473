"""Whose certificates a Backend's TLS trusts: the authorities that its `caCertificateRefs` name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509

from controlplane.api.backend import Backend
from controlplane.api.core import ConfigMap, Secret
from controlplane.api.meta import LocalObjectReference, ObjectKey
from controlplane.compile.view import View
from controlplane.conditions import Condition, false

CA_KEY = "ca.crt"
_SOURCES = ("ConfigMap", "Secret")


@dataclass(frozen=True, slots=True)
class Authorities:
    """Roots as PEM, under the name by which clusters refer to them."""

    name: str
    pem: bytes
    origin: str


def authorities(view: View, backend: Backend) -> Authorities | None:
    """Returns the authorities that a Backend names; None where it names none, or one of them cannot be had."""
    if not _refs(backend) or faults(view, backend):
        return None
    keys = (_key(backend, index) for index in range(len(_refs(backend))))
    pem = b"\n".join(ca_of(view.get(key)) or b"" for key in keys)
    return Authorities(secret_name(backend), pem, str(backend.key))


def names_any(backend: Backend) -> bool:
    """Says whether a Backend names authorities, whether they can be had or not."""
    return bool(_refs(backend))


def secret_name(backend: Backend) -> str:
    """Returns the name of the SDS secret with a Backend's authorities."""
    return f"{backend.metadata.namespace}/Backend/{backend.metadata.name}/ca"


def faults(view: View, backend: Backend) -> tuple[Condition, ...]:
    """Returns what is wrong with a Backend's references to authorities; with any of them it cannot be trusted."""
    return tuple(_faults(view, backend))


def ca_of(source: object) -> bytes | None:
    """Returns the authorities that a ConfigMap or Secret holds, as PEM; None where it holds none."""
    if isinstance(source, ConfigMap):
        found = source.data.get(CA_KEY, "").encode() or source.binary_data.get(CA_KEY)
    else:
        found = source.data.get(CA_KEY) if isinstance(source, Secret) else None
    return found or None


def is_certificate(pem: bytes) -> bool:
    """Says whether the text holds certificates in PEM, and nothing that only looks like one."""
    try:
        return bool(x509.load_pem_x509_certificates(pem))
    except ValueError:
        return False


def _faults(view: View, backend: Backend) -> Iterator[Condition]:
    for index, ref in enumerate(_refs(backend)):
        field = f"spec.tls.caCertificateRefs[{index}]"
        if ref.group or ref.kind not in _SOURCES:
            message = f"{ref.kind} is not a kind of certificate authority; expected a ConfigMap or a Secret"
            yield false("ResolvedRefs", "InvalidKind", message, f"{field}.kind")
            continue
        source = view.get(_key(backend, index))
        pem = ca_of(source)
        if source is None:
            yield false("ResolvedRefs", "InvalidCACertificateRef", f"{_key(backend, index)} does not exist", field)
        elif pem is None or not is_certificate(pem):
            message = f"{_key(backend, index)} has no certificate in PEM under {CA_KEY}"
            yield false("ResolvedRefs", "InvalidCACertificateRef", message, field)


def _refs(backend: Backend) -> tuple[LocalObjectReference, ...]:
    return backend.spec.tls.ca_certificate_refs if backend.spec.tls is not None else ()


def _key(backend: Backend, index: int) -> ObjectKey:
    ref = _refs(backend)[index]
    return ObjectKey(ref.group, ref.kind, backend.metadata.namespace, ref.name)
