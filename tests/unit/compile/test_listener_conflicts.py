"""Listeners that cannot be told apart, and who has what several want (Gateway API: GatewaySpec.listeners)."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.api.gateway import Gateway
from controlplane.api.listenerset import ListenerSet
from controlplane.api.load import load
from controlplane.compile.listener_conflicts import conflicts, members_of
from tests.support import manifests as m

_TLS: dict[str, Any] = {"tls": {"certificateRefs": [{"name": "cert"}]}}


def listener(name: str, protocol: str = "HTTP", hostname: str | None = None, port: int = 80) -> dict[str, Any]:
    host = {"hostname": hostname} if hostname else {}
    tls = {"HTTPS": _TLS, "TLS": {"tls": {"mode": "Passthrough"}}}.get(protocol, {})
    return {"name": name, "port": port, "protocol": protocol, **host, **tls}


def found(gateway: list[Any], *sets: list[Any]) -> dict[str, str]:
    documents = [m.gateway(listeners=gateway)]
    for number, listeners in enumerate(sets):
        spec = {"parentRef": {"name": "edge"}, "listeners": listeners}
        documents.append(m.manifest(m.GATEWAY_API, "ListenerSet", f"set-{number}", spec))
    sources: list[Gateway | ListenerSet] = []
    for document in documents:
        loaded = load(document).object
        assert isinstance(loaded, Gateway | ListenerSet)
        sources.append(loaded)
    return {id_: condition.reason for id_, condition in conflicts(map(members_of, sources)).items()}


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (listener("a", "HTTP"), listener("b", "HTTP", "b.com"), None),
        (listener("a", "HTTP"), listener("b", "HTTPS"), "ProtocolConflict"),
        (listener("a", "HTTP"), listener("b", "TCP"), "ProtocolConflict"),
        (listener("a", "HTTPS", "a.com"), listener("b", "TCP"), "ProtocolConflict"),
        (listener("a", "HTTP"), listener("b", "UDP"), None),
        (listener("a", "TCP"), listener("b", "UDP"), None),
        (listener("a", "HTTPS", "a.com"), listener("b", "TLS", "b.com"), None),
        (listener("a", "HTTPS", "a.com"), listener("b", "TLS", "a.com"), "ProtocolConflict"),
        (listener("a", "HTTPS", "a.com"), listener("b", "HTTPS", "a.com", 81), None),
        (listener("a", "HTTP"), listener("b", "example.com/SCTP"), None),
    ],
)
def test_of_two_in_one_gateway_that_conflict_neither_is_accepted(one: Any, other: Any, reason: str | None) -> None:
    assert found([one, other]) == ({"a": reason, "b": reason} if reason else {})


def test_what_a_gateway_has_a_set_cannot_have() -> None:
    own = [listener("a", "HTTP", "a.com"), listener("b", "HTTP", "b.com", 81)]
    theirs = [listener("a", "HTTP", "a.com"), listener("b", "TCP", port=81), listener("c", "HTTP", "c.com")]
    assert found(own, theirs) == {"demo/set-0/a": "HostnameConflict", "demo/set-0/b": "ProtocolConflict"}


def test_the_set_that_comes_first_has_what_two_want() -> None:
    shared = listener("shared", "HTTP", "shared.com")
    assert found([listener("own", "HTTP", "own.com")], [shared], [shared]) == {"demo/set-1/shared": "HostnameConflict"}


def test_a_listener_that_has_lost_is_in_nobodys_way() -> None:
    own, lost = listener("own", "HTTP", "own.com"), listener("lost", "TCP")
    beside = listener("beside", "HTTP", "beside.com")
    assert found([own], [lost, beside], [listener("later", "HTTP", "later.com")]) == {
        "demo/set-0/lost": "ProtocolConflict"
    }


def test_streams_of_two_sets_on_one_port_conflict() -> None:
    own = listener("own", port=81)
    assert found([own], [listener("a", "TCP")], [listener("a", "TCP")]) == {"demo/set-1/a": "ListenerConflict"}
