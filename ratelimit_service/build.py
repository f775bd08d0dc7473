"""Builds the tree of descriptors from drafts, the form that files and xDS are read into, and finds what clashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ratelimit_service.model import Domain, Fault, Node, OnStoreError, Rule

MAX_DEPTH = 32
MAX_DESCRIPTORS = 100_000

Report = Callable[[str, str], None]
"""Takes the field, relative to what it is called for, and the message."""


@dataclass(frozen=True, slots=True)
class DraftDescriptor:
    """A descriptor as it was written; `report` notes a fault at its place."""

    key: str
    value: str
    rule: Callable[[Place], Rule | None] | None
    """Reads its limit, which then knows where it is; None where it has none."""
    children: Iterable[DraftDescriptor]
    """Read as they are asked for, once: a large file is never there as drafts all at a time."""
    report: Report
    value_to_metric: bool = False
    share_threshold: bool = False

    @property
    def name(self) -> str:
        """What envoyproxy/ratelimit knows it by, in its parent and in metrics."""
        return f"{self.key}_{self.value}" if self.value else self.key


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the tree a descriptor is, and what it has from those above it."""

    domain: str
    path: str = ""
    depth: int = 0
    shared: tuple[tuple[int, str], ...] = ()
    value_to_metric: bool = False

    def below(self, draft: DraftDescriptor) -> Place:
        shared = (*self.shared, (self.depth, draft.name)) if draft.share_threshold else self.shared
        path = f"{self.path}.{draft.name}" if self.path else draft.name
        told = self.value_to_metric or draft.value_to_metric or (draft.name.endswith("*") and not draft.value)
        return Place(self.domain, path, self.depth + 1, shared, told)


def build_domain(name: str, on_store_error: OnStoreError, descriptors: Iterable[DraftDescriptor]) -> Domain:
    """Returns the domain; faults go to the drafts' `report`, and a descriptor at fault is left out."""
    return Domain(name, _node(Node(), Place(name), descriptors), on_store_error)


@dataclass(frozen=True, slots=True)
class Part:
    """A domain as one source gives it, and where."""

    domain: Domain
    source: str
    line: int = 0


def join(parts: Iterable[Part], *, merge_domains: bool, kind: str) -> tuple[dict[str, Domain], list[Fault]]:
    """Returns the domains by name; two parts of one are a fault, or with `merge_domains` two of a descriptor.

    `kind` is what the sources are called, files or resources.
    """
    domains: dict[str, Domain] = {}
    places: dict[str, str] = {}
    faults: list[Fault] = []
    for part in parts:
        domain, name = part.domain, part.domain.name
        before = domains.get(name)
        if before is not None and merge_domains:
            domain, twice = _merge(before, domain)
            message = f"is in another {kind} too"
            faults += (Fault(part.source, part.line, "descriptors", f"{each!r} {message}") for each in twice)
        elif before is not None:
            faults.append(Fault(part.source, part.line, "domain", f"{name!r} is in {places[name]} too"))
        places.setdefault(name, f"{part.source}:{part.line}" if part.line else part.source)
        domains[name] = domain
    return domains, faults


def retained(domain: Domain, before: Domain | None) -> Domain:
    """Returns the domain with all that is as it was `before` taken from there: it keeps its limits and counters."""
    if before is None or domain is before:
        return domain
    root = _retained(domain.root, before.root)
    return before if replace(domain, root=before.root) == before and root is before.root else replace(domain, root=root)


def _retained(node: Node, before: Node) -> Node:
    if node is before:
        return node
    rule = before.rule if node.rule == before.rule else node.rule
    children = {
        name: child if (was := before.children.get(name)) is None else _retained(child, was)
        for name, child in node.children.items()
    }
    wildcards = tuple((prefix, children[child.name]) for prefix, child in node.wildcards)
    if (
        rule is before.rule
        and (node.value_to_metric, node.share_threshold) == (before.value_to_metric, before.share_threshold)
        and len(children) == len(before.children)
        and all(child is before.children.get(name) for name, child in children.items())
        # The first one that fits is taken: their order counts too.
        and [prefix for prefix, _ in wildcards] == [prefix for prefix, _ in before.wildcards]
    ):
        return before
    return replace(node, rule=rule, children=children, wildcards=wildcards)


def _merge(first: Domain, second: Domain) -> tuple[Domain, list[str]]:
    """Returns a domain with the descriptors of both, and the names of those that are in both."""
    children = {**second.root.children, **first.root.children}
    twice = [name for name in second.root.children if name in first.root.children]
    root = replace(first.root, children=children, wildcards=first.root.wildcards + second.root.wildcards)
    return replace(first, root=root), twice


def _node(own: Node, place: Place, drafts: Iterable[DraftDescriptor]) -> Node:
    children: dict[str, Node] = {}
    for draft in drafts:
        below = place.below(draft)
        fault = ""
        if not draft.key:
            fault = "must not be empty"
        elif draft.name in children:
            fault = f"descriptor {below.path!r} is there twice"
        if fault:
            draft.report("key", fault)
            # What else is wrong with it, and below it, is told all the same.
            _checked(draft, below)
            _node(Node(), below, draft.children)
            continue
        if draft.share_threshold and not draft.name.endswith("*"):
            draft.report("share_threshold", "applies to a value that ends with * alone")
        child = Node(
            draft.name,
            _checked(draft, below),
            value_to_metric=draft.value_to_metric,
            share_threshold=draft.share_threshold,
        )
        children[draft.name] = _node(child, below, draft.children)
    wildcards = tuple((name[:-1], child) for name, child in children.items() if name.endswith("*"))
    return replace(own, children=children, wildcards=wildcards) if children else own


def _checked(draft: DraftDescriptor, place: Place) -> Rule | None:
    rule = draft.rule(place) if draft.rule is not None else None
    if rule is None:
        return None
    if rule.name and rule.name in rule.replaces:
        draft.report("rate_limit.replaces", f"{rule.name!r} is the limit itself")
    fault = rule.fault()
    if fault is not None:
        draft.report(f"rate_limit.{fault[0]}", fault[1])
    return rule
