"""How hostnames of listeners and routes meet (Gateway API: HTTPRouteSpec.hostnames, Listener.hostname)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.compile import hosts

_labels = st.lists(st.sampled_from(["a", "b", "example", "com"]), min_size=1, max_size=4).map(".".join)
_exact = _labels.filter(lambda host: "." in host)
_patterns = st.one_of(_exact, _labels.map(lambda host: f"*.{host}"), st.just(hosts.ANY))


def matches(pattern: str, host: str) -> bool:
    """As Gateway API says it, in the plainest words."""
    if pattern == hosts.ANY:
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern[1:])
    return host == pattern


@pytest.mark.parametrize(
    ("listener", "route", "domains"),
    [
        (None, [], ("*",)),
        ("a.example.com", [], ("a.example.com",)),
        (None, ["a.example.com"], ("a.example.com",)),
        ("*.example.com", ["a.example.com"], ("a.example.com",)),
        ("*.example.com", ["a.b.example.com"], ("a.b.example.com",)),
        ("*.example.com", ["example.com"], ()),
        ("a.example.com", ["*.example.com"], ("a.example.com",)),
        ("*.example.com", ["*.a.example.com"], ("*.a.example.com",)),
        ("*.a.example.com", ["*.example.com"], ("*.a.example.com",)),
        ("a.example.com", ["b.example.com"], ()),
        ("*.example.com", ["a.example.com", "a.example.org", "b.example.com"], ("a.example.com", "b.example.com")),
        ("A.Example.com", ["a.example.COM"], ("a.example.com",)),
        ("a.example.com", ["*.example.com", "a.example.com"], ("a.example.com",)),
        ("*.ample.com", ["example.com"], ()),
    ],
)
def test_a_route_is_served_on_what_it_and_the_listener_have_in_common(
    listener: str | None, route: list[str], domains: tuple[str, ...]
) -> None:
    assert hosts.intersect(listener, route) == domains


@given(_patterns, _patterns, _exact)
def test_a_host_is_in_the_intersection_just_where_it_is_in_both(one: str, other: str, host: str) -> None:
    common = hosts.intersect(one, [other])
    assert any(matches(domain, host) for domain in common) == (matches(one, host) and matches(other, host))


@given(_patterns, _exact)
def test_a_pattern_covers_a_name_just_where_it_matches_it(pattern: str, host: str) -> None:
    assert hosts.covers(pattern, host) == matches(pattern, host)
    assert (pattern in hosts.candidates(host)) == matches(pattern, host)


@given(st.lists(_patterns, min_size=1, unique=True), _exact)
def test_the_most_specific_pattern_is_the_first_candidate_among_them(patterns: list[str], host: str) -> None:
    expected = next((each for each in hosts.candidates(host) if each in patterns), None)
    assert hosts.most_specific(patterns, host) == expected


def test_candidates_go_from_the_name_itself_to_every_name() -> None:
    assert hosts.candidates("a.b.example.com") == (
        "a.b.example.com",
        "*.b.example.com",
        "*.example.com",
        "*.com",
        "*",
    )
    assert hosts.candidates("*.b.example.com") == ("*.b.example.com", "*.example.com", "*.com", "*")
    assert hosts.candidates("*") == ("*",)


@pytest.mark.parametrize(
    ("listener", "peers", "domains"),
    [
        ("a.example.com", [], ("*",)),
        (None, ["a.example.com"], ("a.example.com",)),
        ("*.example.com", ["a.example.com", "b.example.org"], ("*", "a.example.com")),
        (None, [], ()),
        ("*.example.com", ["*.a.example.com", "*.com", "*"], ("*", "*.a.example.com")),
    ],
)
def test_a_listener_sends_away_what_belongs_to_others(
    listener: str | None, peers: list[str], domains: tuple[str, ...]
) -> None:
    assert hosts.misdirected(listener, peers) == domains
