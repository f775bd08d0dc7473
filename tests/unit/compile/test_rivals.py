"""Which of an HTTPRoute and a GRPCRoute has a hostname (Gateway API: GRPCRouteSpec.hostnames)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.compile.hosts import covers
from controlplane.compile.rivals import Domains, Rival, losers

_hosts = st.sampled_from(["*", "*.com", "*.example.com", "a.example.com", "b.example.com", "example.com", "a.org"])


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("a.example.com", "a.example.com", True),
        ("a.example.com", "*.example.com", True),
        ("*.example.com", "*.com", True),
        ("a.b.example.com", "*.example.com", True),
        ("a.example.com", "*", True),
        ("a.example.com", "b.example.com", False),
        ("example.com", "*.example.com", False),
        ("*.a.com", "*.b.com", False),
    ],
)
def test_domains_meet_when_one_covers_the_other(one: str, other: str, *, meet: bool) -> None:
    for known, asked in ((one, other), (other, one)):
        domains: Domains[str] = Domains()
        domains.add(known, "owner")
        assert domains.meets(asked) == ("owner" if meet else None)


def test_the_first_has_it_and_who_has_lost_takes_nothing() -> None:
    found = losers(
        [
            Rival("first", "HTTPRoute", ("a.com",)),
            Rival("second", "GRPCRoute", ("a.com", "b.com")),
            Rival("third", "HTTPRoute", ("b.com",)),
            Rival("fourth", "GRPCRoute", ("c.com",)),
        ]
    )
    assert found == {"second": "first"}


def test_routes_of_one_kind_share_a_hostname() -> None:
    assert losers([Rival(name, "GRPCRoute", ("a.com",)) for name in ("first", "second")]) == {}


_routes = st.lists(
    st.tuples(st.sampled_from(["HTTPRoute", "GRPCRoute"]), st.lists(_hosts, min_size=1, max_size=3, unique=True)),
    max_size=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(_routes)
def test_no_hostname_has_both_kinds_and_each_loser_has_a_reason(routes: list[tuple[str, list[str]]]) -> None:
    rivals = [Rival(number, kind, tuple(hosts)) for number, (kind, hosts) in enumerate(routes)]
    lost = losers(rivals)

    def meet(one: Rival[int], other: Rival[int]) -> bool:
        pairs = ((a, b) for a in one.domains for b in other.domains)
        return one.kind != other.kind and any(covers(a, b) or covers(b, a) for a, b in pairs)

    accepted = [each for each in rivals if each.key not in lost]
    assert not any(meet(one, other) for one in accepted for other in accepted)
    for loser, winner in lost.items():
        assert winner < loser
        assert winner not in lost
        assert meet(rivals[loser], rivals[winner])
