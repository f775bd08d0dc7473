"""What a running control plane answers to `dragoman explain` and `dragoman diff`, beside `/status`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.http_server import json_response

if TYPE_CHECKING:
    from controlplane.engine import Engine
    from controlplane.explain import Explanation
    from controlplane.slices import Steps


class _NotReadyError(Exception):
    """There is no engine that could be asked."""


def inspection_routes(find: Callable[[], Engine | None]) -> list[Route]:
    """Returns `/explain?url=...&method=...&header=...&gateway=...&listener=...` and `/summary`.

    Both tell of every namespace, and take time of the control plane's own: they are for who comes by loopback. As long
    as there is no engine that could be asked, they answer 503.
    """

    def ready() -> Engine:
        engine = find()
        if engine is None:
            raise _NotReadyError
        return engine

    def state() -> tuple[int, bool]:
        """Differs once the engine has moved on, or is in another's hands."""
        engine = find()
        return (engine.steps if engine is not None else 0), engine is not None

    async def explain(request: Request) -> Response:
        from controlplane.explain import Request as Asked
        from controlplane.explain import explaining, in_slices, locator

        asked = request.query_params
        try:
            described = Asked.of(
                asked.get("url", ""), method=asked.get("method", "GET"), headers=asked.getlist("header")
            )
        except ValueError as error:
            return json_response({"error": str(error)}, 400)

        def work() -> Steps[Explanation]:
            engine = ready()
            gateway, listener = asked.get("gateway"), asked.get("listener")
            return explaining(engine.pipeline, described, locate=locator(engine), gateway=gateway, listener=listener)

        try:
            found = await in_slices(work, state=state)
        except _NotReadyError:
            return starting()
        return json_response(found.to_json())

    async def summary(request: Request) -> Response:
        from controlplane.explain import in_slices
        from controlplane.explain.summary import summing
        from controlplane.slices import encoding

        try:
            found = await in_slices(lambda: summing(ready()), state=state)
        except _NotReadyError:
            return starting()
        text = await in_slices(lambda: encoding(found.to_json()), state=lambda: None)
        return Response(text + "\n", media_type="application/json")

    return [Route("/explain", _by_loopback(explain)), Route("/summary", _by_loopback(summary))]


def starting() -> Response:
    """Returns what is answered as long as nothing can be told."""
    return json_response({"error": "the control plane is still starting"}, 503)


def comes_by_loopback(request: Request) -> bool:
    """Says whether a request is from this machine, or by `kubectl port-forward`."""
    if request.client is None:
        return True  # A Unix socket.
    try:
        # What listens on `::` is told of IPv4 clients by mapped addresses.
        return ip_address(request.client.host.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return not request.client.host


_Endpoint = Callable[[Request], Awaitable[Response]]


def _by_loopback(endpoint: _Endpoint) -> _Endpoint:
    async def guarded(request: Request) -> Response:
        if not comes_by_loopback(request):
            return json_response({"error": "this is for who comes by loopback: kubectl port-forward"}, 403)
        return await endpoint(request)

    return guarded
