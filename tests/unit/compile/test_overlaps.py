"""Which listeners overlap others, and conflict with them, as told by an index and by looking at every pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.gateway import Gateway
from controlplane.api.load import load
from controlplane.compile.gateway import GatewayListener, listeners
from controlplane.compile.hosts import ANY, covers
from controlplane.compile.listener_conflicts import Member, conflicts, members_of
from controlplane.compile.overlaps import overlaps
from tests.support import manifests as m
from tests.unit.compile.view import PlainView

_HOSTNAMES = st.sampled_from([None, "a.com", "b.a.com", "*.a.com", "*.com", "c.b.a.com", "*.b.a.com", "d.org"])
_PROTOCOLS = st.sampled_from(["HTTP", "HTTPS", "TLS", "TCP", "UDP", "example.com/SCTP"])
_TLS = {"HTTPS": {"certificateRefs": [{"name": "cert"}]}, "TLS": {"mode": "Passthrough"}}


def gateway(*asked: tuple[str, str | None, int]) -> Gateway:
    written: list[dict[str, Any]] = []
    for number, (protocol, hostname, port) in enumerate(asked):
        named = {"hostname": hostname} if hostname is not None and protocol in ("HTTP", *_TLS) else {}
        tls = {"tls": _TLS[protocol]} if protocol in _TLS else {}
        written.append({"name": f"l{number}", "protocol": protocol, "port": port, **named, **tls})
    found = load(m.gateway(listeners=written)).object
    assert isinstance(found, Gateway)
    return found


def at_odds(one: Member, other: Member) -> str | None:
    """Gateway API's rules for two listeners, without any index."""
    if one is other or one.place != other.place:
        return None
    if one.protocol != other.protocol:
        by_name = {one.protocol, other.protocol} == {"HTTPS", "TLS"}
        return None if by_name and one.spec.hostname != other.spec.hostname else "ProtocolConflict"
    if one.protocol in ("TCP", "UDP"):
        return "ListenerConflict"
    return "HostnameConflict" if one.spec.hostname == other.spec.hostname else None


@given(st.lists(st.tuples(_PROTOCOLS, _HOSTNAMES, st.sampled_from([80, 443])), min_size=1, max_size=12))
def test_a_listener_is_in_conflict_where_one_of_all_the_others_is_at_odds_with_it(
    asked: list[tuple[str, str | None, int]],
) -> None:
    # Each of a Gateway of its own: one with all of them would not be read.
    alone = [members_of(gateway(each))[0] for each in asked]
    members = [replace(each, spec=each.spec.model_copy(update={"name": f"l{i}"})) for i, each in enumerate(alone)]
    found = {id_: condition.reason for id_, condition in conflicts([members]).items()}
    reasons = {one.id: [why for other in members if (why := at_odds(one, other)) is not None] for one in members}
    assert found == {id_: each[0] for id_, each in reasons.items() if each}


@given(st.lists(st.tuples(st.just("HTTPS"), _HOSTNAMES, st.sampled_from([443, 8443])), unique=True, max_size=12))
def test_a_listener_overlaps_where_one_of_all_the_others_covers_it_or_is_covered(
    asked: list[tuple[str, str | None, int]],
) -> None:
    judged = listeners(PlainView(), gateway(*asked)) if asked else ()

    def overlap(one: GatewayListener, other: GatewayListener) -> bool:
        mine, theirs = one.hostname or ANY, other.hostname or ANY
        return one is not other and one.port == other.port and (covers(mine, theirs) or covers(theirs, mine))

    assert overlaps(judged).keys() == {one.id for one in judged if any(overlap(one, other) for other in judged)}
