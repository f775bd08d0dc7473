"""A route of any kind with its references resolved, whatever it is attached to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from controlplane.conditions import Condition
from controlplane.ir import ClusterId, Forward, Rule, WeightedBackend


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """The rules of a route, in its own order, and what is wrong with its references.

    HTTPRoutes and GRPCRoutes have `rules`; TLSRoutes, TCPRoutes and UDPRoutes have `backends`, among which their
    connections are shared out.
    """

    rules: tuple[Rule, ...] = ()
    faults: tuple[Condition, ...] = ()
    backends: tuple[WeightedBackend, ...] = ()

    def clusters(self) -> Iterable[ClusterId]:
        """Yields every cluster that the rules send requests or connections to."""
        for rule in self.rules:
            if isinstance(rule.action, Forward):
                yield from (b.cluster for b in rule.action.backends if b.cluster is not None)
                yield from (m.cluster for m in rule.action.mirrors)
        yield from (b.cluster for b in self.backends if b.cluster is not None)


def weighed(faults: Sequence[Condition], *, rules: int) -> tuple[Condition, ...]:
    """Returns the faults of a route with that many rules: where some rules are valid, the route is (PartiallyInvalid).

    Gateway API has such a message begin with "Dropped Rule"; here it is the answers of the rule that are dropped: its
    requests get an error, and do not fall to other rules, which may lack what this one asks for.
    """
    wrong = [each for each in faults if each.type == "Accepted"]
    if not wrong or len({each.field.partition("]")[0] for each in wrong}) >= rules:
        return tuple(faults)
    others = [each for each in faults if each.type != "Accepted"]
    return (*others, *(_dropped(each) for each in wrong))


def _dropped(fault: Condition) -> Condition:
    return Condition("PartiallyInvalid", "True", fault.reason, f"Dropped Rule: {fault.field}: {fault.message}")
