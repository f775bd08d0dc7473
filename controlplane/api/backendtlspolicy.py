"""BackendTLSPolicy: TLS from the Gateway to the backends of a Service."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from controlplane.api.meta import LocalObjectReference, Model, PolicyTargetReference, Resource, Targets
from controlplane.api.scalars import URI_PATTERN, Hostname, PreciseHostname, QualifiedName, refuse


class SubjectAltName(Model):
    """A name that the certificate of a backend may have."""

    type: Literal["Hostname", "URI"]
    hostname: Hostname | None = None
    uri: Annotated[str, Field(min_length=1, max_length=253, pattern=URI_PATTERN)] | None = None

    @model_validator(mode="after")
    def _type_has_value(self) -> SubjectAltName:
        for kind, field, value in (("Hostname", "hostname", self.hostname), ("URI", "uri", self.uri)):
            if (value is None) == (self.type == kind):
                words = "needs" if value is None else "must not have"
                raise refuse(f"type {self.type} {words} {field}", field)
        return self


class BackendTLSPolicyValidation(Model):
    """How the certificate of a backend is checked."""

    ca_certificate_refs: Annotated[tuple[LocalObjectReference, ...], Field(max_length=8)] = ()
    """ConfigMaps (or Secrets) with the trusted authorities in the key `ca.crt`."""
    well_known_ca_certificates: Literal["System"] | None = None
    """Trust the authorities of the system instead."""
    hostname: PreciseHostname
    """Server name that the Gateway asks for, and the name to find in the certificate unless subjectAltNames is set."""
    subject_alt_names: Annotated[tuple[SubjectAltName, ...], Field(max_length=5)] = ()
    """Names of which the certificate must have one."""

    @model_validator(mode="after")
    def _one_trust(self) -> BackendTLSPolicyValidation:
        if bool(self.ca_certificate_refs) == (self.well_known_ca_certificates is not None):
            raise refuse("set either caCertificateRefs or wellKnownCACertificates", "caCertificateRefs")
        return self


class BackendTLSPolicySpec(Model):
    """Which Services, and how their certificates are checked."""

    target_refs: Annotated[Targets, Field(min_length=1, max_length=16)]
    validation: BackendTLSPolicyValidation
    options: Annotated[dict[QualifiedName, Annotated[str, Field(max_length=4096)]], Field(max_length=16)] = Field(
        default={}
    )
    """Settings of the implementation, by domain-prefixed name."""


class BackendTLSPolicy(Resource):
    """TLS between the Gateway and the backends of a Service."""

    kind: Literal["BackendTLSPolicy"] = "BackendTLSPolicy"
    spec: BackendTLSPolicySpec

    @property
    def targets(self) -> tuple[PolicyTargetReference, ...]:
        """What the policy applies to."""
        return self.spec.target_refs
