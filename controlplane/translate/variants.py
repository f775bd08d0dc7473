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
from controlplane.translate.expressions import Framed
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
_LEVELS = 3
# What expressions that are asked for at once may come to, in instructions of RE2's. More would cost some requests, made
# for it, more than asking for each: those that bring RE2's automaton into a new state with every character. Plain texts
# have no such states; but RE2 refuses what needs too much memory.
_MOST_INSTRUCTIONS = 2_048
_MOST_OF_TEXTS = 32_768
# How many groups a route may overtake to join those that ask for the same headers: a bound on the time it takes.
_OVERTAKEN = 16


@dataclass(slots=True)
class Branch:
    """A route as it may stand in a tree, under the conditions of its match; as what its path leads to, if it is the
    only one there, it is encoded once."""

    match: Match
    conditions: bytes
    then: bytes
    _alone: bytes | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def alone(self) -> bytes:
        """The entry of a map that leads to this route alone."""
        if self._alone is None:
            self._alone = map_entry(self.match.path.value, then(matcher_list([self.conditions + self.then])))
        return self._alone


@dataclass(frozen=True, slots=True)
class Entry:
    """An encoded entry of a list of matchers; `need` is a header and what that has to be like for it to be of use."""

    body: bytes
    need: tuple[str, Framed] | None = None
    instructions: int = 0


def at_one_path(branches: Sequence[Branch]) -> bytes:
    """Encodes a matcher of the routes of one path, in order of precedence."""
    if len(branches) < _MAP_FROM:
        return matcher_list(branch.conditions + branch.then for branch in branches)
    path = predicates.path_condition(branches[0].match.path)
    return matcher_list([path + then(_by_values(branches))])


def entries(branches: Iterable[Branch]) -> list[Entry]:
    """Returns branches as entries of a list, each under all of its conditions."""
    return [_entry(each.conditions + each.then, each.match) for each in branches]


def list_of(found: Sequence[Entry]) -> bytes:
    """Encodes a list of matchers in which many expressions are asked for at once before each is."""
    for _ in range(_LEVELS):
        found = [each for frame, run in groupby(found, _frame) for each in _asked_at_once(frame, list(run))]
    return matcher_list(each.body for each in found)


def matcher_list(bodies: Iterable[bytes]) -> bytes:
    """Encodes a matcher that tries one entry after the other."""
    return embed(_MATCHER["matcher_list"], b"".join(embed(_LIST_ENTRIES, each) for each in bodies))


def matcher_map(header: str, kind: str, entries: Iterable[bytes]) -> bytes:
    """Encodes a matcher that looks a header up; `kind` is the map's: `prefix_match_map` or `exact_match_map`."""
    looked_up = embed(_TREE["input"], predicates.source(header)) + embed(_TREE[kind], b"".join(entries))
    return embed(_MATCHER["matcher_tree"], looked_up)


def map_entry(key: str, then: bytes) -> bytes:
    """Encodes an entry of a map."""
    return embed(_MAP_ENTRIES, embed(_KEY, key.encode()) + then)


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
            found.append(Entry(predicates.ALWAYS + _mapped(group.members, group.names)))
        else:
            found += [_further(branch, met=()) for _, branch in group.members]
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
    found = [_further(branch, met=met) for _, branch in members]
    if found[0].body.startswith(predicates.ALWAYS):
        return members[0][1].then  # Whatever comes after it is never reached.
    return then(list_of(found))


def _further(branch: Branch, *, met: tuple[str, ...]) -> Entry:
    return _entry(predicates.further_conditions(branch.match, met=met) + branch.then, branch.match)


def _entry(body: bytes, match: Match) -> Entry:
    need = predicates.need(match)
    return Entry(body, need, 0 if need is None else expressions.size(need[1].core))


# -- by expressions --


_Frame = tuple[str, str, str, bool]


def _frame(entry: Entry) -> _Frame | None:
    """What entries have to have in common so that one expression asks for any of them."""
    if entry.need is None:
        return None
    header, wanted = entry.need
    return header, wanted.before, wanted.after, wanted.plain


def _asked_at_once(frame: _Frame | None, run: Sequence[Entry]) -> Iterator[Entry]:
    """Yields a run as it is or, if it is long, as fewer entries, each with several behind one expression."""
    if frame is None or len(run) < _AT_ONCE:
        yield from run
        return
    header, before, after, plain = frame
    for some in _within_bounds(run, _MOST_OF_TEXTS if plain else _MOST_INSTRUCTIONS):
        if len(some) == 1:
            yield from some
            continue
        wanted = dict.fromkeys(each.need[1].core for each in some if each.need is not None)
        either = Framed(before, "|".join(f"(?:{each})" for each in wanted), after, plain)
        body = predicates.like(header, either) + then(matcher_list(each.body for each in some))
        yield Entry(body, (header, either), sum(each.instructions for each in some))


def _within_bounds(run: Sequence[Entry], most_instructions: int) -> Iterator[list[Entry]]:
    some: list[Entry] = []
    instructions = 0
    for each in run:
        if some and (len(some) == _AT_ONCE or instructions + each.instructions > most_instructions):
            yield some
            some, instructions = [], 0
        some.append(each)
        instructions += each.instructions
    yield some
