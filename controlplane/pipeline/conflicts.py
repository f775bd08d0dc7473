"""Routes that ask for the same requests or connections: which of them has them, and what is said on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from controlplane import ir
from controlplane.api.meta import ObjectKey
from controlplane.compile.attachment import Attached
from controlplane.compile.compiled import CompiledRoute
from controlplane.compile.protocols import STREAM_ROUTES
from controlplane.conditions import Condition
from controlplane.graph import Graph, Index, Posting
from controlplane.pipeline.attachments import Age

_Claim = tuple[ObjectKey, str, str, ir.Match | None]
"""Gateway, listener, domain, and what is asked for there; None asks for all connections."""


class Conflicts:
    """Finds routes whose match is another's too; the older has the requests, then the first by `NAMESPACE/NAME`.

    Gateway API has no condition for this: nothing is wrong with either route, yet one rule is never reached.
    """

    def __init__(self, graph: Graph, *, age: Callable[[ObjectKey], Age]) -> None:
        self._age = age
        self._claims: Index[_Claim, ObjectKey] = graph.index("claims")

    def of(self, key: ObjectKey, compiled: CompiledRoute, parent: Sequence[Attached]) -> Condition | None:
        """Returns what is to be said of a route at some of its places; None where all its rules may be reached."""
        lost: dict[str, tuple[ObjectKey, str]] = {}
        matches = _matches(key, compiled)
        for place in parent:
            for number, match in enumerate(matches):
                for domain in place.domains:
                    members = self._claims.get((place.gateway, place.listener, domain, match))
                    if len(members) > 1:
                        first = min(members, key=self._age)
                        if first != key:
                            lost.setdefault(_field(compiled, number), (first, domain))
        if not lost:
            return None
        field, (winner, domain) = next(iter(lost.items()))
        more = f" (and {len(lost) - 1} more matches of this route are taken)" if len(lost) > 1 else ""
        what = f"the same match on {'every host' if domain == '*' else domain}"
        if key.kind in STREAM_ROUTES:
            what = "all that comes to the listener" if domain == "*" else f"the connections to {domain}"
        message = f"{winner} has {what} and comes first{more}"
        return Condition("Conflicted", "True", "RouteConflict", message, field)

    def postings(self, key: ObjectKey, compiled: CompiledRoute, places: Sequence[Attached]) -> Iterable[Posting]:
        """Yields what a route asks for at its places."""
        for match in _matches(key, compiled) if places else ():
            for place in places:
                for domain in place.domains:
                    yield self._claims, (place.gateway, place.listener, domain, match), key


def _matches(key: ObjectKey, compiled: CompiledRoute) -> list[ir.Match | None]:
    if key.kind in STREAM_ROUTES:
        return [None]
    return [match for rule in compiled.rules for match in rule.matches]


def _field(compiled: CompiledRoute, number: int) -> str:
    """Returns the field of one of the matches, all rules' in a row."""
    for index, rule in enumerate(compiled.rules):
        if number < len(rule.matches):
            return f"spec.rules[{index}].matches[{number}]"
        number -= len(rule.matches)
    return "spec.rules[0]"
