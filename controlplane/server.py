"""The control plane as a running thing: sources drive the engine, the engine's snapshots go to the xDS cache."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from controlplane.api.load import load
from controlplane.engine import Bind, Engine, Step
from controlplane.kept.front import Front
from controlplane.kept.keeper import Keeper
from controlplane.kept.requirements import Requirements
from controlplane.keysets import KeySets
from controlplane.memory import Memory
from controlplane.metrics import EngineMetrics
from controlplane.pace import Pace
from controlplane.pipeline import Pipeline
from controlplane.pipeline.guards import SERVICES
from controlplane.pipeline.policies import is_policy, key_sets_of
from controlplane.quarantine.quarantine import Quarantine
from controlplane.quarantine.validator import Validator
from controlplane.sources.changes import Changes
from controlplane.sources.dns import DnsSource
from controlplane.state import State
from controlplane.status.report import Report, report
from controlplane.translate.filters.jwt import NAME as JWT
from controlplane.translate.services import AUTHZ_CLUSTER, QUOTA_CLUSTER, RATE_LIMIT_CLUSTER, ServiceTls
from controlplane.turns import Turns
from controlplane.xds.cache import Observers, SnapshotCache
from controlplane.xds.events import Nack, StreamEvent
from controlplane.xds.identity import GRPC_SUFFIX, Principal
from controlplane.xds.metrics import XdsMetrics
from controlplane.xds.resources import Snapshot
from controlplane.xds.server import Admission, AdsServer, Method, serve_ads

_log = logging.getLogger(__name__)

_AGE_EVERY_S = 5.0
_KEY_SETS_WITHIN_S = 3.0
_KEY_SETS_FIRST_S = 1.0


class Source(Protocol):
    """Where objects come from: all of them once, then what changes."""

    def read(self) -> Changes: ...
    def watch(self, stop: asyncio.Event) -> AsyncIterator[Changes]: ...


class ControlPlane:
    """`async with ControlPlane(...) as plane`: serves until left. `on_step` hears what each change did."""

    def __init__(
        self,
        source: Source,
        *,
        bind: Bind,
        listen: Mapping[str, Admission],
        nameservers: Sequence[tuple[str, int]] = (),
        insecure_off_loopback: bool = False,
        metrics: XdsMetrics | None = None,
        authz: Sequence[str] = (),
        ratelimit: Sequence[str] | None = None,
        state: Path | None = None,
        front: Front | None = None,
        on_step: Callable[[Step], None] = lambda step: None,
        on_nack: Callable[[Nack], None] = lambda nack: None,
        on_settled: Callable[[str], None] = lambda owner: None,
        on_stream: Callable[[StreamEvent], None] = lambda event: None,
        on_key_set: Callable[[str], None] = lambda uri: None,
        methods: Mapping[str, Method] | None = None,
        may_begin: Callable[[], bool] = lambda: True,
        policies_settled_elsewhere: Callable[[], bool] = lambda: True,
        fetch_key_sets: bool = True,
        ratelimit_quota: Sequence[str] = (),
        remote_backends_only: bool = False,
        validator: Validator | None = None,
    ) -> None:
        """`methods` are served beside xDS. Nothing is published before `may_begin`, asked at every step, says so. The
        cache of a `front` is taken over; one that serves already had its own `listen` and `methods`. With `ratelimit`
        of None the engine is told later where the service is. With `remote_backends_only` no Backend may be on the
        machine of Envoy itself. A `validator` is asked about what is risky, before it is published.
        """
        counted, divided = ratelimit is None or bool(ratelimit), bool(ratelimit_quota)
        pipeline = Pipeline(remote_backends_only=remote_backends_only, quota_mode=divided, rate_limit_service=counted)
        self.engine = Engine(bind=bind, now=lambda: datetime.now(UTC), pipeline=pipeline)
        self.engine_metrics = EngineMetrics(self.engine)
        self.tracer = self.engine_metrics.tracer
        self.cache = SnapshotCache(metrics=metrics) if front is None else front.cache
        self._policies_settled_elsewhere = policies_settled_elsewhere
        self._front = front
        self._keeper: Keeper | None = None
        self._turns = Turns()
        self.nacks: dict[tuple[str, str], Nack] = {}
        self._source = source
        self._listen = listen
        self._insecure_off_loopback = insecure_off_loopback
        self._on_step = on_step
        self._on_nack = on_nack
        self._on_settled = on_settled
        self._on_stream = on_stream
        self._on_key_set = on_key_set
        self._methods = methods
        self._may_begin = may_begin
        self._dns = DnsSource(self._resolved, nameservers=nameservers)
        self._services = {AUTHZ_CLUSTER: tuple(authz), RATE_LIMIT_CLUSTER: tuple(ratelimit or ())}
        self._services |= {QUOTA_CLUSTER: tuple(ratelimit_quota)} if ratelimit_quota else {}
        self.key_sets = KeySets(on_change=self._fetched, fetching=fetch_key_sets)
        self._state = state
        self._memory: Memory | None = None
        self._requirements: Requirements | None = None
        self._stop = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()
        self.ads: AdsServer | None = None
        self._held: dict[str, Snapshot | None] = {}
        self._read_whole = False
        self._built = False
        self._patient = True
        self._pace = Pace()
        self.quarantine = Quarantine(self.engine, self.cache, publish=self._publish_of_quarantine, later=self._later)
        if validator is not None:
            self.quarantine.rehearsal.ask(validator, self.when_free)

    @property
    def ready(self) -> bool:
        """Says whether the first snapshot has been built."""
        return self._built

    @property
    def busy(self) -> bool:
        """Whether the engine is at work on a thread, so that nobody else may use it: for seconds at the start."""
        return self._turns.taken

    @property
    def awaits(self) -> str:
        """What the first snapshot waits for, in words."""
        if self._turns.taken:
            return "it is being read"
        if not self._read_whole:
            return str(self.engine.faults[0]) if self.engine.faults else "it has not said yet what there is"
        return "names or key sets have no answer yet" if self._may_begin() else "other replicas are asked first"

    async def __aenter__(self) -> ControlPlane:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _start(self) -> None:
        observers = Observers(
            on_ack=self.quarantine.acked,
            on_nack=self._nacked,
            on_stream=self._stream_changed,
            on_settled=self._settled,
        )
        self.cache.adopt(observers, self.tracer, self._policies_settled_elsewhere)
        if self._front is not None:
            self.ads = self._front.ads
            self._keeper = self._front.keeper()
        if self.ads is None:
            self.ads = await serve_ads(
                self.cache,
                listen=self._listen,
                insecure_off_loopback=self._insecure_off_loopback,
                methods=self._methods,
            )
            self._stack.push_async_callback(self.ads.stop, 0.0)
        if self._keeper is not None:
            self._stack.push_async_callback(self._keeper.close)
        self._stack.push_async_callback(self._dns.stop)
        self._stack.push_async_callback(self.key_sets.close)
        self._stack.push_async_callback(self.quarantine.rehearsal.close)
        self.engine.serve_at(self._services)
        self.cache.await_workers(owner for cluster, owner in SERVICES.items() if self._services.get(cluster))
        if self._state is not None:
            self._memory = Memory(State(self._state), self.engine, self.quarantine)
            self._stack.push_async_callback(self._memory.close)
            self._requirements = Requirements(self._state.parent / "requirements", name=JWT)
            self.engine.carry_over(self._requirements.load())
        await self._turns.apart(self._begin, self._taken)
        for name, work in (("source", self._watch()), ("ageing", self._age())):
            task = asyncio.create_task(work, name=name)
            self._stack.push_async_callback(_end, task, self._stop)
        impatience = asyncio.get_running_loop().call_later(_KEY_SETS_WITHIN_S, self._stop_waiting_for_key_sets)
        self._stack.callback(impatience.cancel)

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def listen(self, address: str, principal: Principal) -> None:
        """Serves xDS on one more address, to who comes by it."""
        server = await serve_ads(
            self.cache, listen={address: principal}, insecure_off_loopback=self._insecure_off_loopback
        )
        self._stack.push_async_callback(server.stop, 0.0)

    def serve_at(self, services: Mapping[str, tuple[str, ...]]) -> None:
        """Takes in where the workers of the services are, by the names of Envoy's clusters."""
        self._turns.take(lambda: self._publish(self.engine.serve_at(services)))

    def trust_services(self, tls: Mapping[str, ServiceTls]) -> None:
        """Takes in that services are spoken to in TLS, and by what each is known."""
        self._turns.take(lambda: self._publish(self.engine.trust_services(tls)))

    def reconsider(self, step: Step | None = None) -> None:
        """Publishes a step of the engine's that another has caused, or what may be published only now."""
        self._turns.take(lambda: self._publish(step if step is not None else self.engine.age()))

    def when_free(self, work: Callable[[], object]) -> None:
        """Does what uses the engine: now, or when it is nobody else's turn."""
        self._turns.take(work)

    def report(self) -> Report:
        """Returns what is to be said about every object, and how far each client is; not while `busy`."""
        return report(self.engine, self.cache, self.nacks.values())

    async def _watch(self) -> None:
        async for changes in self._source.watch(self._stop):
            try:
                await self._fetch_keys_first(changes)
                if not self._built:
                    await self._turns.apart(partial(self._apply, changes), self._taken)
                    continue
                with self._pace.step():
                    self._taken(self._apply(changes))
            except Exception:
                # A fault of ours: what is in force stays, and whatever changes next has its chance.
                _log.exception("changes could not be taken in: %s", ", ".join(str(r.key) for r in changes.upserted[:8]))
            await self._pace.rest()  # The source goes on collecting.

    async def _age(self) -> None:
        while True:
            await asyncio.sleep(_AGE_EVERY_S)
            self._turns.take(self._grow_old)

    def _grow_old(self) -> None:
        step = self.engine.age()
        if step.snapshots or step.statuses:
            self._publish(step)
        self.quarantine.age()

    async def _fetch_keys_first(self, changes: Changes) -> None:
        """Fetches the key sets that changes name for the first time, so that policies find their keys.

        Until then, and no longer than a moment, what is in force stays: a route that is given a guard goes on as it
        is, and one that is new with its guard is not there yet.
        """
        pipeline = self.engine.pipeline
        policies = [load(raw.document).object for raw in changes.upserted if is_policy(raw.key)]
        named = {uri: every_s for policy in policies for uri, every_s in key_sets_of(policy)}
        new = {uri: every_s for uri, every_s in named.items() if pipeline.objects.key_sets.peek(uri) is None}
        if new:
            await self.key_sets.arrive(new, within_s=_KEY_SETS_FIRST_S)

    def _begin(self) -> tuple[Changes, Step]:
        """Reads and takes in everything for the first time: on a thread, for clients are served meanwhile."""
        if self._memory is not None:
            self._dns.remember(self._memory.restore())
        return self._apply(self._source.read())

    def _apply(self, changes: Changes) -> tuple[Changes, Step]:
        if self._memory is not None:
            changes = self._memory.fill_in(changes)
        self.quarantine.rehearsal.expect(changes)
        return changes, self.engine.apply(changes)

    def _taken(self, done: tuple[Changes, Step]) -> None:
        changes, step = done
        self._want()
        self._read_whole = self._read_whole or changes.complete
        self._publish(step, seen_at=changes.seen_at)

    def _want(self) -> None:
        self._dns.watch(self.engine.pipeline.wanted_hosts())
        self.key_sets.want(self.engine.pipeline.wanted_key_sets())

    def _resolved(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        self._turns.take(lambda: self._publish(self.engine.resolve(addresses)))

    def _fetched(self, uri: str, document: str) -> None:
        self._turns.take(lambda: self._publish(self.engine.take_key_sets({uri: document})))
        self._on_key_set(uri)

    def _stop_waiting_for_key_sets(self) -> None:
        self._patient = False
        self._turns.take(lambda: self._publish(self.engine.age()))

    def _publish(self, step: Step, *, seen_at: float | None = None) -> None:
        with self.tracer.step(step, seen_at=seen_at):
            self._hand_over(step)
        if self._memory is not None:
            self._memory.note(step)
        self.engine_metrics.stepped(step)
        if step.changed:
            _log.info(
                "change %d: %d objects changed, %d snapshots new, %.1f ms",
                self.tracer.newest,
                len(step.changed),
                len(step.snapshots),
                step.duration_s * 1000,
            )
        self.quarantine.stepped(step, published=self._built)
        self._on_step(step)

    def _publish_of_quarantine(self, step: Step) -> None:
        self._want()
        self._publish(step)

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, self._turns.take, work)

    def _hand_over(self, step: Step) -> None:
        self._held.update(step.snapshots)
        if self._built or self._is_complete():
            if self._keeper is not None and (self._held or not self._built):
                self._keeper.touch()
            if self._requirements is not None:
                self._requirements.note(self._held)
            self.cache.publish({owner: snapshot for owner, snapshot in self._held.items() if snapshot is not None})
            for owner, snapshot in self._held.items():
                if snapshot is None:
                    self.cache.remove(owner)
                    for rejected in [each for each in self.nacks if each[0] == owner]:
                        del self.nacks[rejected]
            self._held.clear()
            if not self._built:
                self._built = True
                self._forget_kept()
                self.cache.complete()

    def _forget_kept(self) -> None:
        """Takes away what was kept of owners that are gone, and hears what clients rejected of the others."""
        connected = {client.owner for client in self.cache.clients()}
        for owner in self.cache.kept():
            # The projection for a gRPC client that is there has yet to have its turn.
            if not (owner.endswith(GRPC_SUFFIX) and owner in connected):
                self.cache.remove(owner)
        for nack in self._front.nacks.values() if self._front is not None else ():
            published = self.cache.published(nack.owner) or Snapshot()
            resources = published.of_type(nack.type_url)
            if all(name in resources and resources[name].version == v for name, v in nack.versions.items()):
                self._nacked(nack)

    def _is_complete(self) -> bool:
        """Whether the first snapshots hold all that there is.

        Envoys that outlived a control plane have more than what could be said before every object was read and every
        name and key set has its first answer: told that, they would drop the rest. Afterwards each object waits for
        itself.
        """
        pipeline = self.engine.pipeline
        resolved = all(pipeline.objects.resolved.peek(host) is not None for host in pipeline.wanted_hosts())
        fetched = all(pipeline.objects.key_sets.peek(uri) is not None for uri in pipeline.wanted_key_sets())
        whole = self._read_whole and resolved and (fetched or not self._patient)
        return whole and not self.quarantine.rehearsal.running and self._may_begin()

    def _stream_changed(self, event: StreamEvent) -> None:
        if event.owner.endswith(GRPC_SUFFIX):
            # Not from within the stream's own call: what it leads to is sent to that stream too.
            asyncio.get_running_loop().call_soon(self._turns.take, partial(self._project, event.owner))
        self.quarantine.came_or_went(event)
        self._on_stream(event)

    def _project(self, owner: str) -> None:
        wanted = self.cache.census(owner).clients > 0
        self._publish(self.engine.project_for_grpc(owner.removesuffix(GRPC_SUFFIX), wanted=wanted))
        if self._built and owner in self.cache.kept():
            self.cache.remove(owner)  # It was kept, but there is no such Gateway any more.

    def _settled(self, owner: str) -> None:
        self.quarantine.settled(owner)
        self._on_settled(owner)

    def _nacked(self, nack: Nack) -> None:
        self.nacks[nack.owner, nack.type_url] = nack
        _log.error(
            "Envoy %s of %s rejected %s: %s",
            nack.node_id,
            nack.owner,
            nack.made_from or ", ".join(nack.names),
            nack.message,
        )
        self.quarantine.nacked(nack)
        self._on_nack(nack)


async def _end(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
