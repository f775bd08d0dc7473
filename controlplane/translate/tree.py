# pyright: standard, reportAttributeAccessIssue=false
"""The routes of a virtual host as a matcher tree on the path, so that a request costs the same with ten and 10,000.

Envoy's map of prefixes tries the longest first and goes on to shorter ones when a nested matcher finds nothing (an
action that matches nothing would answer 404 instead). So every condition stands in a nested matcher, and an action is
one route that always matches. The `:path` that the map sees carries the query string: the nested matcher checks that
the key ended on the border of a segment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from envoy.config.route.v3.route_components_pb2 import RouteList, VirtualHost
from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.type.matcher.v3.matcher_pb2 import Matcher
from xds.type.matcher.v3.regex_pb2 import RegexMatcher
from xds.type.matcher.v3.string_pb2 import StringMatcher

from controlplane.ir import Match, PathMatch, ValueMatch
from controlplane.translate.wire import embed, encode, field_numbers, packed

_Predicate = Matcher.MatcherList.Predicate
_FieldMatcher = Matcher.MatcherList.FieldMatcher

_HOST_MATCHER = field_numbers(VirtualHost)["matcher"]
_MATCHER = field_numbers(Matcher)
_LIST_ENTRIES = field_numbers(Matcher.MatcherList)["matchers"]
_TREE_PREFIXES = field_numbers(Matcher.MatcherTree)["prefix_match_map"]
_MAP_ENTRIES = field_numbers(Matcher.MatcherTree.MatchMap)["map"]
_ON_MATCH = field_numbers(Matcher.OnMatch)
_PREDICATE = field_numbers(_FieldMatcher)["predicate"]
_FIELD_ON_MATCH = field_numbers(_FieldMatcher)["on_match"]
_ROUTE_LIST = field_numbers(RouteList)["routes"]
_KEY, _VALUE = 1, 2  # of a map's entry

_ANY = field_numbers(AnyMessage)
_TYPED_CONFIG = field_numbers(TypedExtensionConfig)["typed_config"]
_ROUTE_TYPE = b"type.googleapis.com/envoy.config.route.v3.Route"
_ROUTE_ACTION = encode(TypedExtensionConfig(name="route"))


def alternative(match: Match, route: bytes) -> bytes:
    """Encodes one alternative of a nested matcher: under these conditions, this route.

    `route` is an encoded Route that asks for the path alone. Query parameters are not looked at here.
    """
    return under(conditions(match), route)


def conditions(match: Match) -> bytes:
    """Encodes what an alternative asks for: apart from its route, which may change while this stays."""
    return embed(_PREDICATE, encode(_all([_on_path(match.path), *_on_values(match)])))


def under(conditions: bytes, route: bytes) -> bytes:
    """Encodes an alternative out of what `conditions` returns and an encoded Route."""
    config = embed(_ANY["type_url"], _ROUTE_TYPE) + embed(_ANY["value"], route)
    on_match = embed(_ON_MATCH["action"], _ROUTE_ACTION + embed(_TYPED_CONFIG, config))
    return conditions + embed(_FIELD_ON_MATCH, on_match)


@dataclass(frozen=True, slots=True)
class Branch:
    """A route as it may stand in a tree: as an alternative of a nested matcher, or whole, in a list.

    Both are asked for when they are needed, as bytes.
    """

    match: Match
    alternative: Callable[[], bytes]
    whole: Callable[[], bytes]


def suits(matches: Iterable[Match]) -> bool:
    """Says whether a tree can hold these matches.

    A list of regular expressions cannot look at query parameters; those of gRPC calls come after prefixes, since a
    service counts for more than a method; and one that could take a question mark for a part of the path would match
    here, where the query string follows, what its route then refuses.
    """
    patterns = (match for match in matches if match.path.kind == "RegularExpression")
    return not any(match.query or match.call is not None or not keeps_to_path(match.path.value) for match in patterns)


def keeps_to_path(pattern: str) -> bool:
    """Says whether an expression surely matches a path with a query string behind it only if it matches the path.

    So it is if nothing in it can match a question mark, but for a `.*` that everything ends with. This errs towards no.
    """
    return _KEEPS_TO_PATH.fullmatch(pattern) is not None


_CLASS = r"\[(?:[a-z]-[a-z]|[A-Z]-[A-Z]|[0-9]-[0-9]|\\[dw.-]|[A-Za-z0-9_.~%/])*-?\]"
_LITERAL = r"[A-Za-z0-9/_~%:@=,;&'!-]|\\[dw./-]"
_KEEPS_TO_PATH = re.compile(rf"\^?(?:{_LITERAL}|{_CLASS}|\((?:\?:)?|\)|\||[*+?]|\{{\d+(?:,\d*)?\}})*(?:\.\*[)?]*)?\$?")


def matcher(stages: Sequence[Sequence[Branch]]) -> bytes:
    """Encodes the `matcher` field of a virtual host out of branches in the order of precedence.

    Where nothing of a stage (the routes of one hostname) matches, the next is tried.
    """
    parts = [part for stage in stages for part in _parts(stage) if part]
    encoded: list[bytes] = []
    for index, part in enumerate(parts):
        if part[0].match.path.kind == "RegularExpression":
            encoded.append(_list([branch.alternative() for branch in part]))
        else:
            encoded.append(_tree(part, later=[branch for each in parts[index + 1 :] for branch in each]))
    return embed(_HOST_MATCHER, _chain(encoded))


def _parts(stage: Sequence[Branch]) -> tuple[Sequence[Branch], ...]:
    """Splits a stage into what one tree or list can hold: regular expressions come between exact paths and prefixes."""
    kinds = {kind: [b for b in stage if b.match.path.kind == kind] for kind in ("Exact", "RegularExpression")}
    if not kinds["RegularExpression"]:
        return (stage,)
    return (*kinds.values(), [b for b in stage if b.match.path.kind == "PathPrefix"])


def _on_path(path: PathMatch) -> Message:
    if path.kind == "RegularExpression":
        regex = RegexMatcher(regex=f"(?:{path.value})(?:\\?.*)?", google_re2={})
        return _header(":path", StringMatcher(safe_regex=regex))
    ends = [StringMatcher(exact=path.value), StringMatcher(prefix=f"{path.value}?")]
    if path.kind == "PathPrefix":
        if path.value == "/":
            return _header(":path", StringMatcher(prefix="/"))
        ends.append(StringMatcher(prefix=f"{path.value}/"))
    any_end = [_header(":path", end) for end in ends]
    return _Predicate(or_matcher=_Predicate.PredicateList(predicate=any_end))


def _on_values(match: Match) -> list[Message]:
    found: list[Message] = []
    if match.method is not None:
        found.append(_header(":method", StringMatcher(exact=match.method)))
    return found + [_header(each.name, _string(each)) for each in match.headers]


def _all(conditions: list[Message]) -> Message:
    if len(conditions) == 1:
        return conditions[0]
    return _Predicate(and_matcher=_Predicate.PredicateList(predicate=conditions))


def _header(name: str, value: Message) -> Message:
    header = TypedExtensionConfig(name="header", typed_config=packed(HttpRequestHeaderMatchInput(header_name=name)))
    return _Predicate(single_predicate=_Predicate.SinglePredicate(input=header, value_match=value))


def _string(value: ValueMatch) -> Message:
    if value.regex:
        return StringMatcher(safe_regex=RegexMatcher(regex=value.value, google_re2={}))
    return StringMatcher(exact=value.value)


def _list(alternatives: list[bytes]) -> bytes:
    return embed(_MATCHER["matcher_list"], b"".join(embed(_LIST_ENTRIES, each) for each in alternatives))


def _tree(branches: Sequence[Branch], *, later: Sequence[Branch]) -> bytes:
    keys: dict[str, list[Branch]] = {}
    for branch in branches:
        keys.setdefault(branch.match.path.value, []).append(branch)
    entries = (embed(_MAP_ENTRIES, _entry(key, keys, branches, later)) for key in sorted(keys))
    tree = _PATH_INPUT + embed(_TREE_PREFIXES, b"".join(entries))
    return embed(_MATCHER["matcher_tree"], tree)


def _entry(
    key: str, keys: Mapping[str, Sequence[Branch]], branches: Sequence[Branch], later: Sequence[Branch]
) -> bytes:
    if any(branch.match.query for branch in keys[key]):
        shorter = [branch for branch in branches if key.startswith(branch.match.path.value)]
        on_match = embed(_ON_MATCH["action"], _route_list([*shorter, *(b for b in later if _may_match(b, key))]))
    else:
        on_match = embed(_ON_MATCH["matcher"], _list([branch.alternative() for branch in keys[key]]))
    return embed(_KEY, key.encode()) + embed(_VALUE, on_match)


def _may_match(branch: Branch, key: str) -> bool:
    path = branch.match.path
    return path.kind == "RegularExpression" or key.startswith(path.value) or path.value.startswith(key)


def _route_list(branches: Iterable[Branch]) -> bytes:
    """Encodes all that may still match, in order: query parameters can be looked at by routes alone.

    Where nothing of a list matches, the answer is 404 and nothing else is tried, so the list has to be complete.
    """
    action = TypedExtensionConfig(name="routes")
    action.typed_config.type_url = "type.googleapis.com/envoy.config.route.v3.RouteList"
    action.typed_config.value = b"".join(embed(_ROUTE_LIST, branch.whole()) for branch in branches)
    return encode(action)


def _chain(matchers: Sequence[bytes]) -> bytes:
    """Joins matchers: where one finds nothing, the next is tried."""
    whole = matchers[-1]
    for each in reversed(matchers[:-1]):
        whole = each + embed(_MATCHER["on_no_match"], embed(_ON_MATCH["matcher"], whole))
    return whole


def _path_input() -> bytes:
    header = HttpRequestHeaderMatchInput(header_name=":path")
    source = TypedExtensionConfig(name="path", typed_config=packed(header))
    return embed(field_numbers(Matcher.MatcherTree)["input"], encode(source))


_PATH_INPUT = _path_input()
