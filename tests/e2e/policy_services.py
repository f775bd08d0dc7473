"""The services beside a Gateway under test, as xDS clients of its control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.xds.identity import Principal
from ext_authz.settings import AuthzSettings
from ext_authz.worker import Worker as AuthzWorker
from ext_authz.worker import worker as authz_worker
from ratelimit_service.main import Worker as RateLimitWorker
from ratelimit_service.main import worker as ratelimit_worker
from ratelimit_service.settings import RateLimitSettings
from tests.support.gateway import Gateway
from tests.support.waiting import until


@asynccontextmanager
async def ratelimit(gateway: Gateway) -> AsyncIterator[RateLimitWorker]:
    """The rate limit service with counters in memory."""
    await listen(gateway, "ratelimit")
    settings = RateLimitSettings(
        listen=f"unix:{gateway.home}/ratelimit.sock", xds=f"unix:{gateway.home}/xds-ratelimit.sock", drain_s=0.1
    )
    async with ratelimit_worker(settings) as serving:
        # Until both sides are ready, requests pass uncounted, as policies have it that fail open.
        await until(lambda: serving.service.ready, what="the limits to be in force")
        announce(gateway, "ratelimit")
        await known(gateway, "ratelimit")
        yield serving


@asynccontextmanager
async def authz(gateway: Gateway) -> AsyncIterator[AuthzWorker]:
    """ext_authz with keys in `keys.db` in the Gateway's home."""
    await listen(gateway, "authz")
    settings = AuthzSettings(
        listen=f"unix:{gateway.home}/authz.sock",
        xds=f"unix:{gateway.home}/xds-authz.sock",
        keys=gateway.home / "keys.db",
    )
    async with authz_worker(settings) as serving:
        announce(gateway, "authz")
        await known(gateway, "authz")
        yield serving


async def listen(gateway: Gateway, service: str) -> None:
    assert gateway.plane is not None
    await gateway.plane.listen(f"unix:{gateway.home}/xds-{service}.sock", Principal("service", service))


async def known(gateway: Gateway, service: str) -> None:
    """Waits until Envoy knows where the service is, if it knows that there is one."""
    envoy = gateway.envoy
    assert envoy is not None

    async def told() -> bool:
        lines = (await envoy.admin("/clusters")).text.splitlines()
        of_service = [line for line in lines if line.startswith(f"dragoman-{service}::")]
        return not of_service or any(f"{service}.sock" in line for line in of_service)

    await until(told, what=f"Envoy to know where {service} is")


def announce(gateway: Gateway, service: str) -> None:
    """Tells the Envoys of a Gateway that the service listens on its socket."""
    assert gateway.plane is not None
    step = gateway.plane.engine.serve_at({f"dragoman-{service}": (f"unix:{gateway.home}/{service}.sock",)})
    gateway.plane._publish(step)
