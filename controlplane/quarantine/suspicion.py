"""Who is to be suspected, and how much: what can be kept out of force, what is risky, whom a message speaks of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from controlplane.api.meta import DISCOVERY_GROUP, GATEWAY_GROUP, ObjectKey, Resource
from controlplane.compile.targets import of_spec

Look = Callable[[ObjectKey], Resource | None]
"""Returns the newest version of an object."""

_GUARDS: Final = "SecurityPolicy"
_LISTENING: Final = frozenset({"Gateway", "ListenerSet"})
_ROUTES: Final = frozenset({"HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"})
_POLICIES: Final = frozenset(
    {
        "BackendTLSPolicy",
        "BackendTrafficPolicy",
        "ClientTrafficPolicy",
        "EnvoyExtensionPolicy",
        "EnvoyPatchPolicy",
        "ExtensionPolicy",
        "PatchPolicy",
        _GUARDS,
    }
)
_PATCHES: Final = frozenset({"EnvoyExtensionPolicy", "EnvoyPatchPolicy", "ExtensionPolicy", "PatchPolicy"})
_DETACHED: Final = frozenset({*_ROUTES, *_POLICIES, "Backend", "HTTPRouteFilter", "Plan"})
# Without these, Envoys would be stopped, or be told to drop everything; with an older version they go on.
_ROOTS: Final = frozenset({"Gateway", "ListenerSet", "ProxyConfig", "EnvoyProxy", "Service"})
# With one of these a route may be reached that was there before, and led nowhere.
_WAYS: Final = frozenset(
    {"Backend", "Gateway", "GatewayClass", "ListenerSet", "Namespace", "ReferenceGrant", "Service"} | _ROUTES
)
_CERTIFICATE: Final = "kubernetes.io/tls"

_QUOTED: Final = re.compile(r"'([^']{1,512})'|\"([^\"]{1,512})\"")
_WORD: Final = re.compile(r"[^\s'\",;()]{3,512}")
_HOLDERS: Final = 3
_TOKENS: Final = 64


def may_be_held(key: ObjectKey, object_: Resource, *, has_before: bool) -> bool:
    """Says whether an object can be kept out of force; of some kinds only where an older version stands in.

    Of Secrets and ConfigMaps that is so for certificates alone: keys that were taken away, and authorities that are
    trusted no more, must not come back, not even for the time of a trial.
    """
    if key.kind in _DETACHED or (key.group == DISCOVERY_GROUP and has_before):
        return True
    if key.kind == "Secret":
        return has_before and getattr(object_, "type", None) == _CERTIFICATE
    return key.kind in _ROOTS and has_before


def may_wait(key: ObjectKey) -> bool:
    """Says whether a change may wait until others are judged: revocations and endpoints may not."""
    return key.kind in _DETACHED


def may_be_rehearsed(key: ObjectKey, *, has_before: bool) -> bool:
    """Says whether an object can stand back until it has been tried."""
    return key.kind in _DETACHED or (key.kind in _LISTENING and has_before)


def is_guard(key: ObjectKey) -> bool:
    """Says whether requests must not be let through for want of this object."""
    return key.kind == _GUARDS


def is_route(key: ObjectKey) -> bool:
    """Says whether an object is a route."""
    return key.group == GATEWAY_GROUP and key.kind in _ROUTES


def is_policy(key: ObjectKey) -> bool:
    """Says whether an object is a policy, which applies to others."""
    return key.kind in _POLICIES


def may_open(key: ObjectKey) -> bool:
    """Says whether requests may get further by an object that is new, or changed, than they did before it."""
    return key.kind in _WAYS


def is_risky(key: ObjectKey, object_: Resource | None) -> bool:
    """Says whether an object holds what Envoy is more likely to refuse than other things: see `in_order`."""
    if key.kind in _POLICIES or key.kind == "HTTPRouteFilter":
        return True
    if object_ is None or not (key.kind in _DETACHED or key.kind in _LISTENING):
        return False
    return ('"tls"' if key.kind in _LISTENING else "RegularExpression") in _text(object_)


def in_order(
    keys: Iterable[ObjectKey], look: Look, since: Callable[[ObjectKey], float] = lambda key: 0.0
) -> list[ObjectKey]:
    """Returns suspects, the most trustworthy first; guards go before routes of equal risk, which they may guard.

    Of those, what has been in force for longer goes first (`since` when), then what was created first: who chooses a
    name must not choose who is blamed.
    """

    def trust(key: ObjectKey) -> tuple[int, bool, float, float, ObjectKey]:
        object_ = look(key)
        created = object_.metadata.creation_timestamp if object_ is not None else None
        age = created.timestamp() if created is not None else 0.0
        return (_risk(key, object_), not is_guard(key), since(key), age, key)

    return sorted(keys, key=trust)


def _risk(key: ObjectKey, object_: Resource | None) -> int:
    if key.kind in _PATCHES:
        return 2
    return int(is_risky(key, object_) and not is_guard(key))


class Texts:
    """What objects say, as JSON; each is written down once."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._known: dict[ObjectKey, str] = {}

    def of(self, key: ObjectKey) -> str:
        """Returns what an object says."""
        found = self._known.get(key)
        if found is None:
            object_ = self._look(key)
            found = self._known[key] = _text(object_) if object_ is not None else ""
        return found


def named(keys: Collection[ObjectKey], message: str, text: Callable[[ObjectKey], str]) -> Collection[ObjectKey]:
    """Returns those of the objects that a message of Envoy's speaks of: who alone, or nearly, has what it quotes."""
    best: list[ObjectKey] = []
    for token in _tokens(message):
        holders = [key for key in keys if token in text(key)]
        if 0 < len(holders) <= _HOLDERS and (not best or len(holders) < len(best)):
            best = holders
        if len(best) == 1:
            break
    return best


def exposed(guard: Resource | None, in_force: Collection[ObjectKey]) -> bool:
    """Says whether something that may be reached only by what has come into force is guarded by a policy that has not.

    `in_force` are the objects of which `may_open` says that they may lead there.
    """
    if any(not is_route(key) for key in in_force):
        return True
    spec = getattr(guard, "spec", None)
    if guard is None or spec is None:
        return True
    targets = of_spec(spec, guard.metadata.namespace)
    if targets.selectors or any(not is_route(each.key) for each in targets.named):
        return bool(in_force)
    return any(each.key in in_force for each in targets.named)


def _tokens(message: str) -> Sequence[str]:
    """Returns what a message quotes, as JSON would have it, the longest first; then its words."""
    quoted = [one or other for one, other in _QUOTED.findall(message)]
    words = [word.strip(".:") for word in _WORD.findall(message)]
    found = [*sorted(quoted, key=len, reverse=True), *sorted(words, key=len, reverse=True)]
    telling = dict.fromkeys(each for each in found if len(each) > 2)
    return [json.dumps(each, ensure_ascii=False)[1:-1] for each in list(telling)[:_TOKENS]]


def _text(object_: Resource) -> str:
    if object_.kind == "Secret":
        return object_.metadata.name
    try:
        return object_.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError:
        return object_.metadata.name  # Bytes that are no text.
