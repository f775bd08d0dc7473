"""Limits in words."""

from __future__ import annotations

import pytest

from controlplane import ir
from controlplane.explain.limits import in_words

GOLD = ir.ValueSelector("x-plan", "Exact", "gold")
USER = ir.ValueSelector("x-user", "Distinct")


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (ir.LimitRule(5, "Minute"), "5 requests a minute"),
        (ir.LimitRule(5, "Minute", headers=(GOLD, USER)), "5 requests a minute with x-plan: gold, for each x-user"),
        (
            ir.LimitRule(
                1,
                "Day",
                headers=(ir.ValueSelector("x-a", "RegularExpression", "b+", invert=True),),
                methods=((("GET", False), ("HEAD", True)),),
                paths=(ir.PathRule("PathPrefix", "/a", invert=True),),
                sources=(ir.SourceSelector("10.0.0.0/8", distinct=True, invert=True),),
                query=(ir.ValueSelector("q", "Exact", "1"), ir.ValueSelector("page", "Distinct")),
                claims=(
                    ir.ClaimSelector("org.plan", "Exact", ("free", "trial"), invert=True),
                    ir.ClaimSelector("sub", "Distinct"),
                ),
            ),
            "1 requests a day with x-a not like b+ and with the parameter q: 1 and by GET or not HEAD and to paths "
            "other than /a and from outside of 10.0.0.0/8 and with the claim org.plan not free or trial, for each "
            "parameter page and client's address and claim sub",
        ),
        (
            ir.LimitRule(
                100,
                "Day",
                cost=0,
                response_cost=ir.MetadataSource("llm", "total"),
                limit_from=ir.MetadataSource("llm", "budget"),
                shared=True,
                shadow=True,
            ),
            "100 requests a day (or as metadata llm budget says), a request counts 0, a response counts as metadata "
            "llm total says, for all routes together, nobody is refused",
        ),
    ],
)
def test_a_limit_is_told_with_whom_it_is_about_and_what_counts_apart(rule: ir.LimitRule, words: str) -> None:
    assert in_words((rule,)) == words
    assert in_words((rule, ir.LimitRule(9, "Hour"))) == f"{words}, 9 requests an hour"
