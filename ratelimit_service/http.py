# pyright: standard, reportAttributeAccessIssue=false
"""The HTTP endpoints that envoyproxy/ratelimit has too: `POST /json`, `/healthcheck` and `/rlconfig`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dragoman.grpc_worker import Handler, StatusCode
from dragoman.http_server import Health
from ratelimit_service.in_force import as_json, as_text
from ratelimit_service.service import Service

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
MAX_IN_FLIGHT = 64
"""Decisions asked for at a time over HTTP; what comes above is told to come back."""
READ_WITHIN_S = 5.0
ANSWER_WITHIN_S = 10.0
_MAX_DEPTH = 16
_MAX_WHY = 300

Endpoint = Callable[[Request], Awaitable[Response]]

_RESPONSE = rls_pb2.RateLimitResponse
_STATUSES = {_RESPONSE.OK: HTTPStatus.OK, _RESPONSE.OVER_LIMIT: HTTPStatus.TOO_MANY_REQUESTS}


def routes(handler: Handler, service: Service, health: Health) -> list[Route]:
    """Returns the endpoints; decisions over HTTP are the handler's, as those over gRPC are."""
    return [
        Route("/json", JsonEndpoint(handler).answer, methods=["POST"]),
        Route("/healthcheck", _healthcheck(lambda: health.is_ready)),
        Route("/rlconfig", _rlconfig(service)),
    ]


class JsonEndpoint:
    """Decides for a RateLimitRequest in protobuf's JSON: for clients that cannot speak gRPC."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._in_flight = 0

    async def answer(self, request: Request) -> Response:
        """Answers 200 or 429 with a RateLimitResponse; 400, 413, 500 or 503 with words."""
        if self._in_flight >= MAX_IN_FLIGHT:
            return refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests in flight", retry_after_s=1)
        self._in_flight += 1
        try:
            return await self._decide(request)
        finally:
            self._in_flight -= 1

    async def _decide(self, request: Request) -> Response:
        body = await read_body(request)
        if isinstance(body, Response):
            return body
        message = rls_pb2.RateLimitRequest()
        try:
            json_format.Parse(body, message, max_recursion_depth=_MAX_DEPTH)
            encoded = message.SerializeToString()
        except (json_format.Error, ValueError, RecursionError) as error:
            return refused(HTTPStatus.BAD_REQUEST, f"not a RateLimitRequest in JSON: {_one_line(error)}")
        call = _JsonCall()
        try:
            self._handler(encoded, call)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                code, answer = await call.answered
        except TimeoutError:
            return refused(HTTPStatus.INTERNAL_SERVER_ERROR, "no answer in time")
        except Exception:
            _log.exception("the decision failed")
            return refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
        finally:
            call.cancelled = not call.answered.done() or call.answered.cancelled()
        if isinstance(answer, str):
            bad = code is StatusCode.INVALID_ARGUMENT
            return refused(HTTPStatus.BAD_REQUEST if bad else HTTPStatus.INTERNAL_SERVER_ERROR, answer)
        return _told(answer)


class _JsonCall:
    """A `Call` whose answer is waited for."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.deadline: float | None = loop.time() + ANSWER_WITHIN_S
        self.cancelled = False
        self.answered: asyncio.Future[tuple[StatusCode, bytes | str]] = loop.create_future()

    def done(self, body: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result((StatusCode.OK, body))

    def fail(self, code: StatusCode, message: str) -> None:
        if not self.answered.done():
            self.answered.set_result((code, message))


def _one_line(error: Exception) -> str:
    # It repeats what was sent, so it is as long as that, and of any characters.
    text = "".join(char if char.isprintable() else " " for char in str(error)[:_MAX_WHY])
    return "it must be an object" if "TypeError" in text else text.rstrip(". ")


def _told(answer: bytes) -> Response:
    try:
        response = _RESPONSE.FromString(answer)
    except DecodeError:
        return refused(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
    status = _STATUSES.get(response.overall_code, HTTPStatus.INTERNAL_SERVER_ERROR)
    content = json_format.MessageToJson(response, indent=None)
    return Response(content + "\n", status, media_type="application/json")


async def read_body(request: Request) -> bytes | Response:
    """Returns the body, or how it is refused that is too large, too slow or broken off."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    return refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {MAX_BODY_BYTES} bytes")
                parts.append(part)
    except (TimeoutError, ClientDisconnect):
        return refused(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive whole")
    return b"".join(parts)


def refused(status: HTTPStatus, why: str, *, retry_after_s: int = 0) -> Response:
    """Returns a response that says why in a line of text."""
    headers = {"retry-after": str(retry_after_s)} if retry_after_s else None
    return PlainTextResponse(f"{status.phrase}: {why}\n", status, headers)


def healthy(is_ready: bool) -> Response:
    """Returns what `/healthcheck` answers: `OK`, or 500 with nothing."""
    return PlainTextResponse("OK") if is_ready else Response(status_code=HTTPStatus.INTERNAL_SERVER_ERROR)


def _healthcheck(is_ready: Callable[[], bool]) -> Endpoint:
    async def answer(request: Request) -> Response:
        return healthy(is_ready())

    return answer


def _rlconfig(service: Service) -> Endpoint:
    async def answer(request: Request) -> Response:
        if request.query_params.get("format") == "json":
            return Response("".join([part async for part in as_json(service)]), media_type="application/json")
        return PlainTextResponse("".join([part async for part in as_text(service.config)]))

    return answer
