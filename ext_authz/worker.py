"""One worker: joins the parts and serves Check while its context lasts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dragoman.followed import keep_following
from dragoman.grpc_worker import Address, GrpcServer, Limits
from dragoman.grpc_worker import serve as serve_grpc
from dragoman.http_server import Health, json_response, serve_http
from dragoman.jwks import JwksCache
from dragoman.kept_texts import keep_texts, kept_texts
from dragoman.metrics import Collected, new_registry
from dragoman.steadiness import steady_loop
from dragoman.xds_client import XdsClient
from ext_authz.check import METHOD, Checker
from ext_authz.file_source import FileSource
from ext_authz.key_lookup import KeyLookup
from ext_authz.keys import StoreLocation, open_store
from ext_authz.policies import Policies
from ext_authz.policy import Policy
from ext_authz.settings import AuthzSettings
from ext_authz.stats import Stats, collect
from ext_authz.verdicts import VerdictCache

TYPE_URL = "type.googleapis.com/dragoman.authz.v1.Policy"
CLUSTER = "dragoman.services/authz"
MAX_MESSAGE_BYTES = 1 << 20
SWEEP_S = 1.0
log = logging.getLogger("ext_authz")


class RejectedError(Exception):
    """Policies that the control plane sent are not sound; the others of the update are in force."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that serves."""

    address: Address
    http: Address | None
    health: Health


@contextlib.asynccontextmanager
async def worker(settings: AuthzSettings) -> AsyncGenerator[Worker]:
    """Serves on `settings.listen` while the context lasts, then drains; raises OSError when it cannot listen."""
    async with contextlib.AsyncExitStack() as stack:
        parts = _Parts(settings)
        stack.push_async_callback(parts.close)
        await stack.enter_async_context(_background(keep_following(await parts.source())))
        await stack.enter_async_context(_background(parts.sweep()))
        server = await serve_grpc(
            {METHOD: parts.checker},
            listen=Address.parse(settings.listen),
            engine=settings.engine,
            limits=Limits(max_message_bytes=MAX_MESSAGE_BYTES),
            tls=settings.tls,
            observe=parts.stats.ended,
        )
        http: Address | None = None
        if settings.http is not None:
            served = await serve_http(
                health=parts.health,
                registry=parts.registry(),
                listen=Address.parse(settings.http),
                routes=[Route("/health/ready", parts.ready)],
            )
            stack.push_async_callback(served.close)
            http = served.address
        stack.push_async_callback(_stop, server, parts, settings.drain_s)
        stack.enter_context(steady_loop())
        parts.health.started()
        log.info("serving on %s", server.address)
        if settings.tls is None and not server.address.is_loopback:
            log.warning("credentials come to %s in plaintext: give tls_certificate and tls_private_key", server.address)
        yield Worker(server.address, http, parts.health)


class _Parts:
    """What a worker is made of."""

    def __init__(self, settings: AuthzSettings) -> None:
        self._settings = settings
        self._verdicts = VerdictCache(max_passes=settings.max_verdicts)
        self.stats = Stats()
        self._jwks_file = settings.state / "authz-jwks.json" if settings.state else None
        self._jwks = JwksCache(on_change=self._on_jwks, known=_known_jwks(self._jwks_file))
        self._policies = Policies(jwks_of=self._jwks.document, kept_s=settings.policy_kept_s)
        location = StoreLocation(settings.keys, settings.redis or "")
        timeout_s = settings.store_timeout_s if settings.redis else None
        self._lookup = KeyLookup(open_store(location, timeout_s=timeout_s), on_change=self._verdicts.forget_keys)
        self._following: asyncio.Task[None] | None = None
        self._keeping = asyncio.Lock()
        self.checker = Checker(
            self._policies.by_id,
            verdicts=self._verdicts,
            stats=self.stats,
            keys=self._lookup,
            refetch=self._refetch,
        )
        self.health = Health()
        self._config_note: Callable[[], str] = lambda: ""

    async def source(self) -> Callable[[], Awaitable[None]]:
        """Loads what there is, and returns what keeps it up to date."""
        state = self._settings.state
        if self._settings.config is not None:
            source = FileSource(
                self._settings.config,
                self._policies,
                on_load=self._on_policies,
                last_good=state / "authz-config.json" if state else None,
            )
            await source.load()
            self.health.watch("config", lambda: source.ready or "no configuration yet")
            self._config_note = lambda: "; ".join(source.faults[:5])
            return source.run
        assert self._settings.xds is not None
        client = XdsClient(
            self._settings.xds,
            self._settings.node_id or f"authz/{socket.gethostname()[:128]}/{os.getpid()}",
            CLUSTER,
            TYPE_URL,
            self._on_update,
            last_good=state / "authz-xds.pb" if state else None,
            credentials=self._settings.xds_credentials,
        )
        await client.load()
        self.health.watch("config", lambda: client.status.ready or "no configuration yet")
        self._config_note = lambda: client.status.rejected or client.status.error or ""
        return client.run

    def registry(self) -> CollectorRegistry:
        """Returns what `/metrics` tells."""
        registry = new_registry()
        registry.register(
            Collected(
                lambda: collect(
                    self.stats,
                    self._verdicts,
                    lambda: len(self._policies.by_id),
                    (lambda: self._lookup.reachable) if self._following is not None else None,
                )
            )
        )
        return registry

    async def ready(self, request: Request) -> Response:
        """Ready means that a configuration is in force; an outage that is lived through is told beside it."""
        notes = {"configuration": self._config_note()}
        if self._following is not None and not self._lookup.reachable:
            notes["store"] = "out of reach: verdicts that are cached stand, other keys are answered 503"
        body = {**self.health.body(), "notes": {name: note for name, note in notes.items() if note}}
        return json_response(body, 200 if self.health.is_ready else 503)

    async def sweep(self) -> None:
        """Lets go of policies that were removed long enough ago."""
        while True:
            await asyncio.sleep(SWEEP_S)
            if self._policies.sweep():
                self._jwks.want(self._policies.uris())

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._jwks.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._lookup.close()

    async def _on_update(self, changed: Mapping[str, bytes], removed: set[str]) -> None:
        invalid = await self._policies.take(changed, removed)
        self._on_policies()
        if invalid:
            raise RejectedError("; ".join(f"{policy.id}: {', '.join(policy.faults)}" for policy in invalid[:20]))

    def _on_policies(self) -> None:
        self._jwks.want(self._policies.uris())
        if self._following is None and self._policies.use_store():
            self._following = asyncio.create_task(self._lookup.follow())

    async def _on_jwks(self, uri: str, document: str) -> None:
        await self._policies.refetched(uri)
        self._verdicts.forget_refusals()
        log.info("the signing keys of an issuer have changed", extra={"uri": uri})
        async with self._keeping:
            await asyncio.to_thread(self._keep_jwks, self._policies.uris())

    def _keep_jwks(self, wanted: Iterable[str]) -> None:
        if self._jwks_file is None:
            return
        kept = {each: self._jwks.document(each) for each in wanted}
        try:
            keep_texts(self._jwks_file, {name: text for name, text in kept.items() if text})
        except OSError as error:
            log.warning("signing keys cannot be kept in %s: %s", self._jwks_file, error)

    def _refetch(self, policy: Policy) -> Awaitable[bool] | None:
        uris = dict.fromkeys(provider.jwks_uri for provider in policy.providers if provider.jwks_uri)
        flights = [flight for flight in map(self._jwks.refetch, uris) if flight is not None]
        return _any_changed(flights) if flights else None


async def _any_changed(flights: list[asyncio.Future[bool]]) -> bool:
    # Not gathered: who gives up waiting must not cancel a fetch that others wait for.
    await asyncio.wait(flights)
    return any(not flight.cancelled() and flight.result() for flight in flights)


def _known_jwks(file: Path | None) -> dict[str, str]:
    if file is None:
        return {}
    try:
        return kept_texts(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("the signing keys kept in %s cannot be read: %s", file, error)
        return {}


async def _stop(server: GrpcServer, parts: _Parts, drain_s: float) -> None:
    parts.health.drain()
    server.set_serving(False)
    await server.drain(drain_s)
    await parts.checker.drain()


@contextlib.asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
