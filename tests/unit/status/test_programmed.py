from __future__ import annotations

import pytest

from controlplane.conditions import Condition, ListenerStatus, ObjectStatus, false, true
from controlplane.status.programmed import programmed
from controlplane.xds.cache import SnapshotCache
from controlplane.xds.events import ClientSummary, Nack, TypeSummary
from controlplane.xds.requests import Request
from controlplane.xds.resources import LISTENER, ROUTE, Resource, Snapshot
from tests.unit.status.seen import key
from tests.unit.xds.model import Clock

PENDING = Condition("Programmed", "Unknown", "Pending", "no Envoy has said yet that it serves this")
WEB = ListenerStatus("web", 0, ("HTTPRoute",), (true("Accepted"), true("ResolvedRefs"), PENDING))
GATEWAY = ObjectStatus((true("Accepted"),), listeners=(WEB,))
OWNER = "demo/one"


def client(
    *,
    unsettled_s: float | None = None,
    owner: str = OWNER,
    rejected: tuple[str, ...] = (),
    type_url: str = LISTENER,
    known: int = 1,
) -> ClientSummary:
    types = {type_url: TypeSummary(1, True, known, 0, False, rejected)}
    return ClientSummary(owner, "envoy", "delta", unsettled_s is None, types, unsettled_s or 0.0)


def told(status: ObjectStatus, *clients: ClientSummary, kind: str = "Gateway", **more: object):
    found, final = programmed(key(kind), status, owner=OWNER, clients=clients, **more)  # type: ignore[arg-type]
    (whole,) = (each for each in found.conditions if each.type == "Programmed")
    (listener,) = (each for each in found.listeners[0].conditions if each.type == "Programmed")
    return whole, listener, final


def test_a_gateway_without_an_envoy_is_pending_and_nothing_is_waited_for() -> None:
    whole, listener, final = told(GATEWAY, client(owner="demo/other"))
    assert (whole.status, whole.reason, final) == ("Unknown", "Pending", True)
    assert listener.status == "Unknown"


def test_a_gateway_is_programmed_when_every_envoy_has_acknowledged() -> None:
    whole, listener, final = told(GATEWAY, client(), client())
    assert (whole.status, listener.status, final) == ("True", "True", True)


@pytest.mark.parametrize("other", [client(unsettled_s=1.0), client(unsettled_s=0.1, known=0), client(type_url=ROUTE)])
def test_it_is_not_while_one_has_yet_to_answer_or_to_ask(other: ClientSummary) -> None:
    whole, listener, final = told(GATEWAY, client(), other)
    assert (whole.status, listener.status, final) == ("Unknown", "Unknown", False)


def test_an_envoy_that_had_everything_has_a_moment_to_answer_what_is_new() -> None:
    whole, listener, final = told(GATEWAY, client(), client(unsettled_s=0.9))
    assert (whole.status, listener.status, final) == ("True", "True", False)
    assert told(GATEWAY, client(unsettled_s=0.9), patience_s=0.0)[0].status == "Unknown"


def test_a_rejection_names_what_was_rejected_and_where_it_came_from() -> None:
    nack = Nack(OWNER, "envoy", LISTENER, ("demo/one/80",), ("Gateway demo/one",), "bad port")
    whole, listener, final = told(GATEWAY, client(rejected=("demo/one/80",)), nacks=(nack,))
    assert (whole.status, whole.reason, final) == ("False", "Invalid", True)
    assert whole.message == "Envoy rejected demo/one/80 (made from Gateway demo/one): bad port"
    assert listener.reason == "Invalid"


def test_a_rejection_that_was_made_good_is_not_told() -> None:
    nack = Nack(OWNER, "envoy", LISTENER, ("demo/one/80",), (), "bad port")
    assert told(GATEWAY, client(), nacks=(nack,))[0].status == "True"


def test_what_keeps_clients_from_the_gateway_is_told() -> None:
    hindrance = false("Programmed", "AddressNotAssigned", "no load balancer has taken it")
    whole, listener, _ = told(GATEWAY, client(), hindrance=hindrance)
    assert (whole.status, whole.reason) == ("False", "AddressNotAssigned")
    assert (listener.status, listener.reason) == ("False", "Pending")
    assert told(GATEWAY, client(), kind="ListenerSet", hindrance=hindrance)[0].reason == "ParentNotProgrammed"


@pytest.mark.parametrize(("kind", "reason"), [("Gateway", "Invalid"), ("ListenerSet", "ListenersNotValid")])
def test_what_is_not_accepted_is_not_programmed(kind: str, reason: str) -> None:
    status = ObjectStatus((false("Accepted", "ListenersNotValid", "none"),), listeners=(WEB,))
    whole, _, _ = told(status, client(), kind=kind)
    assert (whole.status, whole.reason) == ("False", reason)


def test_a_listener_in_conflict_is_not_programmed_for_that_reason() -> None:
    conflict = Condition("Conflicted", "True", "HostnameConflict", "same host", "spec.listeners[0]")
    bad = false("Programmed", "Invalid", "")
    status = ObjectStatus((true("Accepted"),), listeners=(ListenerStatus("web", 0, (), (conflict, bad)),))
    whole, listener, _ = told(status, client())
    assert (whole.status, listener.status, listener.reason) == ("True", "False", "HostnameConflict")


def test_a_listener_that_does_not_serve_keeps_its_reason() -> None:
    bad = false("Programmed", "Invalid", "see its other conditions")
    status = ObjectStatus((true("Accepted"),), listeners=(ListenerStatus("web", 0, (), (true("Accepted"), bad)),))
    assert told(status, client())[1] == bad


def test_what_has_no_listeners_is_left_as_it_is() -> None:
    status = ObjectStatus((true("Accepted"),))
    assert programmed(key("HTTPRoute"), status, owner=OWNER, clients=()) == (status, True)


def test_the_cache_tells_since_when_an_envoy_has_not_answered() -> None:
    clock = Clock()
    cache = SnapshotCache(clock=clock)
    session = cache.attach(OWNER, "envoy", "delta", lambda: None)
    assert cache.handle(session, Request(LISTENER)) is None
    for version in (b"first", b"second"):
        cache.publish({OWNER: Snapshot({LISTENER: {"demo/one/80": Resource.of(LISTENER, "demo/one/80", version)}})})
        clock.advance(0.4)
        sent = cache.next_response(session)
        clock.advance(0.4)
        assert sent is not None
        assert cache.clients()[0].unsettled_s == pytest.approx(0.8)
        assert cache.handle(session, Request(LISTENER, sent.nonce)) is None
        assert told(GATEWAY, *cache.clients())[0].status == "True"
        assert cache.clients()[0].unsettled_s == 0.0
