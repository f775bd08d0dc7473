# pyright: standard, reportAttributeAccessIssue=false
"""What Envoy makes of a request is what the limit expects, entry by entry."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from envoy.extensions.rate_limit_descriptors.expr.v3.expr_pb2 import Descriptor
from hypothesis import given, settings

from controlplane import ir
from controlplane.translate.claims import value
from controlplane.translate.descriptors import actions, levels, rate_limits

TOKENS = {"main": "1a2b", "other": "3c4d"}
names = st.sampled_from(["x-a", "x-b", "X-A"])
values = st.builds(
    ir.ValueSelector, names, st.sampled_from(["Exact", "RegularExpression", "Distinct"]), st.just("v"), st.booleans()
).map(lambda each: ir.ValueSelector(each.name, "Distinct") if each.kind == "Distinct" else each)
claims = st.one_of(
    st.builds(ir.ClaimSelector, st.sampled_from(["sub", "org.id"]), st.just("Distinct")),
    st.builds(
        ir.ClaimSelector,
        st.sampled_from(["sub", "org.id"]),
        st.just("Exact"),
        st.just(("a", "b")),
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, "main"]),
    ),
)
method = st.tuples(st.sampled_from(["GET", "PUT"]), st.booleans())
methods = st.lists(method, min_size=1, max_size=2).map(tuple)
rules = st.builds(
    ir.LimitRule,
    st.just(1),
    st.just("Day"),
    headers=st.lists(values, max_size=3).map(tuple),
    query=st.lists(values, max_size=2).map(tuple),
    methods=st.lists(methods, max_size=2).map(tuple),
    paths=st.lists(st.builds(ir.PathRule, st.just("PathPrefix"), st.just("/a"), st.booleans()), max_size=1).map(tuple),
    sources=st.lists(
        st.builds(ir.SourceSelector, st.sampled_from(["10.0.0.0/8", "2001:db8::/32"]), st.booleans(), st.booleans()),
        max_size=2,
    ).map(tuple),
    claims=st.lists(claims, max_size=2).map(tuple),
)


@given(rules)
@settings(deadline=None)
def test_each_action_makes_the_entry_that_the_limit_expects(rule: ir.LimitRule) -> None:
    made = [(_key(each), _fixed_value(each)) for each in actions(rule, TOKENS)]
    expected = [(key, value) for key, value in levels(rule)]
    assert [key for key, _ in made] == [key for key, _ in expected]
    for (_, sent), (_, wanted) in zip(made, expected, strict=True):
        assert sent in (wanted, None)


def _key(action: Any) -> str:
    kind = action.WhichOneof("action_specifier")
    if kind == "remote_address":
        return kind
    if kind == "extension":
        config = action.extension.typed_config
        return Descriptor.FromString(config.value).descriptor_key
    return getattr(action, kind).descriptor_key


def _fixed_value(action: Any) -> str | None:
    """What the entry always has; empty where that differs from request to request, None where it is not known."""
    kind = action.WhichOneof("action_specifier")
    if kind == "extension":
        return None
    return getattr(getattr(action, kind), "descriptor_value", "")


def test_a_rule_about_claims_of_nobody_makes_no_descriptor() -> None:
    rule = ir.LimitRule(1, "Day", claims=(ir.ClaimSelector("sub", "Distinct", provider="elsewhere"),))
    assert list(rate_limits(0, rule, tokens=TOKENS)) == []
    assert list(rate_limits(0, rule, tokens={})) == []


@pytest.mark.parametrize(
    ("selector", "tokens", "expression"),
    [
        (
            ir.ClaimSelector("sub", "Distinct", provider="main"),
            TOKENS,
            'metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1a2b"]["sub"]',
        ),
        (
            ir.ClaimSelector('a"b', "Exact", ("7", "true", "x\n'ß")),
            {"main": "1"},
            "{true: 'matched'}["
            '(metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"]["a\\"b"] in '
            '["7", 7.0, "true", true, "x\\n\'ß"])]',
        ),
        (
            ir.ClaimSelector("a.b", "Exact", ("x",), array=True, invert=True),
            {"main": "1"},
            "{true: 'matched'}[!(("
            '"envoy.filters.http.jwt_authn" in metadata.filter_metadata && '
            '"1" in metadata.filter_metadata["envoy.filters.http.jwt_authn"] && '
            '"a" in metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"] && '
            'type(metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"]["a"]) == map && '
            '"b" in metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"]["a"] && '
            'type(metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"]["a"]["b"]) == list && '
            '("x" in metadata.filter_metadata["envoy.filters.http.jwt_authn"]["1"]["a"]["b"])))]',
        ),
    ],
)
def test_an_expression_holds_names_and_values_as_they_are(
    selector: ir.ClaimSelector, tokens: dict[str, str], expression: str
) -> None:
    assert value(selector, tokens) == expression


def test_what_a_response_costs_has_a_descriptor_that_is_sent_when_it_is_done() -> None:
    metadata = ir.MetadataSource("llm", "usage:total")
    claim = ir.MetadataSource("envoy.filters.http.jwt_authn", "main:limits:day", of_token=True)
    rule = ir.LimitRule(9, "Day", cost=0, response_cost=metadata, limit_from=claim)
    before, after = rate_limits(4, rule, tokens=TOKENS, scope="r")
    assert (before.apply_on_stream_done, after.apply_on_stream_done) == (False, True)
    assert (before.hits_addend.number.value, after.hits_addend.format) == (0, "%DYNAMIC_METADATA(llm:usage:total)%")
    assert before.hits_addend.HasField("number")
    assert list(before.actions) == list(after.actions)
    for each in (before, after):
        assert [step.key for step in each.limit.dynamic_metadata.metadata_key.path] == ["1a2b", "limits", "day"]
