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


def build_domain(name: str, on_store_error: OnStoreError, descriptors: Sequence[DraftDescriptor]) -> Domain:
    """Returns the domain; faults go to the drafts' `report`, and a descriptor at fault is left out."""
    return Domain(name, _node(name, "", None, descriptors), on_store_error)


def _node(domain: str, path: str, rule: Rule | None, drafts: Sequence[DraftDescriptor]) -> Node:
    children: dict[tuple[str, str | None], Node] = {}
    wildcards: dict[tuple[str, str], Node] = {}
    for draft in drafts:
        if not draft.key:
            draft.report("key", "must not be empty")
            continue
        own = f"{draft.key}_{draft.value}" if draft.value else draft.key
        below = f"{path}.{own}" if path else own
        prefix = draft.value[:-1] if draft.value.endswith("*") else None
        if (draft.key, draft.value or None) in children or (prefix is not None and (draft.key, prefix) in wildcards):
            draft.report("key", f"descriptor {below!r} is there twice")
            continue
        limit = _checked(draft, replace(draft.rule, domain=domain, path=below) if draft.rule else None)
        node = _node(domain, below, limit, draft.children)
        if prefix is not None:
            wildcards[draft.key, prefix] = node
        else:
            children[draft.key, draft.value or None] = node
    return Node(rule, children, tuple((key, prefix, node) for (key, prefix), node in wildcards.items()))


def _checked(draft: DraftDescriptor, rule: Rule | None) -> Rule | None:
    if rule is None:
        return None
    if rule.name and rule.name in rule.replaces:
        draft.report("rate_limit.replaces", f"{rule.name!r} is the limit itself")
    fault = rule.fault()
    if fault is not None:
        draft.report(f"rate_limit.{fault[0]}", fault[1])
    return rule
