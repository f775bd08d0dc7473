# pyright: standard, reportAttributeAccessIssue=false
"""The conditions of a match as predicates of a matcher, which sees nothing of a request but its headers.

`:path` carries the query string, so that a query parameter is an expression on it too, and a path ends where it does.
Of a header that comes several times a matcher sees all values, joined by commas.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from envoy.type.matcher.v3.http_inputs_pb2 import HttpRequestHeaderMatchInput
from google.protobuf.message import Message
from xds.core.v3.extension_pb2 import TypedExtensionConfig
from xds.type.matcher.v3.matcher_pb2 import Matcher
from xds.type.matcher.v3.regex_pb2 import RegexMatcher
from xds.type.matcher.v3.string_pb2 import StringMatcher

from controlplane.ir import Match, PathMatch, ValueMatch
from controlplane.translate import expressions
from controlplane.translate.expressions import Framed
from controlplane.translate.wire import embed, encode, field_numbers, packed

_Predicate = Matcher.MatcherList.Predicate
_PREDICATE = field_numbers(Matcher.MatcherList.FieldMatcher)["predicate"]

PATH = ":path"
METHOD = ":method"


def expressible(match: Match) -> bool:
    """Says whether the conditions of a match can be predicates: not all expressions can be asked of `:path`."""
    if match.path.kind == "RegularExpression" and expressions.on_path(match.path.value) is None:
        return False
    return all(_of_query(each) is not None for each in match.query)


def conditions(match: Match) -> bytes:
    """Encodes all conditions of a match, as the predicate of an alternative."""
    return _predicate([on_path(match.path), *_on_values(match, ())])


def further_conditions(match: Match, *, met: Collection[str]) -> bytes:
    """Encodes the conditions of a match but for its path, and the exact values of headers that are `met` already."""
    found = list(_on_values(match, met))
    return _predicate(found) if found else ALWAYS


def path_condition(path: PathMatch) -> bytes:
    """Encodes what is asked of the path alone."""
    return _predicate([on_path(path)])


def like(source: str, pattern: Framed) -> bytes:
    """Encodes that the whole value of a header, or `:path` with its query string, is like an expression."""
    return _predicate([_header(source, _regex(str(pattern)))])


def need(match: Match) -> tuple[str, Framed] | None:
    """Returns a header, or `:path`, and what it has to be like for a match to hold: the first that there is."""
    if match.path.kind == "RegularExpression":
        return PATH, _held(expressions.on_path(match.path.value))
    for each in match.query:
        return PATH, _held(_of_query(each))
    for each in match.headers:
        # No value of a header has a line break: this makes nothing of the expression but one that others may join.
        pattern = expressions.without(each.value, "\n") if each.regex else None
        if pattern is not None:
            return each.name, Framed("", pattern, "")
    return None


def exact_values(match: Match) -> dict[str, str]:
    """Returns the headers of which a match asks one value, and the method as one of them."""
    found = {each.name: each.value for each in match.headers if not each.regex}
    if match.method is not None:
        found[METHOD] = match.method
    return found


def on_path(path: PathMatch) -> Message:
    """Returns the predicate that holds for a path, whatever its query."""
    if path.kind == "RegularExpression":
        return _header(PATH, _regex(str(_held(expressions.on_path(path.value)))))
    ends = [StringMatcher(exact=path.value), StringMatcher(prefix=f"{path.value}?")]
    if path.kind == "PathPrefix":
        if path.value == "/":
            return _header(PATH, StringMatcher(prefix="/"))
        ends.append(StringMatcher(prefix=f"{path.value}/"))
    any_end = [_header(PATH, end) for end in ends]
    return _Predicate(or_matcher=_Predicate.PredicateList(predicate=any_end))


def source(header: str) -> bytes:
    """Encodes a header as what a matcher looks at."""
    return encode(_source(header))


def _on_values(match: Match, met: Collection[str]) -> Iterator[Message]:
    if match.method is not None and METHOD not in met:
        yield _header(METHOD, StringMatcher(exact=match.method))
    for each in match.headers:
        if each.regex or each.name not in met:
            yield _header(each.name, _regex(each.value) if each.regex else StringMatcher(exact=each.value))
    for each in match.query:
        yield _header(PATH, _regex(str(_held(_of_query(each)))))


def _of_query(each: ValueMatch) -> Framed | None:
    return expressions.on_query(each.name, each.value, regex=each.regex)


def _held(pattern: Framed | None) -> Framed:
    if pattern is None:
        raise ValueError("an expression that no predicate can hold")
    return pattern


def _predicate(found: list[Message]) -> bytes:
    whole = found[0] if len(found) == 1 else _Predicate(and_matcher=_Predicate.PredicateList(predicate=found))
    return embed(_PREDICATE, encode(whole))


def _header(name: str, value: Message) -> Message:
    return _Predicate(single_predicate=_Predicate.SinglePredicate(input=_source(name), value_match=value))


def _source(name: str) -> Message:
    # Named alike whatever it looks at: the name has no meaning.
    name_of = HttpRequestHeaderMatchInput(header_name=name)
    return TypedExtensionConfig(name="header", typed_config=packed(name_of))


def _regex(pattern: str) -> Message:
    return StringMatcher(safe_regex=RegexMatcher(regex=pattern, google_re2={}))


# No path is empty.
ALWAYS = _predicate([_Predicate(not_matcher=_header(PATH, StringMatcher(exact="")))])
