"""TLS towards the backends of a Service (Gateway API: BackendTLSPolicy), and the certificate shown to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controlplane.api.backendtlspolicy import BackendTLSPolicy
from controlplane.api.core import Secret, Service
from controlplane.api.gateway import Gateway
from controlplane.api.meta import ObjectKey
from controlplane.compile import trust
from controlplane.compile.grants import permitted
from controlplane.compile.view import View
from controlplane.conditions import Condition, false, true
from controlplane.ir import SubjectName, UpstreamTls


def policy_of(view: View, service: Service, port: int) -> BackendTLSPolicy | None:
    """Returns the policy for a port of a Service: one that names the port goes before one for all of them.

    Of several the oldest has it, then the first by name (Gateway API: conflict resolution).
    """
    name = next((each.name for each in service.spec.ports if each.port == port and each.protocol == "TCP"), None)
    found = view.tls_policies(service.metadata.namespace, service.metadata.name)
    named = [each for each in found if name and _about(each, service.metadata.name, name)]
    return next(iter([*named, *(each for each in found if _about(each, service.metadata.name, None))]), None)


def upstream_tls(view: View, policy: BackendTLSPolicy) -> UpstreamTls | None:
    """Returns what a policy asks of connections; None where it trusts nobody, so that there must be none."""
    validation, trusted = policy.spec.validation, trust.of_policy(policy)
    if trusted.refs and trust.authorities(view, trusted) is None:
        return None
    names = tuple(SubjectName(each.type, each.hostname or each.uri or "") for each in validation.subject_alt_names)
    return UpstreamTls(
        sni=validation.hostname,
        ca_secret=trusted.secret if trusted.refs else None,
        names=names or (SubjectName("Hostname", validation.hostname),),
    )


def judge(view: View, policy: BackendTLSPolicy) -> tuple[Condition, ...]:
    """Returns the conditions of a policy, whatever it reaches (Gateway API: BackendTLSPolicy status)."""
    resolved = trust.faults(view, trust.of_policy(policy))
    accepted = true("Accepted")
    if (rival := _rival(view, policy)) is not None:
        message = f"{rival.key} has the same target and comes first"
        accepted = false("Accepted", "Conflicted", message, "spec.targetRefs")
    if upstream_tls(view, policy) is None:
        message = "none of the references to certificate authorities can be used; requests are answered with 503"
        accepted = false("Accepted", "NoValidCACertificate", message, "spec.validation.caCertificateRefs")
    return (accepted, *(resolved or (true("ResolvedRefs"),)))


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate that a Gateway shows to backends; `secret` is NAMESPACE/NAME, None where it has none."""

    secret: str | None = None
    condition: Condition | None = None  # ResolvedRefs; None where the Gateway names no certificate


def client_certificate(view: View, gateway: Gateway) -> ClientCertificate:
    """Returns what `spec.tls.backend.clientCertificateRef` leads to (Gateway API: GatewayBackendTLS)."""
    tls = gateway.spec.tls
    ref = tls.backend.client_certificate_ref if tls is not None and tls.backend is not None else None
    if ref is None:
        return ClientCertificate()
    field = "spec.tls.backend.clientCertificateRef"
    target = ObjectKey(ref.group, ref.kind, ref.namespace or gateway.metadata.namespace, ref.name)
    if (target.group, target.kind) != ("", "Secret"):
        message = f"{target.kind} is not a kind of certificate; expected a Secret"
        return _refused("InvalidClientCertificateRef", message, f"{field}.kind")
    if not permitted(view, source=gateway.key, target=target):
        message = f"no ReferenceGrant in namespace {target.namespace} lets this Gateway refer to {target}"
        return _refused("RefNotPermitted", message, field)
    secret = view.get(target)
    if not isinstance(secret, Secret) or not {"tls.crt", "tls.key"} <= secret.data.keys():
        what = "has no tls.crt and tls.key" if secret is not None else "does not exist, or holds no valid certificate"
        return _refused("InvalidClientCertificateRef", f"{target} {what}", field)
    return ClientCertificate(f"{target.namespace}/{target.name}", true("ResolvedRefs"))


def _refused(reason: str, message: str, field: str) -> ClientCertificate:
    return ClientCertificate(None, false("ResolvedRefs", reason, message, field))


def _rival(view: View, policy: BackendTLSPolicy) -> BackendTLSPolicy | None:
    """Returns a policy that has one of the targets and comes first."""
    for target in policy.targets:
        for other in view.tls_policies(policy.metadata.namespace, target.name):
            if other.key == policy.key:
                break
            if _about(other, target.name, target.section_name):
                return other
    return None


def _about(policy: BackendTLSPolicy, service: str, section: str | None) -> bool:
    return any((t.group, t.kind, t.name, t.section_name) == ("", "Service", service, section) for t in policy.targets)


def in_order(policies: Iterable[BackendTLSPolicy]) -> list[BackendTLSPolicy]:
    """Orders policies: the older first, then by name."""

    def age(policy: BackendTLSPolicy) -> tuple[float, ObjectKey]:
        created = policy.metadata.creation_timestamp
        return (created.timestamp() if created else 0.0, policy.key)

    return sorted(policies, key=age)
