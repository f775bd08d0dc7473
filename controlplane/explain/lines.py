"""An explanation as lines of text, each with how it is to look: what `dragoman explain` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from controlplane.explain.model import Candidate, Check, Explanation, Outcome, Quota, Source

Style = Literal["title", "plain", "good", "bad", "dim"]


class Line(NamedTuple):
    """One line: indented by `depth` steps."""

    depth: int
    style: Style
    text: str


def lines(explanation: Explanation) -> Iterator[Line]:
    """Yields what there is to say, the outcome first."""
    outcome, chosen = explanation.outcome, explanation.chosen
    yield Line(0, "title", explanation.request)
    yield Line(1, "good" if outcome.kind in ("forward", "redirect", "passed on") else "bad", outcome.words)
    if explanation.listener is not None:
        listener = explanation.listener
        name = f"{listener.gateway} {listener.name}".strip()
        yield Line(0, "title", "Listener")
        yield Line(1, "plain", f"{name} ({listener.protocol} {listener.port}): {listener.why}")
        yield Line(1, "dim", _source(listener.source))
    if explanation.host is not None:
        yield Line(0, "title", "Virtual host")
        host = explanation.host
        yield Line(1, "plain", f"{host.domain or 'none'} of {host.configuration}: {host.why}")
    if chosen is not None:
        yield Line(0, "title", "Rule")
        yield Line(1, "good", f"{chosen.route}: {chosen.match}")
        yield Line(1, "dim", _source(chosen.source))
    yield from _candidates(explanation)
    yield from _misses(explanation)
    yield from _effects(explanation)
    if explanation.notes:
        yield Line(0, "title", "Notes")
        yield from (Line(1, "plain", note) for note in explanation.notes)


def _candidates(explanation: Explanation) -> Iterator[Line]:
    found = explanation.candidates
    if not found:
        return
    yield Line(
        0,
        "title",
        "Tried in this order" if explanation.chosen is not None else "The nearest, by their place in the order",
    )
    chosen = explanation.chosen
    for each in found:
        text = f"{each.rank}. {each.match}  [{each.source.object}]"
        if each.chosen:
            yield Line(1, "good", f"{text}: matches")
        elif chosen is not None and each.rank > chosen.rank:
            why = "would match, but comes later" if each.matches else _why_not(each)
            yield Line(1, "dim", f"{text}: not tried; {why}")
        else:
            yield Line(1, "plain", f"{text}: {_why_not(each)}")
            if chosen is None:
                yield Line(2, "dim", _source(each.source))
    if explanation.omitted:
        yield Line(1, "dim", f"and {explanation.omitted} more that are farther off")


def _misses(explanation: Explanation) -> Iterator[Line]:
    if not explanation.misses:
        return
    yield Line(0, "title", "Would match, but are not served here")
    for miss in explanation.misses:
        yield Line(1, "bad", f"{miss.match}  [{miss.source.object}]: {miss.why}")
        yield Line(2, "dim", _source(miss.source))


def _effects(explanation: Explanation) -> Iterator[Line]:
    if explanation.filters:
        yield Line(0, "title", "Filters, in order")
    for each in explanation.filters:
        by = "; ".join(_source(source) for source in each.sources)
        yield Line(1, "plain", f"{each.name}: {each.does}")
        if by:
            yield Line(2, "dim", by)
    if explanation.policies:
        yield Line(0, "title", "Policies in force")
    for each in explanation.policies:
        yield Line(1, "bad" if each.field == "deny" else "plain", f"{each.field}: {each.value}")
        yield Line(2, "dim", _source(each.source))
    yield from _quotas(explanation.quotas)
    yield from _backends(explanation.outcome)


def _quotas(quotas: Sequence[Quota]) -> Iterator[Line]:
    if quotas:
        yield Line(0, "title", "Limits with mode Quota")
    for each in quotas:
        if each.by_share:
            verdict = {True: "counts this request", False: "does not count it", None: "may count it"}[each.counts]
            yield Line(1, "plain", ": ".join(filter(None, (each.rule, verdict, each.why))))
            yield Line(2, "plain", each.where)
            yield Line(2, "plain", f"bucket {', '.join(f'{key}={value}' for key, value in each.bucket.items())}")
        else:
            yield Line(1, "bad", f"{each.rule}: {each.why or each.where}")
        yield Line(2, "dim", _source(each.source))


def _backends(outcome: Outcome) -> Iterator[Line]:
    if outcome.backends:
        yield Line(0, "title", "Backends")
    for each in outcome.backends:
        share = f" {each.percent:g} %" if len(outcome.backends) > 1 else ""
        yield Line(1, "plain" if each.cluster else "bad", f"{each.object}{share}")
        if each.cluster is not None:
            yield Line(2, "plain", f"cluster {each.cluster}: {', '.join(each.endpoints) or 'no endpoint'}")
        if each.note:
            yield Line(2, "dim", each.note)
    if outcome.details:
        yield Line(0, "title", "On the way")
    yield from (Line(1, "plain", detail) for detail in outcome.details)


def _why_not(candidate: Candidate) -> str:
    return "; ".join(_check(check) for check in candidate.checks if not check.holds)


def _check(check: Check) -> str:
    given = "is not given" if check.given is None else f"is {check.given}"
    return f"{check.what} {given}, wanted {check.wanted}"


def _source(source: Source) -> str:
    return "  ".join(part for part in (source.object, source.field, source.place) if part)
