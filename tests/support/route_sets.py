# pyright: standard, reportMissingTypeStubs=false
"""Sets of matches and requests at random, and which match Gateway API gives a request to, spelled out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import re2

from controlplane import ir
from controlplane.compile.precedence import match_rank

_SEGMENTS = ["a", "ab", "b", "c.d", "12"]
_ATOMS = [
    "a",
    "b",
    "/",
    "/a",
    ".",
    r"\.",
    "[ab]",
    "[^/]",
    "[^a]",
    r"\S",
    r"\W",
    r"\D",
    r"\w",
    r"[\w.]",
    "(?i:A)",
    r"\?",
]
_VALUES = [("1", False), ("2", False), ("3", False), ("[12]", True), (".", True), ("^1$", True)]
_PARAMETERS = ["p=1", "p=2", "p", "p=", "pq=1", "pq=2", "x=/a", "", "p==1", "x=?p=1", "p=?", "p=%31", "P=1"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request; no header comes twice."""

    target: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)


def expression(random_: random.Random, depth: int = 3) -> str:
    """Returns a regular expression of RE2's syntax."""
    if depth == 0 or random_.random() < 0.3:
        return random_.choice(_ATOMS) + random_.choice(["", "", "*", "+", "?", "{1,2}", "*?"])
    inner = [expression(random_, depth - 1) for _ in range(random_.randint(1, 3))]
    joined = "".join(inner) if random_.random() < 0.6 else f"({'|'.join(inner)})"
    if depth == 3 and random_.random() < 0.3:
        joined = random_.choice(["^", "(?i)", "(?s)", "(?i)^"]) + joined + random_.choice(["", "$"])
    return joined


def exact_or_prefix(random_: random.Random) -> ir.PathMatch:
    """Returns a match of a path that is no regular expression."""
    if random_.random() < 0.4:
        return ir.PathMatch("Exact", _path(random_) + random_.choice(["", "", "/"]).replace("//", "/"))
    return ir.PathMatch("PathPrefix", _path(random_))


def any_path(random_: random.Random) -> ir.PathMatch:
    """Returns a match of a path of any kind."""
    return like(random_) if random_.random() < 0.3 else exact_or_prefix(random_)


def like(random_: random.Random) -> ir.PathMatch:
    """Returns a match by a regular expression."""
    common = ["/a.*", "/[ab]/.*", "[a-z/]*c[.]d", "/ab?/[a-z.]+", "/a/[^/]+", "^/a(/.*)?$", "/.*", "(?i)/A/[^/]+/"]
    if random_.random() < 0.3:
        return ir.PathMatch("RegularExpression", random_.choice(common))
    return ir.PathMatch("RegularExpression", random_.choice(["/", "/", "/a", "/a/", "/ab/", ""]) + expression(random_))


def one_path(random_: random.Random) -> ir.PathMatch:
    """Returns one of few paths."""
    return random_.choice(
        [ir.PathMatch("PathPrefix", "/"), ir.PathMatch("PathPrefix", "/a"), ir.PathMatch("Exact", "/a")]
    )


def stage(
    random_: random.Random,
    number: int,
    paths: Callable[[random.Random], ir.PathMatch],
    suits: Callable[[Sequence[ir.Match]], bool],
) -> list[ir.Match]:
    """Returns so many matches in the order of precedence, all of them such as suit."""
    found: list[ir.Match] = []
    conditions = random_.choice([0.1, 0.3, 0.5])
    while len(found) < number:
        match = ir.Match(
            path=paths(random_),
            method=random_.choice(["GET", "POST"]) if random_.random() < conditions else None,
            headers=_values(random_, ["x-one", "x-two"], conditions),
            query=_values(random_, ["p", "pq"], conditions / 2),
        )
        if suits([match]):
            found.append(match)
    return sorted(found, key=match_rank)


def request(random_: random.Random) -> Request:
    """Returns a request that something may match."""
    query = "&".join(random_.choice(_PARAMETERS) for _ in range(random_.randint(0, 3)))
    target = (
        _path(random_) + random_.choice(["", "", "/", "x", "/a/b"]) + (f"?{query}" if random_.random() < 0.6 else "")
    )
    names = [name for name in ("x-one", "x-two") if random_.random() < 0.6]
    headers = {name: random_.choice(["1", "1", "2", "3", "4", "1,2"]) for name in names}
    return Request(target, random_.choice(["GET", "POST", "PUT"]), headers)


def winner(stages: Sequence[Sequence[ir.Match]], asked: Request) -> str | None:
    """Returns which match wins, as `STAGE-INDEX`."""
    for number, matches in enumerate(stages):
        for index, match in enumerate(matches):
            if _fits(match, asked):
                return f"{number}-{index}"
    return None


def _path(random_: random.Random) -> str:
    return "/" + "/".join(random_.choice(_SEGMENTS) for _ in range(random_.randint(0, 3)))


def _values(random_: random.Random, names: list[str], share: float) -> tuple[ir.ValueMatch, ...]:
    return tuple(ir.ValueMatch(name, *random_.choice(_VALUES)) for name in names if random_.random() < share)


def _fits(match: ir.Match, asked: Request) -> bool:
    path, _, query = asked.target.partition("?")
    first: dict[str, str] = {}
    for each in query.split("&") if query else ():
        name, _, value = each.partition("=")
        first.setdefault(name, value)
    return (
        match.method in (None, asked.method)
        and all(_holds(each, asked.headers.get(each.name)) for each in match.headers)
        and all(_holds(each, first.get(each.name)) for each in match.query)
        and _path_fits(match.path, path)
    )


def _path_fits(path: ir.PathMatch, asked: str) -> bool:
    if path.kind == "Exact":
        return asked == path.value
    if path.kind == "PathPrefix":
        return path.value == "/" or asked == path.value or asked.startswith(f"{path.value}/")
    return re2.fullmatch(path.value, asked) is not None


def _holds(want: ir.ValueMatch, value: str | None) -> bool:
    if value is None:
        return False
    return re2.fullmatch(want.value, value) is not None if want.regex else want.value == value
