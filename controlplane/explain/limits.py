"""Limits in words: how much, for whom, and what counts apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from controlplane import ir


def in_words(rules: Iterable[ir.LimitRule]) -> str:
    """Says what rules limit: `5 requests a minute with x-plan: gold, for each x-user`."""
    return ", ".join(map(_rule, rules))


def _rule(rule: ir.LimitRule) -> str:
    number = f"{rule.requests} requests {_article(rule.unit)}"
    if rule.limit_from is not None:
        number += f" (or as metadata {rule.limit_from.namespace} {rule.limit_from.key} says)"
    costs = [_cost(rule.cost, "request") if rule.cost != 1 else "", _cost(rule.response_cost, "response")]
    parts = [
        " and ".join(filter(None, [*_conditions(rule)])),
        f"for each {' and '.join(apart)}" if (apart := [*_apart(rule)]) else "",
        *costs,
        "for all routes together" if rule.shared else "",
        "nobody is refused" if rule.shadow else "",
    ]
    first, *rest = parts
    return ", ".join(filter(None, [f"{number} {first}".strip(), *rest]))


def _conditions(rule: ir.LimitRule) -> Iterator[str]:
    yield from (f"with {_compared(each)}" for each in rule.headers if each.kind != "Distinct")
    yield from (f"with the parameter {_compared(each)}" for each in rule.query if each.kind != "Distinct")
    for methods in rule.methods:
        yield "by " + " or ".join(f"{'not ' if invert else ''}{method}" for method, invert in methods)
    yield from (f"to paths {'other than' if each.invert else 'of'} {each.value}" for each in rule.paths)
    yield from (f"from {'outside of ' if each.invert else ''}{each.cidr}" for each in rule.sources)
    for claim in rule.claims:
        if claim.kind != "Distinct":
            yield f"with the claim {claim.claim} {'not ' if claim.invert else ''}{' or '.join(claim.values)}"


def _apart(rule: ir.LimitRule) -> Iterator[str]:
    yield from (each.name for each in rule.headers if each.kind == "Distinct")
    yield from (f"parameter {each.name}" for each in rule.query if each.kind == "Distinct")
    yield from ("client's address" for each in rule.sources if each.distinct)
    yield from (f"claim {each.claim}" for each in rule.claims if each.kind == "Distinct")


def _compared(selector: ir.ValueSelector) -> str:
    sign = {(False, False): ":", (False, True): " not", (True, False): " like", (True, True): " not like"}
    return f"{selector.name}{sign[selector.kind == 'RegularExpression', selector.invert]} {selector.value}"


def _cost(cost: int | ir.MetadataSource | None, what: str) -> str:
    if cost is None:
        return ""
    return f"a {what} counts {cost if isinstance(cost, int) else f'as metadata {cost.namespace} {cost.key} says'}"


def _article(unit: str) -> str:
    return f"{'an' if unit == 'Hour' else 'a'} {unit.lower()}"
