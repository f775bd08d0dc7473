"""One change on its way: what it was, what it was made into, and how far each of those who are to have it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from controlplane.api.meta import ObjectKey

MOST_CLIENTS: Final = 8
"""Of how many clients each answer is kept; of more, only the first and the last."""
_MOST_NAMES: Final = 8
_MOST_OBJECTS_SHOWN: Final = 20


@dataclass(slots=True)
class TypeDelivery:
    """What was sent of one type, and how it was answered; moments are those of `time.monotonic`."""

    names: tuple[str, ...]
    resources: int
    removed: int
    size: int
    """Bytes of the resources, sent to each client that wants them."""
    acks: int = 0
    first_pushed: float | None = None
    last_pushed: float = 0.0
    last_acked: float = 0.0
    last_client: str = ""
    by_client: dict[str, tuple[float, float]] = field(default_factory=dict[str, "tuple[float, float]"])

    def answered(self, node_id: str, pushed_at: float, now: float) -> None:
        """Takes in that a client has acknowledged what it was sent at a moment."""
        self.acks += 1
        if self.first_pushed is None or pushed_at < self.first_pushed:
            self.first_pushed = pushed_at
        if pushed_at > self.last_pushed:
            self.last_pushed = pushed_at
        self.last_acked, self.last_client = now, node_id
        if len(self.by_client) < MOST_CLIENTS:
            self.by_client[node_id] = (pushed_at, now)

    @staticmethod
    def of(added: Mapping[str, int], removed: int) -> TypeDelivery:
        """Begins one: `added` has the size of each resource that is new or another."""
        names = tuple(sorted(added)[:_MOST_NAMES])
        return TypeDelivery(names, len(added), removed, sum(added.values()))


@dataclass(frozen=True, slots=True)
class Rejection:
    """What a client has said against something that it was sent."""

    node_id: str
    type_url: str
    names: tuple[str, ...]
    message: str


@dataclass(slots=True)
class Delivery:
    """What one owner's clients were to have of a change; `seq` counts these by owner, from 1."""

    owner: str
    seq: int
    published: float
    types: dict[str, TypeDelivery]
    clients: int = 0
    """How many had something to answer."""
    remaining: int = 0
    left: int = 0
    """How many of them went away before they had."""
    last_client: str = ""
    settled: float | None = None
    """When the last one had answered."""
    overtaken: bool = False
    """Whether so much has followed that it is not followed any more."""
    rejections: list[Rejection] = field(default_factory=list[Rejection])

    @property
    def state(self) -> str:
        """Says in a word how far it is."""
        if self.rejections:
            return "rejected"
        if self.remaining:
            return "overtaken" if self.overtaken else "under way"
        return "settled" if self.clients > self.left else "nobody"


@dataclass(frozen=True, slots=True)
class Stages:
    """How long each stage took, in seconds; `wait_s` is from the first event until it was taken."""

    wait_s: float
    load_s: float
    compile_s: float
    publish_s: float = 0.0


@dataclass(slots=True)
class Change:
    """A step of the engine: `number` is its id, `seen` a moment of `time.monotonic`, `at` the same by the calendar."""

    number: int
    at: float
    seen: float
    objects: tuple[ObjectKey, ...]
    total: int
    stages: Stages
    deliveries: list[Delivery] = field(default_factory=list[Delivery])

    @property
    def state(self) -> str:
        """Says in a word how far it is."""
        found = {each.state for each in self.deliveries}
        for state in ("under way", "rejected", "overtaken", "settled", "nobody"):
            if state in found:
                return state
        return "nothing to send"

    def concerns(self, words: str) -> bool:
        """Says whether an object of it has the words in its name (`KIND NAMESPACE/NAME`)."""
        return any(words.lower() in str(key).lower() for key in self.objects)

    def to_json(self, now: float, waiting: Mapping[int, list[Mapping[str, Any]]]) -> dict[str, Any]:
        """Returns it with all moments in ms since it was seen; `waiting` has who is behind, by id of the delivery."""
        stages = self.stages
        settled = [each.settled for each in self.deliveries if each.settled is not None]
        done = self.state not in ("under way", "overtaken") and settled
        return {
            "id": self.number,
            "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            "state": self.state,
            "objects": [str(key) for key in self.objects[:_MOST_OBJECTS_SHOWN]],
            "objects_total": self.total,
            "stages_ms": {
                "wait": ms(stages.wait_s),
                "load": ms(stages.load_s),
                "compile": ms(stages.compile_s),
                "publish": ms(stages.publish_s),
            },
            "settled_ms": ms(max(settled) - self.seen) if done else None,
            "age_ms": ms(now - self.seen),
            "owners": [self._delivery(each, waiting.get(id(each), [])) for each in self.deliveries],
        }

    def _delivery(self, each: Delivery, waiting: list[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "owner": each.owner,
            "state": each.state,
            "published_ms": ms(each.published - self.seen),
            "clients": each.clients,
            "behind": each.remaining,
            "left": each.left,
            "last_client": each.last_client,
            "settled_ms": None if each.settled is None else ms(each.settled - self.seen),
            "types": [self._type(type_url, sent) for type_url, sent in each.types.items()],
            "waiting": waiting,
            "rejections": [
                {"client": r.node_id, "type": short(r.type_url), "names": list(r.names), "message": r.message}
                for r in each.rejections
            ],
        }

    def _type(self, type_url: str, sent: TypeDelivery) -> dict[str, Any]:
        found = sent.first_pushed is not None
        return {
            "type": short(type_url),
            "names": list(sent.names),
            "resources": sent.resources,
            "removed": sent.removed,
            "bytes": sent.size,
            "acks": sent.acks,
            "pushed_ms": [ms(sent.first_pushed - self.seen), ms(sent.last_pushed - self.seen)]
            if sent.first_pushed is not None
            else None,
            "acked_ms": ms(sent.last_acked - self.seen) if found else None,
            "last_client": sent.last_client,
            "clients": {
                node_id: [ms(pushed - self.seen), ms(acked - self.seen)]
                for node_id, (pushed, acked) in sent.by_client.items()
            },
        }


def ms(seconds: float) -> float:
    """Returns milliseconds, to the microsecond."""
    return round(seconds * 1000, 3)


def short(type_url: str) -> str:
    """Returns the last part of the name of a type."""
    return type_url.rpartition(".")[2]
