"""Builds the tree of descriptors from drafts, the form that files and xDS are read into, and finds what clashes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ratelimit_service.model import Domain, Node, OnStoreError, Rule

MAX_DEPTH = 32
MAX_DESCRIPTORS = 100_000

Report = Callable[[str, str], None]
"""Takes the field, relative to what it is called for, and the message."""


@dataclass(frozen=True, slots=True)
class DraftDescriptor:
    """A descriptor as it was written; `report` notes a fault at its place."""

    key: str
    value: str
    rule: Rule | None
    children: Sequence[DraftDescriptor]
    report: Report
    value_to_metric: bool = False
    share_threshold: bool = False

    @property
    def name(self) -> str:
        """What envoyproxy/ratelimit knows it by, in its parent and in metrics."""
        return f"{self.key}_{self.value}" if self.value else self.key


@dataclass(frozen=True, slots=True)
class _Place:
    """Where in the tree a descriptor is, and what it has from those above it."""

    domain: str
    path: str = ""
    depth: int = 0
    shared: tuple[tuple[int, str], ...] = ()
    value_to_metric: bool = False

    def below(self, draft: DraftDescriptor) -> _Place:
        shared = (*self.shared, (self.depth, draft.name)) if draft.share_threshold else self.shared
        path = f"{self.path}.{draft.name}" if self.path else draft.name
        told = self.value_to_metric or draft.value_to_metric or (draft.name.endswith("*") and not draft.value)
        return _Place(self.domain, path, self.depth + 1, shared, told)


def build_domain(name: str, on_store_error: OnStoreError, descriptors: Sequence[DraftDescriptor]) -> Domain:
    """Returns the domain; faults go to the drafts' `report`, and a descriptor at fault is left out."""
    return Domain(name, _node(Node(), _Place(name), descriptors), on_store_error)


def merge(first: Domain, second: Domain) -> tuple[Domain, list[str]]:
    """Returns a domain with the descriptors of both, and the names of those that are in both."""
    children = {**second.root.children, **first.root.children}
    twice = [name for name in second.root.children if name in first.root.children]
    root = replace(first.root, children=children, wildcards=first.root.wildcards + second.root.wildcards)
    return replace(first, root=root), twice


def _node(own: Node, place: _Place, drafts: Sequence[DraftDescriptor]) -> Node:
    children: dict[str, Node] = {}
    for draft in drafts:
        if not draft.key:
            draft.report("key", "must not be empty")
            continue
        below = place.below(draft)
        if draft.name in children:
            draft.report("key", f"descriptor {below.path!r} is there twice")
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


def _checked(draft: DraftDescriptor, place: _Place) -> Rule | None:
    if draft.rule is None:
        return None
    rule = replace(
        draft.rule,
        domain=place.domain,
        path=place.path,
        shared=place.shared,
        value_to_metric=place.value_to_metric,
    )
    if rule.name and rule.name in rule.replaces:
        draft.report("rate_limit.replaces", f"{rule.name!r} is the limit itself")
    fault = rule.fault()
    if fault is not None:
        draft.report(f"rate_limit.{fault[0]}", fault[1])
    return rule
