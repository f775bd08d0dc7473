"""What travels between replicas: JSON, so that replicas of two versions understand one another during an upgrade.

A field that a version does not know is passed over, and so is a kind of message; what is added later has a default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, TypeAdapter, ValidationError

from controlplane.api.meta import ObjectKey
from controlplane.xds.events import ClientSummary, Nack

MAX_MESSAGE: Final = 8 << 20
_AIM: Final = 512 * 1024
"""Messages are filled up to this; one that holds a single big object may be longer."""

T = TypeVar("T")


class MessageError(ValueError):
    """What came is not a message."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Hello(_Message):
    """The first message of either side: which replica this is."""

    kind: Literal["hello"] = "hello"
    replica: str
    address: str = ""


class Clients(_Message):
    """From a follower: how far its clients are, as far as that has changed since its last such message."""

    kind: Literal["clients"] = "clients"
    changed: tuple[ClientSummary, ...] = ()
    gone: tuple[int, ...] = ()
    """Numbers of those whose stream has ended."""
    nacks: tuple[Nack, ...] = ()
    versions: dict[str, str] = {}
    """Owner → which snapshot it is that its clients are (or are not yet) settled with."""


class StandIn(_Message):
    """What is in force in place of a version of an object that cannot be.

    `of` is the digest of that version: nothing is said of any other. `reason` is `faulty` where the version is refused
    for what it says, or `rejected` where Envoys do so, with `message`: then `document` is empty if nothing stands in.
    Replicas pass over reasons that they do not know.
    """

    key: ObjectKey
    of: str
    document: str
    """The manifest, as JSON."""
    reason: str = "faulty"
    message: str = ""


class StandIns(_Message):
    """What stands in for what; from who leads it is a decision, from a follower what it remembers."""

    kind: Literal["stand-ins"] = "stand-ins"
    standing: tuple[StandIn, ...] = ()
    over: tuple[ObjectKey, ...] = ()
    """Objects that nothing stands in for any more."""


class KeySets(_Message):
    """From who leads: JWKS as fetched, by URI."""

    kind: Literal["key sets"] = "key sets"
    documents: dict[str, str]


class Workers(_Message):
    """From who leads: how far the workers of the services are that other replicas than this follower serve.

    By the owner of their policies: the version that all of them have, empty where there are none, None where they
    differ or have yet to acknowledge.
    """

    kind: Literal["workers"] = "workers"
    have: dict[str, str | None]


class Whole(_Message):
    """Everything there is has been told; what follows are changes."""

    kind: Literal["whole"] = "whole"


Message = Hello | Clients | StandIns | KeySets | Workers | Whole
_ADAPTER: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Discriminator("kind")])


def encode(message: Message) -> bytes:
    """Returns the bytes of a message."""
    return message.model_dump_json(exclude_defaults=False).encode()


def decode(raw: bytes) -> Message | None:
    """Returns the message, None for one of a kind that is not known; raises MessageError."""
    if len(raw) > MAX_MESSAGE:
        raise MessageError(f"a message is longer than {MAX_MESSAGE} bytes")
    try:
        return _ADAPTER.validate_json(raw)
    except ValidationError as error:
        if all(each["type"] == "union_tag_invalid" for each in error.errors()):
            return None
        # Without what it says: that may be anything.
        places = ", ".join(".".join(map(str, each["loc"])) or "JSON" for each in error.errors()[:3])
        raise MessageError(f"a message cannot be read: {places}") from None
    except (ValueError, RecursionError):
        raise MessageError("a message cannot be read") from None


def batches(items: Iterable[T], size: Callable[[T], int]) -> Iterator[tuple[T, ...]]:
    """Divides items, so that each batch makes one message."""
    batch: list[T] = []
    filled = 0
    for item in items:
        if batch and filled + size(item) > _AIM:
            yield tuple(batch)
            batch, filled = [], 0
        batch.append(item)
        filled += size(item)
    if batch:
        yield tuple(batch)
