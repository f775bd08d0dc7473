# pyright: standard, reportAttributeAccessIssue=false
"""Many routes that are told apart by more than a path: found by maps and by expressions that ask for many at once.

What is here changes how a route is found, never which: alternatives keep their order, but where no request can
match two of them, as with two values of one header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from xds.type.matcher.v3.matcher_pb2 import Matcher

from controlplane.ir import Match
from controlplane.translate import expressions, predicates
from controlplane.translate.wire import embed, field_numbers

_MATCHER = field_numbers(Matcher)
_LIST_ENTRIES = field_numbers(Matcher.MatcherList)["matchers"]
_TREE = field_numbers(Matcher.MatcherTree)
_MAP_ENTRIES = field_numbers(Matcher.MatcherTree.MatchMap)["map"]
_ON_MATCH = field_numbers(Matcher.OnMatch)
_THEN = field_numbers(Matcher.MatcherList.FieldMatcher)["on_match"]
_KEY, _VALUE = 1, 2  # of a map's entry
assert _THEN == _VALUE, "what a predicate leads to has to be what a key leads to"

# From here on a map is faster than a list, and asking for several expressions at once than for each.
_MAP_FROM = 6
_AT_ONCE = 16
# What all expressions that are asked for at once may come to: RE2 then needs little memory whatever the request.
_MOST_INSTRUCTIONS = 8192
# How many groups a route may overtake to join those that ask for the same headers: a bound on the time it takes.
_OVERTAKEN = 16


@dataclass(frozen=True, slots=True)
class Branch:
    """A route as it may stand in a tree, under the conditions of its match."""

    match: Match
    conditions: bytes
    then: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """An encoded entry of a list of matchers; `needs` says by header what that has to be like for it to be of use."""

    body: bytes
    needs: Mapping[str, str]


def at_one_path(branches: Sequence[Branch]) -> bytes:
    """Encodes a matcher of the routes of one path, in order of precedence."""
    if len(branches) < _MAP_FROM:
        return matcher_list(branch.conditions + branch.then for branch in branches)
    path = predicates.path_condition(branches[0].match.path)
    return matcher_list([path + then(_by_values(branches))])


def entries(branches: Iterable[Branch]) -> list[Entry]:
    """Returns branches as entries of a list, each under all of its conditions."""
    return [Entry(each.conditions + each.then, dict(_first_needs(each.match))) for each in branches]


def list_of(found: Sequence[Entry]) -> bytes:
    """Encodes a list of matchers in which many expressions are asked for at once before each is."""
    for _ in range(2):
        found = [entry for run in _runs(found) for entry in _asked_at_once(*run)]
    return matcher_list(each.body for each in found)


def matcher_list(bodies: Iterable[bytes]) -> bytes:
    """Encodes a matcher that tries one entry after the other."""
    return embed(_MATCHER["matcher_list"], b"".join(embed(_LIST_ENTRIES, each) for each in bodies))


def matcher_map(header: str, kind: str, entries: Iterable[bytes]) -> bytes:
    """Encodes a matcher that looks a header up; `kind` is the map's: `prefix_match_map` or `exact_match_map`."""
    encoded = b"".join(embed(_MAP_ENTRIES, each) for each in entries)
    return embed(
        _MATCHER["matcher_tree"], embed(_TREE["input"], predicates.source(header)) + embed(_TREE[kind], encoded)
    )


def map_entry(key: str, then: bytes) -> bytes:
    """Encodes an entry of a map."""
    return embed(_KEY, key.encode()) + then


def then(matcher: bytes) -> bytes:
    """Encodes a matcher as what a predicate or a key of a map leads to."""
    return embed(_THEN, embed(_ON_MATCH["matcher"], matcher))


def one_after_another(matchers: Sequence[bytes]) -> bytes:
    """Joins matchers: where one finds nothing, the next is tried."""
    if len(matchers) == 1:
        return matchers[0]
    return matcher_list(predicates.ALWAYS + then(each) for each in matchers)


# -- by values --


@dataclass(slots=True)
class _Group:
    """Routes that ask for one value each of the same headers, and perhaps for more."""

    names: tuple[str, ...]
    members: list[tuple[dict[str, str], Branch]] = field(default_factory=list)
    taken: dict[str, set[str]] = field(default_factory=dict)

    def add(self, values: dict[str, str], branch: Branch) -> None:
        self.members.append((values, branch))
        for name, value in values.items():
            self.taken.setdefault(name, set()).add(value)

    def never_with(self, values: Mapping[str, str]) -> bool:
        """Says whether no request that these values fit can match a member."""
        return any(name in self.taken and value not in self.taken[name] for name, value in values.items())


def _by_values(branches: Sequence[Branch]) -> bytes:
    found: list[Entry] = []
    for group in _groups(branches):
        distinct = {tuple(values[name] for name in group.names) for values, _ in group.members}
        if group.names and len(distinct) >= _MAP_FROM:
            found.append(Entry(predicates.ALWAYS + _mapped(group.members, group.names), {}))
        else:
            found += [_entry(branch, met=()) for _, branch in group.members]
    return list_of(found)


def _groups(branches: Sequence[Branch]) -> list[_Group]:
    """Groups routes by the headers that they ask for; a route overtakes only what no request matches beside it."""
    groups: list[_Group] = []
    for branch in branches:
        values = predicates.exact_values(branch.match)
        names = tuple(sorted(values))
        for group in reversed(groups[-_OVERTAKEN:]):
            if group.names == names:
                group.add(values, branch)
                break
            if not group.never_with(values):
                groups.append(_Group(names))
                groups[-1].add(values, branch)
                break
        else:
            groups.append(_Group(names))
            groups[-1].add(values, branch)
    return groups


def _mapped(members: Sequence[tuple[dict[str, str], Branch]], names: Sequence[str], met: tuple[str, ...] = ()) -> bytes:
    """Encodes where the values of the first header lead to, and of each the values of the next."""
    name, *others = names
    met = (*met, name)
    by_value: dict[str, list[tuple[dict[str, str], Branch]]] = {}
    for values, branch in members:
        by_value.setdefault(values[name], []).append((values, branch))
    reach: Callable[[Sequence[tuple[dict[str, str], Branch]]], bytes] = (
        (lambda some: _mapped(some, others, met)) if others else (lambda some: _found(some, met))
    )
    encoded = (map_entry(value, reach(by_value[value])) for value in sorted(by_value))
    return then(matcher_map(name, "exact_match_map", encoded))


def _found(members: Sequence[tuple[dict[str, str], Branch]], met: tuple[str, ...]) -> bytes:
    found = [_entry(branch, met=met) for _, branch in members]
    if found[0].body.startswith(predicates.ALWAYS):
        return members[0][1].then  # Whatever comes after it is never reached.
    return then(list_of(found))


def _entry(branch: Branch, *, met: tuple[str, ...]) -> Entry:
    conditions = predicates.further_conditions(branch.match, met=met)
    return Entry(conditions + branch.then, dict(_first_needs(branch.match)))


# -- by expressions --


def _first_needs(match: Match) -> Iterator[tuple[str, str]]:
    for header, pattern in predicates.patterns(match):
        yield header, pattern
        return


def _runs(found: Sequence[Entry]) -> Iterator[tuple[str | None, list[Entry]]]:
    """Yields what stands one after the other and is asked of the same header; None: nothing is asked for."""
    for header, run in groupby(found, lambda each: next(iter(each.needs), None)):
        yield header, list(run)


def _asked_at_once(header: str | None, run: list[Entry]) -> Iterator[Entry]:
    if header is None or len(run) < _AT_ONCE:
        yield from run
        return
    for start in range(0, len(run), _AT_ONCE):
        some = run[start : start + _AT_ONCE]
        wanted = list(dict.fromkeys(each.needs[header] for each in some))
        if len(some) == 1 or sum(map(expressions.size, wanted)) > _MOST_INSTRUCTIONS:
            yield from some
            continue
        either = "|".join(f"(?:{each})" for each in wanted)
        body = predicates.like(header, either) + then(matcher_list(each.body for each in some))
        yield Entry(body, {header: either})
