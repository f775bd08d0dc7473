"""Which of two matches wins (Gateway API: HTTPRouteRule.matches)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from controlplane.compile.precedence import Rank, match_rank, rank
from controlplane.ir import Match, PathKind, PathMatch, ValueMatch

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def match(kind: PathKind, value: str, *, method: str | None = None, headers: int = 0, query: int = 0) -> Match:
    def values(number: int) -> tuple[ValueMatch, ...]:
        return tuple(ValueMatch(f"n{n}", "v") for n in range(number))

    return Match(PathMatch(kind, value), method, values(headers), values(query))


def test_matches_are_ordered_by_path_then_method_then_headers_then_query() -> None:
    ordered = [
        match("Exact", "/longer"),
        match("Exact", "/a", method="GET"),
        match("Exact", "/a", headers=3),
        match("RegularExpression", "/a.*"),
        match("PathPrefix", "/a/b/c"),
        match("PathPrefix", "/a/b", method="GET", headers=1),
        match("PathPrefix", "/a/b", method="GET"),
        match("PathPrefix", "/a/b", headers=2, query=1),
        match("PathPrefix", "/a/b", headers=2),
        match("PathPrefix", "/a/b", headers=1, query=5),
        match("PathPrefix", "/a/b", query=2),
        match("PathPrefix", "/a/b", query=1),
        match("PathPrefix", "/a/b"),
        match("PathPrefix", "/a"),
        match("PathPrefix", "/"),
    ]
    for better, worse in pairwise(ordered):
        assert match_rank(better) < match_rank(worse), (better, worse)


def test_ties_go_to_the_older_route_then_by_name_then_by_position() -> None:
    same = match("PathPrefix", "/a")

    def place(created: datetime | None, route: str, rule: int = 0, index: int = 0) -> Rank:
        return rank(same, created=created, route=route, rule_index=rule, match_index=index)

    ordered = [
        place(DAY, "demo/z"),
        place(DAY + timedelta(days=1), "demo/a"),
        place(DAY + timedelta(days=1), "demo/b", 0, 0),
        place(DAY + timedelta(days=1), "demo/b", 0, 1),
        place(DAY + timedelta(days=1), "demo/b", 1, 0),
        place(DAY + timedelta(days=1), "other/a"),
    ]
    assert sorted(ordered) == ordered


_matches = st.builds(
    lambda kind, value, method, headers, query: match(kind, value, method=method, headers=headers, query=query),
    st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]),
    st.sampled_from(["/", "/a", "/a/b"]),
    st.sampled_from([None, "GET"]),
    st.integers(0, 2),
    st.integers(0, 2),
)


@given(_matches, _matches)
def test_age_and_name_decide_only_between_matches_that_ask_for_as_much(one: Match, other: Match) -> None:
    older = rank(one, created=DAY, route="demo/a", rule_index=0, match_index=0)
    newer = rank(other, created=DAY + timedelta(days=1), route="demo/a", rule_index=0, match_index=0)
    if match_rank(one) != match_rank(other):
        assert (older < newer) == (match_rank(one) < match_rank(other))
    else:
        assert older < newer
