"""The route `/changes` of the HTTP port: what became of the last changes, for `dragoman trace`."""

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


def changes_route(find: Callable[[], ControlPlane | None]) -> Route:
    """Returns the route of `/changes?object=...&last=...&since=...`: the newest change last.

    It tells of every namespace, so it is for who comes by loopback. While there is no control plane, the answer is 503.
    """

    async def changes(request: Request) -> Response:
        if not comes_by_loopback(request):
            return json_response({"error": "this is for who comes by loopback: kubectl port-forward"}, 403)
        from controlplane.slices import in_slices

        plane, asked = find(), request.query_params
        if plane is None:
            return starting()
        try:
            last, since = int(asked.get("last", "256")), int(asked.get("since", "0"))
        except ValueError:
            return json_response({"error": "expected whole numbers: last, since"}, 400)
        tracer, newest = plane.tracer, plane.tracer.newest
        told = await in_slices(
            lambda: tracer.telling(words=asked.get("object", ""), last=last, since=since), state=lambda: None
        )
        return json_response({"newest": newest, "changes": told})

    return Route("/changes", changes)
