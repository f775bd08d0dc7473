# pyright: standard, reportAttributeAccessIssue=false
"""The routes of a virtual host as a matcher tree on the path, so that a request costs the same with ten and 10,000.

Envoy's map of prefixes tries the longest first and goes on to shorter ones when a nested matcher finds nothing (an
action that matches nothing would answer 404 instead). So every condition stands in a nested matcher, and an action is
one route that always matches. The `:path` that the map sees carries the query string: the nested matcher checks that
the key ended on the border of a segment.

What a path leads to depends on the routes of that path alone: `entry` encodes it, `path_map` joins the entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from envoy.config.route.v3.route_components_pb2 import VirtualHost
from google.protobuf.any_pb2 import Any as AnyMessage
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.type.matcher.v3.matcher_pb2 import Matcher

from controlplane.ir import Match
from controlplane.translate import variants
from controlplane.translate.expressions import literal_prefix
from controlplane.translate.predicates import PATH, conditions, expressible
from controlplane.translate.variants import Branch
from controlplane.translate.wire import embed, encode, field_numbers

__all__ = ["Branch", "branch", "conditions", "entry", "expressions", "matcher", "on_match", "path_map", "suits"]

_HOST_MATCHER = field_numbers(VirtualHost)["matcher"]
_ACTION = field_numbers(Matcher.OnMatch)["action"]
_THEN = field_numbers(Matcher.MatcherList.FieldMatcher)["on_match"]

_ANY = field_numbers(AnyMessage)
_TYPED_CONFIG = field_numbers(TypedExtensionConfig)["typed_config"]
_ROUTE_TYPE = b"type.googleapis.com/envoy.config.route.v3.Route"
_ROUTE_ACTION = encode(TypedExtensionConfig(name="route"))
# Below, each expression is asked for: maps and lists of lists would cost as much.
_LAYERS_FROM = 8


def suits(matches: Iterable[Match]) -> bool:
    """Says whether a tree can hold these matches: not all regular expressions can be asked of a path with a query."""
    return all(map(expressible, matches))


def branch(match: Match, route: bytes) -> Branch:
    """Returns a route as it may stand in a tree; `route` is an encoded Route that asks for the path alone."""
    return Branch(match, conditions(match), on_match(route))


def on_match(route: bytes) -> bytes:
    """Encodes that a matcher ends at a route."""
    config = embed(_ANY["type_url"], _ROUTE_TYPE) + embed(_ANY["value"], route)
    return embed(_THEN, embed(_ACTION, _ROUTE_ACTION + embed(_TYPED_CONFIG, config)))


def matcher(stages: Iterable[Sequence[Branch]]) -> bytes:
    """Encodes the `matcher` field of a virtual host out of branches in the order of precedence.

    Where nothing of a stage (the routes of one hostname) matches, the next is tried.
    """
    return joined(part for stage in stages for part in _parts(stage))


def joined(parts: Iterable[bytes]) -> bytes:
    """Encodes the `matcher` field of a virtual host out of what `path_map` and `expressions` return, in order."""
    return embed(_HOST_MATCHER, variants.one_after_another(list(parts)))


def path_map(entries: Iterable[bytes]) -> bytes:
    """Encodes a matcher of exact paths, or of prefixes, each as `entry` returns it; their order says nothing."""
    return variants.matcher_map(PATH, "prefix_match_map", entries)


def entry(branches: Sequence[Branch]) -> bytes:
    """Encodes where one path leads to: its routes, of one kind of path match, in the order of precedence."""
    if len(branches) == 1:
        return branches[0].alone
    return variants.map_entry(branches[0].match.path.value, variants.then(variants.at_one_path(branches)))


def expressions(branches: Sequence[Branch]) -> bytes:
    """Encodes a matcher of regular expressions in the order of precedence.

    One is asked for only below what every path that it matches begins with.
    """
    if len(branches) < _LAYERS_FROM:
        return variants.list_of(variants.entries(branches))
    return variants.one_after_another([_layer(layer) for layer in _layers(branches)])


def _parts(stage: Sequence[Branch]) -> Iterator[bytes]:
    """Splits a stage where regular expressions come before what comes after them, however often that is."""
    for is_regex, group in groupby(stage, lambda each: each.match.path.kind == "RegularExpression"):
        branches = list(group)
        if is_regex:
            yield expressions(branches)
            continue
        for kind in ("Exact", "PathPrefix"):
            paths: dict[str, list[Branch]] = {}
            for each in branches:
                if each.match.path.kind == kind:
                    paths.setdefault(each.match.path.value, []).append(each)
            if paths:
                yield path_map(entry(paths[path]) for path in sorted(paths))


_Layer = dict[str, list[Branch]]


def _layers(branches: Sequence[Branch]) -> list[_Layer]:
    """Sorts expressions by what they begin with.

    A map tries the longest key first. So an expression with a longer one than another that precedes it, and may match
    the same paths, comes a layer later.
    """
    layers: list[_Layer] = []
    last_at: dict[str, int] = {}  # The last layer with this very key.
    last_below: dict[str, int] = {}  # The last layer with a key that begins with this.
    for each in branches:
        key = literal_prefix(each.match.path.value)
        begins = [key[:length] for length in range(len(key) + 1)]
        shorter = max((last_at.get(begin, -1) for begin in begins[:-1]), default=-1)
        number = max(shorter + 1, last_below.get(key, 0))
        if number == len(layers):
            layers.append({})
        layers[number].setdefault(key, []).append(each)
        last_at[key] = number
        for begin in begins:
            last_below[begin] = max(last_below.get(begin, 0), number)
    return layers


def _layer(layer: _Layer) -> bytes:
    lists = {key: variants.list_of(variants.entries(layer[key])) for key in sorted(layer)}
    if len(lists) == 1:
        return next(iter(lists.values()))
    return variants.matcher_map(
        PATH, "prefix_match_map", (variants.map_entry(key, variants.then(body)) for key, body in lists.items())
    )
