"""Whether an object may refer to one of another namespace (Gateway API: ReferenceGrant)."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey
from controlplane.compile.grants import permitted
from tests.support import manifests as m
from tests.unit.compile.view import PlainView

ROUTE = ObjectKey(GATEWAY_GROUP, "HTTPRoute", "demo", "shop")
SERVICE = ObjectKey("", "Service", "other", "one")


def grant(
    *, source: dict[str, Any] | None = None, to: dict[str, Any] | None = None, namespace: str = "other"
) -> m.Manifest:
    spec = {
        "from": [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": "demo", **(source or {})}],
        "to": [{"group": "", "kind": "Service", **(to or {})}],
    }
    return m.manifest(m.GATEWAY_API, "ReferenceGrant", "grant", spec, namespace=namespace)


def test_within_a_namespace_no_grant_is_needed() -> None:
    assert permitted(PlainView(), source=ROUTE, target=SERVICE._replace(namespace="demo"))


def test_across_namespaces_nothing_is_permitted_without_a_grant() -> None:
    assert not permitted(PlainView(), source=ROUTE, target=SERVICE)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (grant(), True),
        (grant(to={"name": "one"}), True),
        (grant(to={"name": "two"}), False),
        (grant(to={"kind": "Secret"}), False),
        (grant(to={"group": "dragoman.dev"}), False),
        (grant(source={"namespace": "other"}), False),
        (grant(source={"kind": "GRPCRoute"}), False),
        (grant(source={"group": ""}), False),
        (grant(namespace="demo"), False),
        (grant(namespace="elsewhere"), False),
    ],
)
def test_a_grant_speaks_of_its_own_namespace_and_of_what_it_names(document: m.Manifest, expected: bool) -> None:
    assert permitted(PlainView(document), source=ROUTE, target=SERVICE) is expected


def test_any_of_several_grants_is_enough() -> None:
    other = {**grant(to={"name": "two"}), "metadata": {"name": "second", "namespace": "other"}}
    assert permitted(PlainView(other, grant()), source=ROUTE, target=SERVICE)


def test_each_entry_of_a_grant_goes_with_each_other() -> None:
    document = grant()
    document["spec"]["from"].append({"group": GATEWAY_GROUP, "kind": "Gateway", "namespace": "demo"})
    document["spec"]["to"].append({"group": "", "kind": "Secret", "name": "tls"})
    view = PlainView(document)
    gateway = ObjectKey(GATEWAY_GROUP, "Gateway", "demo", "edge")
    assert permitted(view, source=gateway, target=ObjectKey("", "Secret", "other", "tls"))
    assert permitted(view, source=gateway, target=SERVICE)
    assert not permitted(view, source=gateway, target=ObjectKey("", "Secret", "other", "more"))
