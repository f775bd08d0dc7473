"""Asks the nodes of a Redis Cluster which of them serves what slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import hiredis

from ratelimit_service.stores.redis_commands import command
from ratelimit_service.stores.redis_dial import FAULTS, RefusedError, ask_once
from ratelimit_service.stores.redis_url import RedisTarget

SLOTS = 16_384

_INFO = command("CLUSTER", "INFO")
_MAP = command("CLUSTER", "SLOTS")
_NODE_S = 0.5
"""What a node has to answer within, before the next one is asked."""


class Range(NamedTuple):
    """Slots of one primary, from the first to the last."""

    first: int
    last: int
    host: str
    port: int


async def ask_for_slots(nodes: Iterable[RedisTarget]) -> list[Range]:
    """Returns what the first node says for which the cluster is well, else what the first says that answers.

    Raises RefusedError, with all reasons, where none answers.
    """
    second_best: list[Range] | None = None
    faults: list[str] = []
    for node in nodes:
        try:
            info, slots = await ask_once(node, _INFO, _MAP, within_s=_NODE_S)
            ranges = parse_slots(slots, asked=node)
        except FAULTS as error:
            faults.append(f"{node}: {error or 'no answer'}")
            continue
        # A node that is cut off from the others believes for ever in what it knew last.
        if not isinstance(info, bytes) or b"cluster_state:ok" in info:
            return ranges
        second_best = second_best or ranges
    if second_best is None:
        raise RefusedError(f"no node of the cluster tells the slots ({'; '.join(faults)})")
    return second_best


def parse_slots(reply: Any, *, asked: RedisTarget) -> list[Range]:
    """Reads what CLUSTER SLOTS replies; raises RefusedError for what is no such thing."""
    if isinstance(reply, hiredis.ReplyError):
        raise RefusedError(str(reply))
    if not isinstance(reply, list):
        raise RefusedError("not an answer to CLUSTER SLOTS")
    return [found for each in cast("list[Any]", reply) if (found := _range(each, asked)) is not None]


def _range(entry: Any, asked: RedisTarget) -> Range | None:
    match entry:
        case [int(first), int(last), [host, int(port), *_], *_] if 0 <= first <= last < SLOTS and 0 < port < 65536:
            name = named(host, asked)
            return Range(first, last, name, port) if name else None
        case _:
            raise RefusedError("not an answer to CLUSTER SLOTS")


def named(host: bytes | str | None, asked: RedisTarget) -> str:
    """Returns the host that a node names: one that names none means its own; empty for one that nobody knows."""
    text = host.decode(errors="replace") if isinstance(host, bytes) else host or ""
    return "" if text == "?" else text or asked.host


def coverage(ranges: Sequence[Range]) -> int:
    """Returns how many slots the ranges cover."""
    return sum(each.last - each.first + 1 for each in ranges)
