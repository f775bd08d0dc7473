"""What the control plane's HTTP port says of everything: `/status`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.cli.inspection import comes_by_loopback, starting
from dragoman.http_server import json_response

if TYPE_CHECKING:
    from controlplane.server import ControlPlane


def status_route(find: Callable[[], ControlPlane | None], *, to_all: bool = True) -> Route:
    """Returns the route of `/status`: every object's conditions, and how far each client is.

    Unless it is there `to_all` who reach the port, they must come by loopback (as `kubectl port-forward` does). While
    there is no control plane that could be asked, the answer is 503.
    """

    async def status(request: Request) -> Response:
        if not to_all and not comes_by_loopback(request):
            return json_response({"error": "the status is for who comes by loopback: kubectl port-forward"}, 403)
        plane = find()
        return starting() if plane is None or plane.busy else json_response(plane.report().to_json())

    return Route("/status", status)
