"""Connects to a Redis server and logs in; or asks one something, once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import hiredis

from ratelimit_service.stores.redis_commands import command
from ratelimit_service.stores.redis_connection import RedisConnection
from ratelimit_service.stores.redis_url import RedisTarget

_CONNECT_S = 1.0
_IN_SCRIPT = re.compile(r"ERR Error running script .*? -([A-Z]+) ")


class RefusedError(Exception):
    """The server does not let us in, or not now."""


FAULTS = (OSError, TimeoutError, RefusedError)
"""What `dial` and `ask_once` raise where the server cannot be asked."""


async def dial(
    target: RedisTarget, connection: RedisConnection, *steps: bytes, within_s: float = _CONNECT_S
) -> list[Any]:
    """Connects, logs in and sends the steps, all in one write; returns the replies to the steps.

    Raises one of `FAULTS`; then the connection is closed. A reply to a step may be a ReplyError.
    """
    loop = asyncio.get_running_loop()
    try:
        login = _login(target)
        tls = target.tls.context() if target.tls is not None else None
        async with asyncio.timeout(within_s):
            if target.path:
                await loop.create_unix_connection(lambda: connection, target.path, ssl=tls)
            else:
                await loop.create_connection(lambda: connection, target.host, target.port, ssl=tls)
            replies = await asyncio.gather(*(connection.command(step) for step in (*login, *steps)))
        if connection.closed.done():
            raise RefusedError(connection.closed.result())
        accepted(replies[: len(login)])
    except (UnicodeError, OverflowError) as error:
        # An address that cannot be one: servers name others by whatever they were told.
        connection.abort("the handshake failed")
        raise RefusedError(f"{target} is no address: {error}") from None
    except BaseException:
        connection.abort("the handshake failed")
        raise
    return replies[len(login) :]


async def ask_once(target: RedisTarget, *steps: bytes, within_s: float = _CONNECT_S) -> list[Any]:
    """Asks a server on a connection of its own; raises one of `FAULTS`. A reply may be a ReplyError."""
    connection = RedisConnection()
    try:
        return await dial(target, connection, *steps, within_s=within_s)
    finally:
        connection.abort("was for one question")


def accepted(replies: Sequence[Any]) -> None:
    """Raises RefusedError if one of the replies is an error."""
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise RefusedError(str(reply))


def error_kind(message: str) -> str:
    """Returns the code that an error begins with. Before Redis 7 it stands within, if a script met the error."""
    within = _IN_SCRIPT.match(message)
    kind = within[1] if within else message.partition(" ")[0]
    return kind if kind.isupper() and len(kind) < 32 else "ERR"


def must_be_primary(target: RedisTarget, role: Any) -> None:
    """Raises RefusedError if a reply to ROLE is that of a replica."""
    if isinstance(role, hiredis.ReplyError):
        # We may not ask. A replica will say READONLY then.
        return
    if not isinstance(role, list) or not role or role[0] != b"master":
        raise RefusedError(f"{target} is not the primary")


def _login(target: RedisTarget) -> list[bytes]:
    steps: list[bytes] = []
    password = target.secret()
    if password:
        user = (target.username,) if target.username else ()
        steps.append(command("AUTH", *user, password))
    if target.db:
        steps.append(command("SELECT", target.db))
    return steps
