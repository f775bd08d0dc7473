"""Between sources and engine: Ingresses are joined by what they expand to, and that follows what it depends on.

An expansion depends on the Ingress, its class, the listeners of the Gateway that the class names, the named ports of
Services, and the Ingresses of its namespace that name the same hosts: for one certificate a host, and for canaries.
What changes expands those again that depended on it, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from controlplane.api.ingress import (
    INGRESS_CONTROLLER,
    Ingress,
    IngressClass,
)
from controlplane.api.load import load
from controlplane.api.meta import GATEWAY_GROUP, INGRESS_GROUP, ObjectKey
from controlplane.compile.ingress import Carrier, Context, expand
from controlplane.compile.ingress_documents import EXPANDED_FROM, RESERVED_PREFIX, Made, Place
from controlplane.compile.ingress_hosts import hosts_of, is_canary, tls_secrets
from controlplane.compile.ingress_relations import (
    Ports,
    Sections,
    Token,
    class_key,
    gateway_of,
    in_order,
    is_default,
    named_ports,
    ports,
    sections,
    tokens,
)
from controlplane.conditions import Condition, false
from controlplane.sources.changes import Changes, Origin, RawObject

Accepted = Callable[[ObjectKey], Any]
"""Returns what was last accepted of an object that cannot be read as it is; None where nothing was."""
_Owners = Mapping[ObjectKey, tuple[str, str]]
"""Gateway → the Ingress whose certificate serves a host there, and its Secret."""
_NO_CLASS: Final = ""


@dataclass(slots=True)
class _Known:
    """An Ingress that there is, and what is known of what it has to do with others."""

    origin: Origin
    ingress: Ingress | None
    refused: RawObject | None = None
    """Its newest version, where that cannot be read and `ingress` stands in for it."""
    canary: bool = False
    has: frozenset[Token] = frozenset()
    heeds: frozenset[Token] = frozenset()
    services: frozenset[str] = frozenset()
    carrier: Carrier | None = None
    ours: bool = False
    not_carried: tuple[Condition, ...] = ()
    warnings: tuple[Condition, ...] = ()


@dataclass(slots=True)
class Expander:
    """`take` changes of a source, and give what it returns to the engine; then ask what became of each Ingress."""

    accepted: Accepted = lambda key: None
    expanded: tuple[ObjectKey, ...] = ()
    """The Ingresses that the newest changes have expanded again, or that went with them."""
    _ingresses: dict[ObjectKey, _Known] = field(default_factory=dict[ObjectKey, _Known])
    _heeding: dict[Token, set[ObjectKey]] = field(default_factory=dict[Token, set[ObjectKey]])
    _owners: dict[Token, _Owners] = field(default_factory=dict[Token, "_Owners"])
    _having: dict[Token, set[ObjectKey]] = field(default_factory=dict[Token, set[ObjectKey]])
    _of_class: dict[str, set[ObjectKey]] = field(default_factory=dict[str, set[ObjectKey]])
    _users: dict[ObjectKey, set[ObjectKey]] = field(default_factory=dict[ObjectKey, set[ObjectKey]])
    _classes: dict[ObjectKey, IngressClass] = field(default_factory=dict[ObjectKey, IngressClass])
    _gateways: dict[ObjectKey, tuple[tuple[str, str], ...]] = field(
        default_factory=dict[ObjectKey, tuple[tuple[str, str], ...]]
    )
    _services: dict[ObjectKey, Ports] = field(default_factory=dict[ObjectKey, Ports])
    _taken: set[ObjectKey] = field(default_factory=set[ObjectKey])
    _makers: dict[ObjectKey, ObjectKey] = field(default_factory=dict[ObjectKey, ObjectKey])
    _made: dict[ObjectKey, dict[ObjectKey, Made]] = field(default_factory=dict[ObjectKey, "dict[ObjectKey, Made]"])
    _held: dict[ObjectKey, tuple[Any, Origin]] = field(default_factory=dict[ObjectKey, "tuple[Any, Origin]"])
    _touched: set[Token] = field(default_factory=set[Token])
    _dirty: dict[ObjectKey, None] = field(default_factory=dict[ObjectKey, None])

    def take(self, changes: Changes) -> Changes:
        """Returns the changes with what follows of them for what Ingresses expand to."""
        given = tuple(raw for raw in changes.upserted if not _is_expanded(raw))
        for raw in given:
            self._upsert(raw)
        for key in changes.removed:
            self._remove(key)
        self.expanded = ()
        if not self._dirty and not self._touched and len(given) == len(changes.upserted):
            return changes
        made, gone = self._expand_again()
        upserted = {raw.key for raw in made}
        removed = (key for key in changes.removed if key not in upserted and (key not in self._makers))
        return replace(changes, upserted=(*given, *made), removed=tuple(dict.fromkeys((*removed, *gone))))

    def again(self, key: ObjectKey) -> Changes:
        """Returns what follows of it that another version stands in for an Ingress that is refused."""
        known = self._ingresses.get(key)
        if known is None or known.refused is None:
            return Changes()
        self._forget(key)
        self._learn(known.refused)
        made, gone = self._expand_again()
        return Changes(upserted=tuple(made), removed=tuple(gone))

    # What became of Ingresses

    def is_made(self, key: ObjectKey) -> bool:
        """Says whether an object is one that an Ingress expands to."""
        return key in self._makers and key not in self._taken

    def maker_of(self, key: ObjectKey) -> ObjectKey | None:
        """Returns the Ingress that expands to an object."""
        return self._makers.get(key)

    def place_of(self, key: ObjectKey, path: str) -> Place | None:
        """Returns the field of an Ingress that is behind one of an object that it expands to."""
        made = self._made[self._makers[key]].get(key) if self.is_made(key) else None
        return made.place_of(path) if made is not None else None

    def made_of(self, key: ObjectKey) -> Iterable[Made]:
        """Returns what an Ingress expands to."""
        return [made for made in self._made.get(key, {}).values() if made.key not in self._taken]

    def warnings_of(self, key: ObjectKey) -> tuple[Condition, ...]:
        """Returns what of an Ingress has no effect."""
        known = self._ingresses.get(key)
        taken = (
            Condition("Conflicted", "True", "NameTaken", f"{made} is there already: this Ingress needs its name")
            for made in self._made.get(key, {})
            if made in self._taken
        )
        return (*known.warnings, *taken) if known is not None else ()

    def gateway_of(self, key: ObjectKey) -> ObjectKey | None:
        """Returns the Gateway that carries an Ingress."""
        known = self._ingresses.get(key)
        return known.carrier.gateway if known is not None and known.carrier is not None else None

    def is_ours(self, key: ObjectKey) -> bool:
        """Says whether an Ingress is of a class of ours."""
        known = self._ingresses.get(key)
        return known is not None and known.ours

    def take_expanded(self) -> tuple[ObjectKey, ...]:
        """Returns, once, the Ingresses that the newest changes have expanded again."""
        found, self.expanded = self.expanded, ()
        return found

    def keys(self) -> Iterable[ObjectKey]:
        """Returns every Ingress."""
        return self._ingresses.keys()

    def carried_by(self, gateway: ObjectKey) -> list[ObjectKey]:
        """Returns the Ingresses that a Gateway carries."""
        return [key for name in self._classes_of(gateway) for key in sorted(self._of_class.get(name, ()))]

    # What changes

    def _upsert(self, raw: RawObject) -> None:
        group, kind = raw.key.group, raw.key.kind
        if group == INGRESS_GROUP and kind == "Ingress":
            self._forget(raw.key)
            self._learn(raw)
        elif group == INGRESS_GROUP and kind == "IngressClass":
            loaded = load(raw.document).object or self.accepted(raw.key)
            self._set_class(raw.key, loaded if isinstance(loaded, IngressClass) else None)
        elif group == GATEWAY_GROUP and kind == "Gateway":
            self._set_gateway(raw.key, sections(raw.document))
        elif group == "" and kind == "Service":
            self._set_service(raw.key, ports(raw.document))
        if raw.key.name.startswith(RESERVED_PREFIX):
            self._take_name(raw.key, True)

    def _remove(self, key: ObjectKey) -> None:
        if key in self._ingresses:
            self._forget(key)
        elif key in self._classes:
            self._set_class(key, None)
        elif key in self._gateways:
            self._set_gateway(key, None)
        elif key in self._services:
            self._set_service(key, None)
        if key.name.startswith(RESERVED_PREFIX):
            self._take_name(key, False)

    def _set_class(self, key: ObjectKey, found: IngressClass | None) -> None:
        before = self._classes.pop(key, None)
        if found is not None:
            self._classes[key] = found
        if before != found:
            for name in (key.name, _NO_CLASS):
                self._mark_all(self._of_class.get(name, ()))

    def _set_gateway(self, key: ObjectKey, found: Sections | None) -> None:
        before = self._gateways.pop(key, None)
        if found is not None:
            self._gateways[key] = found
        if before != found:
            self._mark_all(self.carried_by(key))

    def _set_service(self, key: ObjectKey, found: Ports | None) -> None:
        before = self._services.pop(key, {})
        if found:
            self._services[key] = found
        if before != (found or {}):
            self._dirty |= dict.fromkeys(self._users.get(key, ()))

    def _take_name(self, key: ObjectKey, taken: bool) -> None:
        if taken != (key in self._taken):
            (self._taken.add if taken else self._taken.discard)(key)
            if key in self._makers:
                self._dirty[self._makers[key]] = None

    def _mark_all(self, keys: Iterable[ObjectKey]) -> None:
        for key in keys:
            self._mark(key)

    def _mark(self, key: ObjectKey) -> None:
        """Notes that an Ingress has to be expanded again, and what others may have to be for it."""
        self._dirty[key] = None
        self._touched |= self._ingresses[key].has

    def _learn(self, raw: RawObject) -> None:
        newest = load(raw.document).object
        loaded = newest or self.accepted(raw.key)
        ingress = loaded if isinstance(loaded, Ingress) else None
        known = self._ingresses[raw.key] = _Known(raw.origin, ingress, None if newest is not None else raw)
        if ingress is not None:
            known.canary = is_canary(ingress)
            known.has, known.heeds = tokens(ingress, known.canary)
            known.services = named_ports(ingress)
            for index, token in self._indexes(known):
                index.setdefault(token, set()).add(raw.key)
        self._mark(raw.key)

    def _forget(self, key: ObjectKey) -> None:
        known = self._ingresses.get(key)
        if known is None:
            return
        self._mark(key)
        del self._ingresses[key]
        for index, token in self._indexes(known):
            index[token].discard(key)
            if not index[token]:
                del index[token]

    def _indexes(self, known: _Known) -> Iterator[tuple[dict[Any, set[ObjectKey]], Any]]:
        """Yields each index that an Ingress stands in, and under what."""
        if known.ingress is None:
            return
        namespace = known.ingress.metadata.namespace
        yield self._of_class, known.ingress.class_name or _NO_CLASS
        yield from ((self._having, token) for token in known.has)
        yield from ((self._heeding, token) for token in known.heeds)
        yield from ((self._users, ObjectKey("", "Service", namespace, name)) for name in known.services)

    # Expanding

    def _expand_again(self) -> tuple[list[RawObject], list[ObjectKey]]:
        """Expands what has to be expanded; returns what is new or another than it was, and what has gone."""
        for key in self._dirty:
            known = self._ingresses.get(key)
            if known is not None:
                known.ours, known.carrier, known.not_carried = self._carrier(known.ingress)
        for token in self._touched:
            if token[1] != "tls" or self._owners.get(token, {}) != self._find_owners(token):
                self._dirty |= dict.fromkeys(self._heeding.get(token, ()))
        dirty, self._dirty, self._touched = self._dirty, {}, set()
        self.expanded = tuple(sorted(dirty))
        wanted = {key: self._expansion(key) for key in self.expanded}
        gone = [made for key in wanted for made in self._let_go(key, wanted[key])]
        new = [raw for key in wanted for raw in self._hold(key, wanted[key])]
        return new, gone

    def _let_go(self, key: ObjectKey, wanted: Mapping[ObjectKey, Made]) -> Iterator[ObjectKey]:
        for made in self._made.get(key, {}).keys() - wanted.keys():
            del self._makers[made]
            if self._held.pop(made, None) is not None and made not in self._taken:
                yield made

    def _hold(self, key: ObjectKey, wanted: dict[ObjectKey, Made]) -> Iterator[RawObject]:
        self._made[key] = wanted
        if not wanted:
            del self._made[key]
        for name, made in wanted.items():
            self._makers[name] = key
            if name in self._taken:
                self._held.pop(name, None)
                continue
            held = (made.document, self._ingresses[key].origin)
            if self._held.get(name) != held:
                self._held[name] = held
                yield RawObject(name, made.document, held[1])

    def _expansion(self, key: ObjectKey) -> dict[ObjectKey, Made]:
        known = self._ingresses.get(key)
        if known is None:
            return {}
        known.warnings = known.not_carried
        if known.ingress is None or known.carrier is None:
            return {}
        expansion = expand(known.ingress, self._context(known, known.ingress, known.carrier))
        known.warnings = (*known.not_carried, *expansion.warnings)
        return {made.key: made for made in expansion.made}

    def _context(self, known: _Known, ingress: Ingress, carrier: Carrier) -> Context:
        namespace, gateway = ingress.metadata.namespace, carrier.gateway
        hosts = (token for token in known.heeds if token[1] == "tls")
        owners = {token[2]: self._owners[token][gateway] for token in hosts if gateway in self._owners.get(token, {})}
        near = {token[1]: list[Ingress]() for token in known.heeds}
        for token in known.heeds:
            if token[1] != "tls":
                near[token[1]] += self._siblings(token, gateway)
        return Context(
            carrier=carrier,
            port=lambda service, port: self._services.get(ObjectKey("", "Service", namespace, service), {}).get(port),
            owners=owners,
            canaries=in_order(near.get("canary", ())),
            mains=frozenset((h, path.path) for each in near.get("main", ()) for h, _, path in hosts_of(each)),
        )

    def _siblings(self, token: Token, gateway: ObjectKey) -> Iterator[Ingress]:
        for key in self._having.get(token, ()):
            known = self._ingresses[key]
            if known.ingress is not None and known.carrier is not None and known.carrier.gateway == gateway:
                yield known.ingress

    def _find_owners(self, token: Token) -> _Owners:
        """Finds, and notes, whose certificate serves a host on each Gateway: that of the oldest Ingress."""
        found: dict[ObjectKey, list[Ingress]] = {}
        for key in self._having.get(token, ()):
            known = self._ingresses[key]
            if known.ingress is not None and known.carrier is not None:
                found.setdefault(known.carrier.gateway, []).append(known.ingress)
        first = {gateway: in_order(each)[0] for gateway, each in found.items()}
        owners = {gateway: (each.metadata.name, tls_secrets(each)[token[2]]) for gateway, each in first.items()}
        if owners:
            self._owners[token] = owners
        else:
            self._owners.pop(token, None)
        return owners

    def _carrier(self, ingress: Ingress | None) -> tuple[bool, Carrier | None, tuple[Condition, ...]]:
        """Returns whether an Ingress is ours, what carries it, and what keeps that from being so."""
        if ingress is None:
            return False, None, ()
        name = ingress.class_name or self._default_class()
        field_ = "spec.ingressClassName" if ingress.spec.ingress_class_name else "metadata.annotations"
        if name is None:
            message = "no class is named, and no IngressClass is the default one"
            return False, None, (false("Accepted", "NoIngressClass", message, "spec"),)
        found = self._classes.get(class_key(name))
        if found is None:
            return False, None, (false("Accepted", "NoIngressClass", f"IngressClass {name} does not exist", field_),)
        if found.spec.controller != INGRESS_CONTROLLER:
            return False, None, ()
        gateway = gateway_of(found)
        if gateway is None:
            message = f"IngressClass {name} names no Gateway in spec.parameters, with scope Namespace and a namespace"
            return True, None, (false("Accepted", "NoGateway", message, field_),)
        sections = self._gateways.get(gateway, ())
        http, https = (tuple(n for n, protocol in sections if protocol == p) for p in ("HTTP", "HTTPS"))
        return True, Carrier(gateway, http, https), ()

    def _default_class(self) -> str | None:
        wanted = {key.name for key, each in self._classes.items() if is_default(each)}
        return min(wanted, default=None)

    def _classes_of(self, gateway: ObjectKey) -> Iterator[str]:
        default = self._default_class()
        for key, found in self._classes.items():
            if found.spec.controller == INGRESS_CONTROLLER and gateway_of(found) == gateway:
                yield key.name
                if key.name == default:
                    yield _NO_CLASS


def _is_expanded(raw: RawObject) -> bool:
    """Says whether somebody remembered an object that an Ingress expanded to: it is expanded anew, or gone."""
    if not raw.key.name.startswith(RESERVED_PREFIX):
        return False
    metadata: Any = raw.document.get("metadata")
    annotations: Any = metadata.get("annotations")
    return isinstance(annotations, Mapping) and EXPANDED_FROM in annotations
