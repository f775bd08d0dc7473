"""What the process that supervises several workers answers for them over HTTP: decisions, health, what is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from itertools import count

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.unix_http import get, post
from dragoman.workers import WorkerPlace
from ratelimit_service.http import ANSWER_WITHIN_S, MAX_IN_FLIGHT, healthy, read_body, refused

_ASK_WITHIN_S = 2.0
Answer = tuple[int, str]


def pool_routes(places: Sequence[WorkerPlace]) -> list[Route]:
    """Returns `/json`, asked of the workers in turn, `/healthcheck`, of all of them, and `/rlconfig`, of the first."""
    turns = count()
    in_flight = 0

    async def decide(request: Request) -> Response:
        nonlocal in_flight
        if in_flight >= MAX_IN_FLIGHT:
            return refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many requests in flight", retry_after_s=1)
        in_flight += 1
        try:
            body = await read_body(request)
            if isinstance(body, Response):
                return body
            at = next(turns) % len(places)
            # A decision is asked for once: asked of another worker after a time-out, it would count twice.
            return await _told(post(places[at].http.path, "/json", body, within_s=ANSWER_WITHIN_S + 1))
        finally:
            in_flight -= 1

    async def healthcheck(request: Request) -> Response:
        answers = await asyncio.gather(*(_status(place, "/healthcheck") for place in places))
        return healthy(all(status == HTTPStatus.OK for status in answers))

    async def rlconfig(request: Request) -> Response:
        query = "?format=json" if request.query_params.get("format") == "json" else ""
        return await _told(get(places[0].http.path, f"/rlconfig{query}", within_s=ANSWER_WITHIN_S))

    endpoints: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("POST", "/json", decide),
        ("GET", "/healthcheck", healthcheck),
        ("GET", "/rlconfig", rlconfig),
    ]
    return [Route(path, endpoint, methods=[method]) for method, path, endpoint in endpoints]


async def _told(asked: Awaitable[Answer]) -> Response:
    try:
        status, text = await asked
    except OSError:
        return refused(HTTPStatus.INTERNAL_SERVER_ERROR, "the worker does not answer")
    return Response(text, status, media_type="application/json" if text.startswith("{") else "text/plain")


async def _status(place: WorkerPlace, path: str) -> int:
    try:
        return (await get(place.http.path, path, within_s=_ASK_WITHIN_S))[0]
    except OSError:
        return 0
