"""Which of several matches wins (Gateway API: HTTPRouteRule.matches precedence)."""

from __future__ import annotations

from datetime import datetime

from controlplane.ir import Match

# Regular expressions are placed by the implementation: before prefixes, since `/` would leave them nothing.
_PATH_ORDER = {"Exact": 0, "RegularExpression": 1, "PathPrefix": 2}

MatchRank = tuple[int, int, int, int, int]
Rank = tuple[MatchRank, float, str, int, int]


def match_rank(match: Match) -> MatchRank:
    """Orders matches by what they ask for alone; smaller wins.

    Those of gRPC (Gateway API: GRPCRouteRule.matches) are never compared with others: a hostname has one kind of route.
    """
    if match.call is not None:
        service, method = match.call
        return (0, -service, -method, -len(match.headers), 0)
    return (
        _PATH_ORDER[match.path.kind],
        -len(match.path.value),
        match.method is None,
        -len(match.headers),
        -len(match.query),
    )


def rank(match: Match, *, created: datetime | None, route: str, rule_index: int, match_index: int) -> Rank:
    """Orders the matches of several routes; ties go to the older route, then by `NAMESPACE/NAME`, then by position."""
    return (match_rank(match), created.timestamp() if created else 0.0, route, rule_index, match_index)
