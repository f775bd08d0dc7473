"""Where Backends may be: in a cluster nobody reaches Envoy's own pod, or its node, through one."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import BackendObjectReference, ObjectKey
from controlplane.compile.backends import Resolved, endpoints, resolve
from tests.unit.compile.view import PlainView

ROUTE = ObjectKey("gateway.networking.k8s.io", "HTTPRoute", "demo", "shop")
NAME = "shop.example.com"


class View(PlainView):
    """Every name has an address of loopback, and another."""

    def addresses(self, host: str) -> tuple[str, ...] | None:
        return "127.0.0.1", "192.0.2.1"


def view(endpoint: dict[str, Any], *, remote_backends_only: bool = True) -> View:
    backend = {
        "apiVersion": "dragoman.dev/v1alpha1",
        "kind": "Backend",
        "metadata": {"namespace": "demo", "name": "shop"},
        "spec": {"endpoints": [endpoint]},
    }
    return View(backend, remote_backends_only=remote_backends_only)


def resolved(source: View) -> Resolved:
    ref = BackendObjectReference(group="dragoman.dev", kind="Backend", name="shop")
    return resolve(source, ref, source=ROUTE, field="spec.rules[0].backendRefs[0]")


@pytest.mark.parametrize(
    "endpoint",
    [
        *(
            {"ip": {"address": address, "port": 9901}}
            for address in (
                *("127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254"),
                *("::1", "::", "::ffff:127.0.0.1", "fe80::1", "224.0.0.1"),
            )
        ),
        {"unix": {"path": "/run/admin.sock"}},
    ],
    ids=str,
)
def test_a_backend_in_envoys_own_pod_or_node_is_not_resolved_in_a_cluster(endpoint: dict[str, Any]) -> None:
    fault = resolved(view(endpoint)).fault
    assert fault is not None
    assert (fault.status, fault.reason) == ("False", "UnsupportedValue")
    assert resolved(view(endpoint, remote_backends_only=False)).fault is None


def test_a_backend_elsewhere_is_resolved_in_a_cluster() -> None:
    for address in ("10.0.0.1", "192.168.1.1", "2001:db8::1"):
        assert resolved(view({"ip": {"address": address, "port": 80}})).fault is None


def test_a_name_does_not_lead_into_envoys_own_pod_in_a_cluster() -> None:
    for remote, expected in ((True, ["192.0.2.1"]), (False, ["127.0.0.1", "192.0.2.1"])):
        source = view({"fqdn": {"hostname": NAME, "port": 80}}, remote_backends_only=remote)
        cluster = resolved(source).cluster
        assert cluster is not None
        assert [each.address for each in endpoints(source, cluster).endpoints] == expected
