"""The routes of a virtual host, judged for a request in the order in which they are tried; of many, the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import NamedTuple

from controlplane.explain.match import checks, in_words, path_holds, shortfall
from controlplane.explain.model import Candidate
from controlplane.explain.request import Seen
from controlplane.explain.sources import Locate
from controlplane.pipeline.http import Ranked
from controlplane.slices import Steps

_MOST_OF_OTHER_PATHS = 5
_Distance = tuple[bool, int, int, int]
"""Whether the path is another; how many other conditions fail; how much of the path agrees, negative; the place."""


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
        elsewhere, failed = not path_holds(match.path, request.path), shortfall(match, request)
        if chosen is None and not elsewhere and not failed:
            chosen = at
        distances.append((elsewhere, failed, -_in_common(match.path.value, request.path), at))
        if at % 128 == 127:
            yield
    return Judged(chosen, distances)


def nearest(
    ranked: Sequence[Ranked], judged: Judged, request: Seen, locate: Locate, *, most: int
) -> tuple[Candidate, ...]:
    """Returns the chosen route and those that are nearest to match, in order; without a chosen one, nearest first.

    Where there are more than so many, those of the same path say more than those of another: of these, a few.
    """
    found = nsmallest(most, (each for each in judged.distances if each[3] != judged.chosen))
    if len(judged.distances) > most + 1:
        here = [each for each in found if not each[0]]
        near = [each for each in found if each[0] and each[2] < -1]  # More than the first slash is the same.
        if here or near or judged.chosen is not None:
            found = [*here, *near[:_MOST_OF_OTHER_PATHS]]
        else:
            found = found[:_MOST_OF_OTHER_PATHS]
    kept = [at for *_, at in found]
    if judged.chosen is not None:
        kept = sorted([*kept, judged.chosen])
    return tuple(_candidate(at, ranked[at], request, locate, chosen=at == judged.chosen) for at in kept)


def _candidate(at: int, ranked: Ranked, request: Seen, locate: Locate, *, chosen: bool) -> Candidate:
    _, rank, piece, key = ranked
    source = locate(key, f"spec.rules[{rank[3]}].matches[{rank[4]}]")
    return Candidate(at + 1, piece.title, in_words(piece.match), source, checks(piece.match, request), chosen)


def _in_common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
