"""Whether the service is ready, and what it does without: a lost store or control plane is told, but stops nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.http_server import Health, json_response

Without = Callable[[], str | None]
"""Says in words what is missing, None when all is there."""


def ready_route(health: Health, without: Mapping[str, Without]) -> Route:
    """Returns `/health/ready`: the checks, and under `degraded` what the service has to do without."""

    async def ready(request: Request) -> Response:
        told = ((name, say()) for name, say in without.items())
        degraded = {name: words for name, words in told if words is not None}
        return json_response({**health.body(), "degraded": degraded}, 200 if health.is_ready else 503)

    return Route("/health/ready", ready)
