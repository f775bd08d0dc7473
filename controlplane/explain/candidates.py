"""The routes of a virtual host, judged for a request in the order in which they are tried; of many, the nearest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from controlplane.api.meta import ObjectKey
from controlplane.explain.match import checks, in_words
from controlplane.explain.model import Candidate, Check
from controlplane.explain.request import Seen
from controlplane.explain.sources import Locate
from controlplane.pipeline.http import Entry


class Judged(NamedTuple):
    """A route with the verdict on each of its conditions; `rank` counts from 1."""

    rank: int
    key: ObjectKey
    entry: Entry
    checks: tuple[Check, ...]

    @property
    def matches(self) -> bool:
        """Says whether all conditions hold."""
        return all(check.holds for check in self.checks)


def judge(ranked: Sequence[tuple[ObjectKey, Entry]], request: Seen) -> list[Judged]:
    """Judges all routes of a virtual host; the first that matches has the request."""
    return [Judged(rank, key, entry, checks(entry.route.match, request)) for rank, (key, entry) in enumerate(ranked, 1)]


def nearest(judged: Sequence[Judged], chosen: Judged | None, locate: Locate, *, most: int) -> tuple[Candidate, ...]:
    """Returns the chosen route and those that are nearest to match, in order; without a chosen one, nearest first."""
    kept = sorted((each for each in judged if each is not chosen), key=_distance)[:most]
    if chosen is not None:
        kept = sorted([*kept, chosen], key=_rank)
    return tuple(_candidate(each, locate, chosen=each is chosen) for each in kept)


def _candidate(judged: Judged, locate: Locate, *, chosen: bool) -> Candidate:
    entry = judged.entry
    field = f"spec.rules[{entry.rank[3]}].matches[{entry.rank[4]}]"
    match = in_words(entry.route.match)
    return Candidate(judged.rank, entry.route.name, match, locate(judged.key, field), judged.checks, chosen)


def _rank(judged: Judged) -> int:
    return judged.rank


def _distance(judged: Judged) -> tuple[int, int, int]:
    """Orders routes by how many of their conditions fail, the path counting twice, then by the path in common."""
    path, *_ = judged.checks
    failed = sum(2 if check is path else 1 for check in judged.checks if not check.holds)
    return failed, -_in_common(judged.entry.route.match.path.value, path.given or ""), judged.rank


def _in_common(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
