"""Asks an HTTP server on a Unix socket one question: how the supervising process speaks with its workers."""

from __future__ import annotations

import asyncio

MAX_BYTES = 64 * 1024 * 1024


async def get(socket_path: str, path: str, *, within_s: float) -> tuple[int, str]:
    """Returns the status and the body; raises OSError (also a TimeoutError) when there is no whole answer in time."""
    return await _ask(socket_path, f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n".encode(), within_s)


async def post(socket_path: str, path: str, body: bytes, *, within_s: float) -> tuple[int, str]:
    """Sends a body, which must be JSON; otherwise as `get`."""
    head = f"POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return await _ask(socket_path, f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, within_s)


async def _ask(socket_path: str, request: bytes, within_s: float) -> tuple[int, str]:
    async with asyncio.timeout(within_s):
        reader, writer = await asyncio.open_unix_connection(socket_path)
        try:
            # HTTP/1.0: the body ends where the connection does, and is not chunked.
            writer.write(request)
            answer = await _all_of(reader)
        finally:
            writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not separator or not status or not status[0].isdigit():
        raise ConnectionError("no HTTP response")
    return int(status[0]), body.decode("utf-8", "replace")


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await reader.read(256 * 1024):
        size += len(part)
        if size > MAX_BYTES:
            raise ConnectionError("the answer is too large")
        parts.append(part)
    return b"".join(parts)
