# pyright: standard, reportAttributeAccessIssue=false
"""How a rule's selectors become descriptors: what Envoy says of a request, and what a limit asks for.

`actions` and `levels` go together: entry by entry, the one makes what the other expects. A selector that does not match
makes no entry, and a descriptor that lacks one is not sent, so that the rule does not count the request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final

import envoy.config.route.v3.route_components_pb2
import envoy.extensions.rate_limit_descriptors.expr.v3.expr_pb2
import envoy.type.matcher.v3.address_pb2  # noqa: F401  (what is asked for below must be known)
from google.protobuf.message import Message

from controlplane import ir
from controlplane.translate import claims, newer
from controlplane.translate.claims import MATCHED
from controlplane.translate.costs import set_request_cost, set_response_cost
from controlplane.translate.paths import path_regex
from controlplane.translate.wire import packed

RULE_KEY: Final = "rule"
ROUTE_KEY: Final = "route"
_HEADERS_KEY: Final = "headers"
_OTHER_HEADER_KEY: Final = "other_header"
_QUERY_KEY: Final = "query"
_SOURCE_KEY: Final = "source"
_CLIENT_KEY: Final = "remote_address"
_CLAIM_KEY: Final = "claim"
_EXPRESSION: Final = "envoy.rate_limit_descriptors.expr"

RateLimit: Any = newer.message("envoy.config.route.v3.RateLimit")
_HeaderMatcher: Any = newer.message("envoy.config.route.v3.HeaderMatcher")
_StringMatcher: Any = newer.message("envoy.type.matcher.v3.StringMatcher")
_Expression: Any = newer.message("envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor")

Tokens = Mapping[str, str]
"""The ids, by name, of the JWT providers whose tokens the requests of a route may have."""


def rate_limits(
    index: int, rule: ir.LimitRule, *, tokens: Tokens | None = None, scope: str | None = None
) -> Iterator[Message]:
    """Yields the descriptors of a rule: of its requests and, where they cost something, of its responses.

    Nothing where no request of the route can match. With `scope`, a limit that is not shared counts for that alone.
    """
    tokens = tokens or {}
    found = [generic(*entry(index, rule))]
    if scope is not None and not rule.shared:
        found.append(generic(ROUTE_KEY, rule.scope or scope))
    for action in actions(rule, tokens):
        if action is None:
            return
        found.append(action)
    message = RateLimit(actions=found)
    if rule.limit_from is not None:
        _set_limit(message, rule.limit_from, tokens)
    if isinstance(rule.cost, ir.MetadataSource):
        set_request_cost(message, _steps(rule.cost, tokens))
    elif rule.cost != 1:
        message.hits_addend.number.value = rule.cost
    yield message
    if rule.response_cost is not None:
        after = RateLimit(actions=found, apply_on_stream_done=True)
        if rule.limit_from is not None:
            # Another unit would be another counter.
            _set_limit(after, rule.limit_from, tokens)
        if isinstance(rule.response_cost, ir.MetadataSource):
            set_response_cost(after, _steps(rule.response_cost, tokens))
        else:
            after.hits_addend.number.value = rule.response_cost
        yield after


def entry(index: int, rule: ir.LimitRule) -> tuple[str, str]:
    """Returns the first entry of the descriptors of the rule at `index`.

    Of limits of the service it says what stands before the counters, and nothing of where the rule is: so that it goes
    on counting where its policy is edited, and counts together wherever it is merged into another.
    """
    return (f"{rule.home}_{RULE_KEY}", rule.name) if rule.home else (RULE_KEY, str(index))


def actions(rule: ir.LimitRule, tokens: Tokens) -> Iterator[Message | None]:
    """Yields what tells whether the rule is about a request, and what it counts apart; None for what never matches."""
    matchers = [*_header_matchers(rule)]
    if matchers:
        yield _headers_match(_HEADERS_KEY, matchers, expected=True)
    for index, each in enumerate(_others(rule)):
        matcher = _HeaderMatcher(name=each.name, string_match=_string(each))
        # An inverted matcher would not hold where there is no such header, and leaving it away would escape the limit.
        yield _headers_match(f"{_OTHER_HEADER_KEY}{index}", [matcher], expected=False)
    for index, each in enumerate(rule.query):
        yield _query(each, index)
    for each in rule.headers:
        if each.kind == "Distinct":
            found = RateLimit.Action.RequestHeaders(header_name=each.name, descriptor_key=_header_key(each))
            yield RateLimit.Action(request_headers=found)
    for index, source in enumerate(rule.sources):
        yield _source(source, index)
        if source.distinct:
            yield RateLimit.Action(remote_address=RateLimit.Action.RemoteAddress())
    for index, claim in enumerate(rule.claims):
        text = claims.value(claim, tokens)
        yield expression(f"{_CLAIM_KEY}{index}", text) if text is not None else None


def levels(rule: ir.LimitRule) -> list[tuple[str, str]]:
    """Returns the entries that the limit of a rule expects, without a value where each has a counter of its own."""
    found: list[tuple[str, str]] = []
    if any(True for _ in _header_matchers(rule)):
        found.append((_HEADERS_KEY, MATCHED))
    found += [(f"{_OTHER_HEADER_KEY}{index}", MATCHED) for index, _ in enumerate(_others(rule))]
    found += [(f"{_QUERY_KEY}{i}", "" if each.kind == "Distinct" else MATCHED) for i, each in enumerate(rule.query)]
    found += [(_header_key(each), "") for each in rule.headers if each.kind == "Distinct"]
    for index, source in enumerate(rule.sources):
        found.append((f"{_SOURCE_KEY}{index}", MATCHED))
        if source.distinct:
            found.append((_CLIENT_KEY, ""))
    found += [(f"{_CLAIM_KEY}{i}", "" if each.kind == "Distinct" else MATCHED) for i, each in enumerate(rule.claims)]
    return found


def expression(key: str, text: str) -> Message:
    """Returns the entry that an expression (CEL) yields; where it fails, the descriptor is not sent."""
    config = packed(_Expression(descriptor_key=key, text=text))
    typed = {"type_url": config.type_url, "value": config.value}
    return RateLimit.Action(extension={"name": _EXPRESSION, "typed_config": typed})


def generic(key: str, value: str) -> Message:
    """Returns an entry that says the same of every request."""
    return RateLimit.Action(generic_key=RateLimit.Action.GenericKey(descriptor_key=key, descriptor_value=value))


def address_range(cidr: str) -> Mapping[str, Any]:
    """Returns the fields of Envoy's CidrRange."""
    network = ip_network(cidr, strict=False)
    return {"address_prefix": str(network.network_address), "prefix_len": {"value": network.prefixlen}}


def _set_limit(message: Any, source: ir.MetadataSource, tokens: Tokens) -> None:
    wanted = message.limit.dynamic_metadata.metadata_key
    wanted.key, *path = _steps(source, tokens)
    for step in path:
        wanted.path.add(key=step)


def _steps(source: ir.MetadataSource, tokens: Tokens) -> Sequence[str]:
    """Returns the namespace, and the steps of the key: the claims of a token stand under the id of its provider, and
    are asked for by its name.
    """
    first, *rest = source.key.split(":")
    return source.namespace, tokens.get(first, first) if source.of_token else first, *rest


def _header_key(selector: ir.ValueSelector) -> str:
    return f"header_{selector.name.lower()}"


def _headers_match(key: str, matchers: list[Any], *, expected: bool) -> Message:
    match = RateLimit.Action.HeaderValueMatch(
        descriptor_key=key, descriptor_value=MATCHED, expect_match={"value": expected}, headers=matchers
    )
    return RateLimit.Action(header_value_match=match)


def _query(selector: ir.ValueSelector, index: int) -> Message:
    key = f"{_QUERY_KEY}{index}"
    if selector.kind == "Distinct":
        found = RateLimit.Action.QueryParameters(query_parameter_name=selector.name, descriptor_key=key)
        return RateLimit.Action(query_parameters=found)
    match = RateLimit.Action.QueryParameterValueMatch(
        descriptor_key=key,
        descriptor_value=MATCHED,
        expect_match={"value": not selector.invert},
        query_parameters=[{"name": selector.name, "string_match": _string(selector)}],
    )
    return RateLimit.Action(query_parameter_value_match=match)


def _source(source: ir.SourceSelector, index: int) -> Message:
    match = RateLimit.Action.RemoteAddressMatch(
        descriptor_key=f"{_SOURCE_KEY}{index}",
        descriptor_value=MATCHED,
        address_matcher={"ranges": [address_range(source.cidr)], "invert_match": source.invert},
    )
    return RateLimit.Action(remote_address_match=match)


def _others(rule: ir.LimitRule) -> Iterator[ir.ValueSelector]:
    """Yields the headers that must not have a value."""
    return (each for each in rule.headers if each.invert)


def _header_matchers(rule: ir.LimitRule) -> Iterable[Message]:
    for each in rule.headers:
        if each.kind != "Distinct" and not each.invert:
            yield _HeaderMatcher(name=each.name, string_match=_string(each))
    for path in rule.paths:
        yield _HeaderMatcher(name=":path", string_match=_regex(path_regex(path)), invert_match=path.invert)
    for methods in rule.methods:
        matcher = _method(methods)
        if matcher is not None:
            yield matcher


def _method(methods: ir.MethodSelector) -> Message | None:
    """Returns what matches one of several methods or their opposites; None where every method does."""
    wanted = {method for method, invert in methods if not invert}
    unwanted = {method for method, invert in methods if invert}
    if len(unwanted) > 1 or unwanted & wanted:
        return None
    if unwanted:
        return _HeaderMatcher(name=":method", string_match={"exact": unwanted.pop()}, invert_match=True)
    return _HeaderMatcher(name=":method", string_match=_regex("|".join(sorted(wanted))))


def _string(selector: ir.ValueSelector) -> Message:
    return _regex(selector.value) if selector.kind == "RegularExpression" else _StringMatcher(exact=selector.value)


def _regex(expression: str) -> Message:
    return _StringMatcher(safe_regex={"regex": expression})
