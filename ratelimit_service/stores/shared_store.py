"""Counters in the memory of another worker of this machine, which is asked as a Redis server would be."""

from __future__ import annotations

from pathlib import Path

from dragoman.batch import Batch
from ratelimit_service.checks import Check
from ratelimit_service.stores.redis_commands import command
from ratelimit_service.stores.redis_connection import Question, RedisConnection, Resent
from ratelimit_service.stores.redis_node import NodeOptions, RedisNode
from ratelimit_service.stores.redis_store import RedisStore
from ratelimit_service.stores.redis_url import RedisTarget
from ratelimit_service.stores.shared_rule import written


class SharedStore(RedisStore):
    """Asks the worker that serves the socket (`SharedMemory`)."""

    def __init__(
        self, path: Path, *, timeout_s: float = 0.02, max_pending: int = 16_384, batch: Batch | None = None
    ) -> None:
        target = RedisTarget(path=str(path))

        async def found() -> RedisTarget:
            return target

        options = NodeOptions(timeout_s=timeout_s, max_pending=max_pending, batch=batch)
        self._node = _SharedNode("memory", found, options)
        self._node.title = "the worker that counts in memory"


class _SharedNode(RedisNode):
    """Asks for every check in the same form, whatever its algorithm is: the other side has it."""

    expiring = False

    def ask(self, connection: RedisConnection, check: Check, now: float, question: Question) -> None:
        connection.ask(_take(check), question)

    def ask_again(self, resent: Resent) -> None:
        connection, check = self.connection, resent.question[2]
        if connection is None or not connection.usable:
            resent.lose()
            return
        # What the other side lacked can only be these.
        for each in [part for _, _, part in check.together] or [check]:
            connection.tell(command("RULE", written(each.limit.rule).body))
        connection.ask_again(_take(check), resent)


def _take(check: Check) -> bytes:
    counter = check.counter
    if check.together:
        return command("DECIDE", *(part for _, _, each in check.together for part in _told(each)))
    if check.hits != 1 or check.caller or check.patience_us >= 0:
        return command("TAKE", *_told(check))
    if not counter.command:
        counter.command = command("TAKE", written(check.limit.rule).digest, counter.prefix, 1)
    return counter.command


def _told(check: Check) -> tuple[bytes | int, ...]:
    """All that counting depends on, in `shared_server.WORDS` words."""
    digest = written(check.limit.rule).digest
    flags = int(check.ends) | int(check.take) << 1 | int(check.limit.binding) << 2
    return digest, check.counter.prefix, check.hits, check.caller, check.patience_us, flags
