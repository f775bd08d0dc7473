# pyright: standard
"""grpc.health.v1: what the built-in health method answers (`Check`; `Watch` is not offered)."""

from collections.abc import Mapping, Sequence

from grpc_health.v1 import health_pb2

from dragoman.grpc_worker.api import Call, Handler, StatusCode

CHECK_METHOD = "/grpc.health.v1.Health/Check"


class HealthCheck:
    """Answers for the server as a whole (""), for each service that it has, and for other names of it."""

    def __init__(self, methods: Mapping[str, Handler], names: Sequence[str] = ()) -> None:
        self._services = {"", *(method.split("/")[1] for method in methods), *names}
        self._serving = health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()
        self._not_serving = health_pb2.HealthCheckResponse(status="NOT_SERVING").SerializeToString()
        self.serving = True

    def check(self, body: bytes, call: Call) -> None:
        try:
            service = health_pb2.HealthCheckRequest.FromString(body).service
        except Exception:
            call.fail(StatusCode.INVALID_ARGUMENT, "the request is not a HealthCheckRequest")
            return
        if service not in self._services:
            call.fail(StatusCode.NOT_FOUND, "unknown service")
            return
        call.done(self._serving if self.serving else self._not_serving)
