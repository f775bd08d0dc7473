"""The control plane in a cluster: objects come from the API server, and what is to be said of them goes there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from controlplane.api.meta import ObjectKey
from controlplane.cluster import admission
from controlplane.cluster.doorway import Doorway, doorway
from controlplane.cluster.envoys import Envoys, Trust
from controlplane.cluster.others import listens_at, others
from controlplane.cluster.services import ServiceWorkers
from controlplane.cluster.settings import ClusterSettings
from controlplane.cluster.statuses import DesiredStatuses, concerned
from controlplane.compile.gateway import CONTROLLER_NAME
from controlplane.engine import Step
from controlplane.kept.front import Front
from controlplane.kube.client import Api
from controlplane.kube.lease import Election, identity_of
from controlplane.provision.kubernetes.ports import bind
from controlplane.quarantine.validator import Validator
from controlplane.replicas import METHOD
from controlplane.replicas.replicas import Replicas
from controlplane.server import ControlPlane
from controlplane.sources.kubernetes import KubernetesSource
from controlplane.status.encode import Setting
from controlplane.status.events import EventWriter
from controlplane.status.ingress import is_ingress
from controlplane.status.writer import StatusWriter
from controlplane.translate.services import AUTHZ_CLUSTER, QUOTA_CLUSTER, RATE_LIMIT_CLUSTER
from controlplane.xds.events import Nack, StreamEvent
from controlplane.xds.identity import Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.server import Context, End
from dragoman.xds_credentials import XdsCredentials

_log = logging.getLogger(__name__)

SERVICE_CLUSTERS: Final = {"authz": AUTHZ_CLUSTER, "ratelimit": RATE_LIMIT_CLUSTER, "quota": QUOTA_CLUSTER}
_PARTS: Final = {"authz": ("authz",), "ratelimit": ("ratelimit", "quota")}
"""What shows the certificate of a service: limits are divided by the rate limit service, on a port of its own."""


class ClusterControlPlane:
    """`async with ClusterControlPlane(api, ...) as cluster`: serves until left; `cluster.plane` is what serves."""

    def __init__(
        self,
        api: Api,
        settings: ClusterSettings,
        *,
        xds: str,
        registry: CollectorRegistry,
        insecure: bool = False,
        nameservers: Iterable[tuple[str, int]] = (),
        services: Mapping[str, tuple[str, ...]] | None = None,
        state: Path | None = None,
        front: Front | None = None,
        door: Doorway | None = None,
        on_failure: Callable[[], None] = lambda: None,
        validator: Validator | None = None,
    ) -> None:
        """`on_failure` hears that a part has failed for good, so that the process had better end: see `failure`.

        A `front` may serve already, to who comes by the `door`.
        """
        self._door = door or doorway(settings, state=None)
        self._door.share.work = self._attend
        self.failure: str | None = None
        self._on_failure = on_failure
        self._api = api
        self._settings = settings
        self._xds = xds
        self._insecure = insecure
        self._stack = contextlib.AsyncExitStack()
        self._ready = asyncio.Event()
        self.source = KubernetesSource(api, namespaces=settings.namespaces)
        self.source.on_observed = self._observed
        identity = settings.identity
        self.election = Election(
            api,
            namespace=identity.namespace,
            name=settings.lease,
            identity=(name := identity_of(identity.name)),
            address=(reached_at := listens_at(identity.address, xds)),
            on_change=self._lead,
        )
        self._listen: dict[str, Any] = {}
        served = self._services = {service: found for service, found in (services or {}).items() if found}
        self._workers = ServiceWorkers({SERVICE_CLUSTERS[service]: found for service, found in served.items()})
        self.plane = ControlPlane(
            self.source,
            bind=bind,
            listen=self._listen,
            nameservers=tuple(nameservers),
            insecure_off_loopback=insecure,
            metrics=XdsMetrics(registry) if front is None else None,
            authz=served.get("authz", ()),
            ratelimit=served.get("ratelimit", ()),
            ratelimit_quota=served.get("quota", ()),
            state=state,
            front=front,
            on_step=self._stepped,
            on_nack=self._nacked,
            on_settled=self._settled,
            on_stream=self._came_or_went,
            on_key_set=self._fetched,
            methods={METHOD: self._attend},
            may_begin=self._may_begin,
            policies_settled_elsewhere=self._policies_settled,
            fetch_key_sets=False,
            # Who may write a Backend is not who runs Envoy, whose admin endpoint is on loopback.
            remote_backends_only=True,
            validator=validator,
        )
        self.replicas = Replicas(
            self.plane,
            self.election,
            identity=name,
            address=identity.address,
            reached_at=reached_at,
            metadata=self._credentials(),
            others=partial(others, api, settings),
            on_change=self._clients_moved,
        )
        self.plane.engine_metrics.waiting = lambda: self.source.waiting
        registry.register(self.plane.engine_metrics)
        registry.register(self.plane.quarantine.metrics)
        engine = self.plane.engine
        self.envoys = Envoys(api, settings, uid_of=self._uid_of, on_change=self._moved)
        self._desired = DesiredStatuses(
            engine,
            clients=self.replicas.census,
            nacks=self.replicas.nacks,
            withheld_s=self.replicas.withheld_s,
            addresses=self.envoys.addresses,
            trouble=self.envoys.trouble,
        )
        self.writer = StatusWriter(
            api,
            observed=self.source.observed,
            desired=self._desired.of,
            keys=self._desired.keys,
            setting=lambda: Setting(CONTROLLER_NAME, self.source.versions),
            leading=lambda: self.election.leading,
        )
        registry.register(self.writer.metrics)
        self.events = EventWriter(
            api,
            wrong=self._desired.wrong,
            observed=self.source.observed,
            keys=self._desired.ingresses,
            leading=lambda: self.election.leading,
            instance=identity.name,
        )

    async def __aenter__(self) -> ClusterControlPlane:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        settings = self._settings
        if self._insecure or settings.secret is None:
            self._listen[self._xds] = Principal("any")
        else:
            secured = await admission.secured(self._api, settings, settings.secret, self._door, on_trust=self._trust)
            self._listen[self._xds] = secured.admission
            for name, work in secured.tasks.items():
                self._run(name, work)
        await self._stack.enter_async_context(self.plane)
        self._run("replicas", self.replicas.run())
        await self._secure_services()
        self._run("statuses", self.writer.run())
        self._run("events", self.events.run())
        self._run("envoys", self.envoys.run())
        self._run("election", self._stand())

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self._stack.push_async_callback(_end, task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = f"{task.get_name()} has failed: {error!r}"
            _log.critical("%s has failed", task.get_name(), exc_info=error)
            self._on_failure()

    async def _secure_services(self) -> None:
        for service, secret in self._settings.service_secrets.items():
            parts = [part for part in _PARTS[service] if part in self._services]
            if not parts:
                continue
            clusters = [SERVICE_CLUSTERS[part] for part in parts]
            keeping = await admission.secured_service(
                self._api,
                self._settings,
                secret,
                self._services[parts[0]][0],
                on_trust=lambda tls, clusters=clusters: self.plane.trust_services(dict.fromkeys(clusters, tls)),
            )
            self._run(f"certificate of {service}", keeping)

    async def _stand(self) -> None:
        # Who has not read everything would say of routes that they are on no Gateway.
        await self._ready.wait()
        await self.election.run()

    def _credentials(self) -> Callable[[], tuple[tuple[str, str], ...]] | None:
        settings = self._settings
        secured = settings.secret is not None and not self._insecure
        if not (secured and settings.token is not None and "controlplane" in settings.service_accounts):
            _log.info("this replica shares nothing with others: it has no identity that it could show them")
            return None
        return XdsCredentials(token=settings.token).metadata

    def _may_begin(self) -> bool:
        return self.replicas.may_begin()

    def _policies_settled(self) -> bool:
        return self.replicas.policies_settled()

    async def _attend(self, context: Context, principal: Principal) -> End | None:
        return await self.replicas.attend(context, principal)

    def trouble(self) -> str | None:
        """Returns why objects of the cluster cannot be read, or not yet; None if all is well."""
        return self.source.trouble

    # What happens

    def _trust(self, trust: Trust) -> None:
        self.envoys.trust(trust)
        self.replicas.trust(trust.authorities, trust.server_name)

    def _stepped(self, step: Step) -> None:
        self.replicas.stepped(step)
        if self.plane.ready:
            self._ready.set()
        changed = self._desired.with_ingresses((*step.statuses, *step.changed))
        self._enqueue(changed)
        self.events.enqueue(filter(is_ingress, changed))
        if self._workers.concerned(step.changed):
            asyncio.get_running_loop().call_soon(self._find_workers)
        self.envoys.take(self.plane.engine.pipeline.infrastructure.changes.take_changes(), complete=self.plane.ready)

    def _find_workers(self) -> None:
        engine = self.plane.engine
        self.plane.when_free(lambda: self.plane.serve_at(self._workers.addresses(engine.pipeline.objects)))

    def _observed(self, keys: Iterable[ObjectKey]) -> None:
        self._enqueue(keys)
        self.envoys.seen(keys)

    def _moved(self, keys: Iterable[ObjectKey]) -> None:
        self._enqueue(self._desired.carried(keys))

    def _settled(self, owner: str) -> None:
        self.replicas.moved(owner)
        self._clients_moved(owner)

    def _nacked(self, nack: Nack) -> None:
        self.replicas.moved(nack.owner)
        self._clients_moved(nack.owner)

    def _fetched(self, uri: str) -> None:
        self.replicas.fetched(uri)

    def _came_or_went(self, event: StreamEvent) -> None:
        self.replicas.came_or_went(event)

    def _clients_moved(self, owner: str) -> None:
        if self.plane.ready:  # Until then nothing is said of anything, and the engine is another's.
            self._enqueue(concerned(self.plane.engine, owner))

    def _enqueue(self, keys: Iterable[ObjectKey]) -> None:
        self.writer.enqueue(keys)

    def _lead(self, leading: bool) -> None:
        _log.info("this replica leads" if leading else "this replica follows")
        self.replicas.lead(leading)
        self.writer.lead(leading)
        self.events.lead(leading)
        self.envoys.lead(leading)

    def _uid_of(self, key: ObjectKey) -> str | None:
        found = self.source.observed(key)
        return found.uid if found is not None else None


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
