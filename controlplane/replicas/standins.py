"""Last good versions, agreed on: what stands in for an object that is refused is the same on every replica."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.api.core import ConfigMap, Secret
from controlplane.api.load import load
from controlplane.api.meta import ObjectKey, Resource
from controlplane.engine import Engine, Step
from controlplane.quarantine.entry import Entry
from controlplane.quarantine.hunt import joined
from controlplane.quarantine.quarantine import Quarantine
from controlplane.replicas.messages import StandIn, StandIns

_log = logging.getLogger(__name__)

MAX_DOCUMENT = 4 << 20
_MAX_HELD = 50_000


class Agreement:
    """What an engine holds, what it has been told, and how the two become one.

    A replica that leads tells what stands in for what, and the others do as it says. Where it knows nothing that could,
    it takes what another remembers: it may have started only when the object was bad already. What the Envoys of any
    replica are found to reject is in force at none.
    """

    def __init__(self, engine: Engine, quarantine: Quarantine) -> None:
        self._engine = engine
        self._quarantine = quarantine
        self._told: dict[ObjectKey, StandIn] = {}
        self._offered: dict[ObjectKey, StandIn] = {}
        engine.told = self._choose

    # To be told

    def all(self) -> list[ObjectKey]:
        """Returns every object that is refused as it is."""
        return list(self._engine.refused)

    def is_refused(self, key: ObjectKey) -> bool:
        """Says whether an object is refused as it is."""
        return key in self._engine.refused

    def standing(self, key: ObjectKey) -> StandIn | None:
        """Returns what stands in for an object; None where it needs nothing, or nothing can."""
        refused, accepted = self._engine.refused.get(key), self._engine.pipeline.objects.accepted.peek(key)
        admitted = self._engine.pipeline.objects.peek(key)
        if admitted is not None and admitted.verdict is not None:
            return self._rejected(key, accepted)
        if refused is None or accepted is None:
            return None
        document = _document(accepted)
        return StandIn(key=key, of=refused, document=document) if len(document) <= MAX_DOCUMENT else None

    def _rejected(self, key: ObjectKey, accepted: Resource | None) -> StandIn | None:
        entry = self._quarantine.entries.get(key)
        if entry is None or entry.until is not None:
            return None  # It is being found out, or was not: others are to find out for themselves.
        document = _document(accepted) if accepted is not None else ""
        document = document if len(document) <= MAX_DOCUMENT else ""
        return StandIn(key=key, of=entry.version, document=document, reason="rejected", message=entry.message)

    # Being told

    def decided(self, message: StandIns) -> Step | None:
        """Takes in what the replica that leads has decided; returns the engine's step where that changes something."""
        return self._take(self._told, message)

    def offered(self, message: StandIns) -> Step | None:
        """Takes in what a follower remembers; returns the engine's step where that changes something."""
        return self._take(self._offered, message)

    def forget_offers(self) -> None:
        """Forgets what followers remember: this replica does not lead."""
        self._offered.clear()

    def forget_decisions(self) -> None:
        """Forgets what another replica has decided; what is in force stays."""
        self._told.clear()

    def _take(self, held: dict[ObjectKey, StandIn], message: StandIns) -> Step | None:
        for key in message.over:
            held.pop(key, None)
        step = self._adopt(each for each in message.standing if each.reason == "rejected")
        for each in message.standing:
            if each.reason == "rejected":
                continue
            if each.reason != "faulty":
                _log.warning("%s: another replica says that it is %s, which this one does not know", *_of(each))
            elif len(held) < _MAX_HELD or each.key in held:
                held[each.key] = each
        concerned = [each.key for each in message.standing if self._engine.refused.get(each.key) == each.of]
        return joined(step, self._engine.reconsider(concerned)) if concerned else step

    def _adopt(self, rejected: Iterable[StandIn]) -> Step | None:
        step: Step | None = None
        for each in rejected:
            standing = _object(each) if each.document else None
            made = self._quarantine.adopt(each.key, Entry(each.of, each.message), standing)
            step = joined(step, made) if made is not None else step
        return step

    def _choose(self, key: ObjectKey, refused: str, accepted: Resource | None) -> Resource | None:
        """Returns what is to stand in for a refused version of an object; None for what does so far."""
        told = self._told.get(key)
        if told is None and accepted is None:
            told = self._offered.get(key)
        if told is None or told.of != refused:
            return None
        return _object(told)


def _object(told: StandIn) -> Resource | None:
    try:
        document: object = json.loads(told.document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, Mapping):
        return None
    loaded = load(document)  # pyright: ignore[reportUnknownArgumentType]
    if loaded.object is None or loaded.key != told.key:
        _log.warning("%s: what stands in for it at another replica cannot be read here", told.key)
        return None
    return loaded.object


def _document(accepted: Resource) -> str:
    """The object as its manifest would have it."""
    if isinstance(accepted, Secret):
        return _with_bytes(accepted, "data", accepted.data)
    if isinstance(accepted, ConfigMap) and accepted.binary_data:
        return _with_bytes(accepted, "binaryData", accepted.binary_data)
    return accepted.model_dump_json(by_alias=True, exclude_unset=True)


def _with_bytes(accepted: Resource, name: str, values: Mapping[str, bytes]) -> str:
    hidden = {"data", "string_data"} if name == "data" else {"binary_data"}
    document: dict[str, Any] = accepted.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=hidden)
    document[name] = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return json.dumps(document)


def _of(each: StandIn) -> tuple[ObjectKey, str]:
    return each.key, each.reason
