"""The routes of a virtual host, judged for a request in the order in which they are tried; of many, the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import NamedTuple

from controlplane.explain.match import checks, in_words, path_holds, shortfall
from controlplane.explain.model import Candidate
from controlplane.explain.request import Seen
from controlplane.explain.slices import Steps
from controlplane.explain.sources import Locate
from controlplane.pipeline.http import Ranked

_Distance = tuple[int, int, int]
"""How many conditions fail, the path counting twice; the length of the path in common, negative; the place."""


class Judged(NamedTuple):
    """All routes of a host: which has the request (its place from 0), and how far the others are from matching."""

    chosen: int | None
    distances: Sequence[_Distance]


def judge(ranked: Sequence[Ranked], request: Seen) -> Steps[Judged]:
    """Judges all routes of a virtual host; the first that matches has the request."""
    chosen: int | None = None
    distances: list[_Distance] = []
    for at, (_, _, piece, _) in enumerate(ranked):
        match = piece.match
        failed = shortfall(match, request) + (0 if path_holds(match.path, request.path) else 2)
        if chosen is None and not failed:
            chosen = at
        distances.append((failed, -_in_common(match.path.value, request.path), at))
        if at % 128 == 127:
            yield
    return Judged(chosen, distances)


def nearest(
    ranked: Sequence[Ranked], judged: Judged, request: Seen, locate: Locate, *, most: int
) -> tuple[Candidate, ...]:
    """Returns the chosen route and those that are nearest to match, in order; without a chosen one, nearest first."""
    others = (each for each in judged.distances if each[2] != judged.chosen)
    kept = [at for *_, at in nsmallest(most, others)]
    if judged.chosen is not None:
        kept = sorted([*kept, judged.chosen])
    return tuple(_candidate(at, ranked[at], request, locate, chosen=at == judged.chosen) for at in kept)


def _candidate(at: int, ranked: Ranked, request: Seen, locate: Locate, *, chosen: bool) -> Candidate:
    _, rank, piece, key = ranked
    source = locate(key, f"spec.rules[{rank[3]}].matches[{rank[4]}]")
    return Candidate(at + 1, piece.title, in_words(piece.match), source, checks(piece.match, request), chosen)


def _in_common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
