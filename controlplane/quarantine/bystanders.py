"""Which changes may go on during a search: what neither gets to the Envoys that are asked nor belongs to what waits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

from controlplane.api.meta import GATEWAY_GROUP, ObjectKey, Resource
from controlplane.pipeline.objects import Objects
from controlplane.quarantine.suspicion import is_policy, is_route
from controlplane.xds.identity import GRPC_SUFFIX, SERVICE_OWNERS

_DEPTH: Final = 4  # policy → route → ListenerSet → Gateway


class Node(NamedTuple):
    """An object as others name it; `*` stands for all of a kind in a namespace."""

    kind: str
    namespace: str
    name: str


class _Said(NamedTuple):
    """What an object says in one of its versions, or in all."""

    refs: frozenset[Node] = frozenset()  # what it names
    targets: frozenset[Node] = frozenset()  # what it applies to by itself, if it is a policy
    leads: frozenset[Node] = frozenset()  # through what it gets to Gateways
    anywhere: bool = False  # it is not known where it gets to

    def and_(self, other: _Said) -> _Said:
        return _Said(
            self.refs | other.refs,
            self.targets | other.targets,
            self.leads | other.leads,
            self.anywhere or other.anywhere,
        )


class Bystanders:
    """More is taken to be concerned than is: an object is held if any version of what it names leads there.

    Who belongs together waits together: a policy and what it is about, a route and the Backends that it names.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[ObjectKey, tuple[Resource | None, Resource | None, _Said]] = {}

    def among(
        self, waiting: Collection[ObjectKey], suspects: Collection[ObjectKey], owners: Iterable[str]
    ) -> list[ObjectKey]:
        """Returns those that wait for nothing when these are suspected, and the Envoys of these owners are asked."""
        owners = {owner.removesuffix(GRPC_SUFFIX) for owner in owners}
        if not waiting or owners & SERVICE_OWNERS:
            return []
        links = {key: self._links(key) for key in (*waiting, *suspects)}
        concerned = {Node("Gateway", *owner.split("/", 1)) for owner in owners}
        concerned |= {ref for key in suspects for ref in links[key].refs if ref.kind == "Gateway"}
        # Whoever has one of these in common with somebody who is held is held too.
        common = {_node(key) for key in links}.union(*(each.targets for each in links.values()))
        of_node: dict[Node, list[ObjectKey]] = {}
        for key, each in links.items():
            for node in _with_kinds({_node(key), *each.refs}) & common:
                of_node.setdefault(node, []).append(key)
        held = {key for key in waiting if links[key].anywhere or links[key].refs & concerned} | set(suspects)
        queue = list(held)
        while queue:
            key = queue.pop()
            for node in _with_kinds({_node(key), *links[key].refs}) & common:
                more = [each for each in of_node.pop(node, ()) if each not in held]
                held.update(more)
                queue += more
        return [key for key in waiting if key not in held]

    def _links(self, key: ObjectKey, depth: int = _DEPTH) -> _Said:
        """Returns what an object says, and all that it leads through."""
        found = self._own(key)
        anywhere = found.anywhere or depth == 0
        for node in found.leads if depth else ():
            if node.kind == "Gateway":
                continue
            further = ObjectKey(GATEWAY_GROUP, *node)
            if not (is_route(further) or node.kind == "ListenerSet") or self._objects.peek(further) is None:
                anywhere = True
                continue
            beyond = self._links(further, depth - 1)
            found = _Said(found.refs | beyond.refs, found.targets, found.leads)
            anywhere = anywhere or beyond.anywhere
        return found._replace(anywhere=anywhere)

    def _own(self, key: ObjectKey) -> _Said:
        admitted = self._objects.peek(key)
        newest, accepted = admitted.object if admitted is not None else None, self._objects.accepted.peek(key)
        known = self._known.get(key)
        if known is not None and known[0] is newest and known[1] is accepted:
            return known[2]
        said = [_said(key, version) for version in (newest, accepted) if version is not None]
        found = said[0] if said else _Said(anywhere=True)
        for each in said[1:]:
            found = found.and_(each)
        self._known[key] = (newest, accepted, found)
        return found


def _said(key: ObjectKey, version: Resource) -> _Said:
    spec = cast("Mapping[str, Any]", version.model_dump(by_alias=True).get("spec") or {})
    refs = frozenset(_refs(spec, key.namespace))
    if is_route(key):
        leads = frozenset(_refs(spec.get("parentRefs"), key.namespace))
        return _Said(refs, leads=leads, anywhere=not leads)
    if key.kind == "ListenerSet":
        leads = frozenset(_refs(spec.get("parentRef"), key.namespace))
        return _Said(refs, leads=leads, anywhere=not leads)
    if not is_policy(key):
        return _Said(refs, anywhere=True)  # Who names it is not looked for.
    named = frozenset(_refs([spec.get("targetRef"), spec.get("targetRefs")], key.namespace))
    chosen = frozenset(Node(each["kind"], key.namespace, "*") for each in spec.get("targetSelectors") or ())
    return _Said(refs, named | chosen, named, anywhere=bool(chosen) or not named)


def _node(key: ObjectKey) -> Node:
    return Node(key.kind, key.namespace, key.name)


def _with_kinds(nodes: Iterable[Node]) -> set[Node]:
    nodes = set(nodes)
    return nodes | {Node(kind, namespace, "*") for kind, namespace, _ in nodes}


def _refs(content: object, namespace: str) -> Iterator[Node]:
    """Yields everything that is named by kind and name in a part of an object."""
    if isinstance(content, Mapping):
        fields = cast("Mapping[str, Any]", content)
        kind, name = fields.get("kind"), fields.get("name")
        if isinstance(kind, str) and isinstance(name, str):
            yield Node(kind, str(fields.get("namespace") or namespace), name)
        for each in fields.values():
            if isinstance(each, (Mapping, list, tuple)):
                yield from _refs(cast("object", each), namespace)
    elif isinstance(content, (list, tuple)):
        for each in cast("Iterable[object]", content):
            yield from _refs(each, namespace)
