"""Which listeners of a Gateway serve."""

from __future__ import annotations

from typing import Any

from controlplane.pipeline import Pipeline
from controlplane.xds import resources as xds
from tests.support import manifests as m
from tests.support.certificates import Authority
from tests.unit.pipeline.driver import put, stabilise


def _listening(tls: dict[str, Any] | None) -> tuple[list[str], list[str]]:
    """The names of the listeners that Envoy is sent, and the fields at fault."""
    listeners = [
        {"name": "plain", "port": 80, "protocol": "HTTP"},
        {"name": "one", "port": 443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}]}},
        {"name": "two", "port": 8443, "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": "tls"}]}},
    ]
    gateway = m.gateway(listeners=listeners)
    if tls is not None:
        gateway["spec"]["tls"] = tls
    pipeline = Pipeline()
    for document in (m.gateway_class(), Authority().leaf("example.com").secret("demo", "tls"), gateway):
        key = put(pipeline, document)
    stabilise(pipeline)
    (snapshot,) = pipeline.snapshots.current().values()
    fields = [fault.field for fault in pipeline.statuses.current()[key].faults() if fault.type == "Accepted"]
    return sorted(snapshot.of_type(xds.LISTENER)), fields


def test_a_listener_that_should_check_clients_does_not_serve_without_doing_so() -> None:
    validation = {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}
    everything = ["demo/edge/443", "demo/edge/80", "demo/edge/8443"]
    assert _listening(None) == (everything, [])
    served, faults = _listening({"frontend": {"default": {"validation": validation}}})
    assert served == ["demo/edge/80"]
    assert "spec.tls.frontend.default.validation.caCertificateRefs" in faults
    served, _ = _listening({"frontend": {"default": {}, "perPort": [{"port": 443, "tls": {"validation": validation}}]}})
    assert served == ["demo/edge/80", "demo/edge/8443"]
